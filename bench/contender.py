"""A contender: a server that takes events and sends emails, measured until the last email is at the sink."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from bench.load_generator import LoadResponse, post, request
from bench.processes import cpu_seconds
from bench.sinks import Sink

NUMBERS: Final = count(1_000)  # of events
WARM_UP: Final = 50  # events
MIN_EVENTS: Final = 30  # events of a run


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run: events a second until the last email, responses, and how many of them were not 200.

    `cpu` has milliseconds of processor time an event, for each of the contender's programs.
    """

    rate: float
    cpu: Sequence[float]
    answers: Sequence[LoadResponse]
    failures: int


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that takes an event, which `body` makes from a number, and sends an email to the sink."""

    port: int
    path: str
    key: str
    body: Callable[[int], bytes]
    pids: Sequence[int]  # of its programs, Postgres last
    sink: Sink

    def requests(self, events: int) -> Sequence[bytes]:
        """Return events, ready to be sent."""
        return [request(self.path, self.body(next(NUMBERS)), self.key) for _ in range(events)]

    def run(self, events: int, at_once: int, *, may_fail: bool = False) -> Run:
        """Post events, wait for the last email of the acknowledged ones, and return the result.

        Raises:
            RuntimeError: an answer was not 200, and none may fail.
            TimeoutError: emails did not come.
        """
        requests = self.requests(events)
        emails, before = self.sink.count(), cpu_seconds(self.pids)
        load = post(self.port, requests, at_once)
        failures = len(load.failures)
        if failures and not may_fail:
            raise RuntimeError(f"{failures} of {events} answers: {load.failures[0].head[:500]!r}")
        self.sink.wait_for(emails + events - failures)
        seconds = time.monotonic() - load.began
        cpu = [(used - start) / events * 1000 for used, start in zip(cpu_seconds(self.pids), before, strict=True)]
        return Run(events / seconds, cpu, load.answers, failures)

    def events_in(self, seconds: float, at_once: int) -> int:
        """Return how many events take about that many seconds. Some are tried, which also warms up the server."""
        self.run(WARM_UP, at_once)
        return max(MIN_EVENTS, int(self.run(WARM_UP, at_once).rate * seconds))

    def rate(self, events: int, at_once: int, cpu: list[Sequence[float]] | None = None) -> Callable[[], float]:
        """Return a function that runs once and returns the rate. It adds the processor time of an event to `cpu`."""

        def measure() -> float:
            shown = self.run(events, at_once)
            if cpu is not None:
                cpu.append(shown.cpu)
            return shown.rate

        return measure
