"""How many events a key may post. Each process counts for itself: that keeps a runaway script out, and is no quota."""

import time
from collections import defaultdict
from functools import cache
from threading import Lock

import limits


class Rate:
    """A count for each key, that begins anew with each period. Threads may share it."""

    def __init__(self, notation: str) -> None:
        limit = limits.parse(notation)
        self.most, self.seconds = limit.amount, limit.get_expiry()
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._ends = 0.0
        self._lock = Lock()

    def wait(self, key_id: int) -> float:
        """Count an event of the key, and return 0, or the seconds until it may post again."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._counts.clear()
                self._ends = now + self.seconds
            self._counts[key_id] += 1
            return self._ends - now if self._counts[key_id] > self.most else 0.0


@cache
def rate(notation: str) -> Rate:
    """Return the counts of this process, for a rate in the notation of Flask-Limiter."""
    return Rate(notation)
