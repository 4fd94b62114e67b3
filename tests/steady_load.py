"""A PBX that posts signed events at a steady rate, and notes what became of each request."""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self
from uuid import uuid4

from urllib3 import HTTPConnectionPool, Timeout
from urllib3.exceptions import HTTPError, NewConnectionError

from portal.pbx.api_keys import IssuedKey
from tests.signing import signature_headers
from tests.tenant_fixtures import CALL_LOST

# Lets workers retry now what was deferred, without waiting for one that has it.
MAKE_DUE = """
    UPDATE deliveries SET next_attempt_at = now()
    WHERE id IN (SELECT id FROM deliveries WHERE status = 'deferred' AND next_attempt_at > now() FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a request: its event, its status or the fault, its seconds, and the response or the error."""

    event_id: str
    result: int | str
    seconds: float
    answer: Any = None


@dataclass
class SteadyLoad:
    """Events posted during a block at `rate` per second, to each of these ports and hosts in turn.

    A test may replace them.

    Half of the `clients` keep their connections as HTTP libraries do, half open one for each request. None tries again.
    """

    ports: Sequence[int]
    key: IssuedKey
    rate: float = 40
    clients: int = 20
    timeout: float = 100  # seconds for an answer
    hosts: Sequence[str] = ("127.0.0.1",)
    outcomes: list[Outcome] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._numbers = count()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def results(self) -> Counter[int | str]:
        """How many requests had each status or fault."""
        return Counter(outcome.result for outcome in self.outcomes)

    @property
    def acknowledged(self) -> set[str]:
        """The ids of the events that were answered with 200."""
        return {outcome.event_id for outcome in self.outcomes if outcome.result == 200}

    def wait_for(self, answers: int) -> None:
        """Wait until this many more requests have been answered."""
        wanted, ends = len(self.outcomes) + answers, time.monotonic() + 120
        while len(self.outcomes) < wanted:
            assert time.monotonic() < ends, "the load does not go on"
            time.sleep(0.05)

    def _run(self, number: int) -> None:
        is_kept, interval = number % 2 == 0, self.clients / self.rate
        self._stop.wait(interval * number / self.clients)
        pool, next_at = None, time.monotonic()
        while not self._stop.is_set():
            if pool is None or not is_kept or pool.port not in self.ports or pool.host not in self.hosts:
                turn, ports, hosts = next(self._numbers), self.ports, self.hosts
                port, host = ports[turn % len(ports)], hosts[turn % len(hosts)]
                pool = HTTPConnectionPool(host, port, maxsize=1, timeout=Timeout(self.timeout), retries=False)
            self.outcomes.append(self._post(pool, is_kept))
            next_at += interval
            self._stop.wait(next_at - time.monotonic())

    def _post(self, pool: HTTPConnectionPool, is_kept: bool) -> Outcome:
        event_id, began = str(uuid4()), time.monotonic()
        # Each in its own queue, so that the storm limit does not apply.
        body = json.dumps({"id": event_id, "type": "queue.call_lost", "data": CALL_LOST | {"queue_number": event_id}})
        assert self.key.signing_secret
        headers = {
            "Authorization": f"Bearer {self.key.secret}",
            "Content-Type": "application/json",
            **signature_headers(self.key.signing_secret, body, message_id=event_id),
        }
        if not is_kept:
            headers["Connection"] = "close"
        try:
            response = pool.urlopen("POST", "/api/v1/events", body, headers)
            result: int | str = response.status
            answer = response.json()
        except NewConnectionError:
            result, answer = "refused", None
        except HTTPError as error:
            result, answer = "broken", repr(error)
        return Outcome(event_id, result, time.monotonic() - began, answer)
