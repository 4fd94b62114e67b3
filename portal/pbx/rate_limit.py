"""How many events a tenant may post, with all its keys. Each process counts for itself: this stops a runaway script.

The events of system keys count for the tenant that they name, and together for the system.
"""

import time
from collections import defaultdict
from functools import cache
from threading import Lock

import limits


class InMemoryRateLimit:
    """Counts requests by owner in fixed periods. Threads may share it."""

    def __init__(self, notation: str) -> None:
        limit = limits.parse(notation)
        self.max_requests, self.period = limit.amount, limit.get_expiry()
        self._counts: defaultdict[int | None, int] = defaultdict(int)
        self._period_ends = 0.0
        self._lock = Lock()

    def seconds_to_wait(self, *owners: int | None) -> float:
        """Count a request for each owner: a tenant's id, or None for the system.

        Return 0, or the seconds until the next period if there were too many for one of them.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._period_ends:
                self._counts.clear()
                self._period_ends = now + self.period
            for owner in owners:
                self._counts[owner] += 1
            is_over = any(self._counts[owner] > self.max_requests for owner in owners)
            return self._period_ends - now if is_over else 0.0


rate_limit = cache(InMemoryRateLimit)  # the counter of this process for a limit such as "600 per minute"
