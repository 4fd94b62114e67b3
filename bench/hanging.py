"""What other tenants notice while one tenant's mail server accepts connections and sends nothing."""

import socket
import time
from collections.abc import Sequence
from typing import Final

from bench import portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import call_lost
from bench.load_generator import begin, request
from bench.measurement import Table, median_of, p99, ratio, ratio_text
from bench.processes import HOST
from bench.rounds import compare

AT_ONCE: Final = 4
SECONDS: Final = 3.0  # that a round takes: less than the portal waits for the greeting
HUNG_EVENTS: Final = 64  # at once: twice as many as there are threads
HEAD_START: Final = 0.5  # seconds until they are on their way


def run(rounds: int) -> Sequence[Table]:
    """Return the other tenants' rate and slowest responses, before and during."""
    slowest: dict[str, list[float]] = {"before": [], "during": []}
    with (
        socket.create_server((HOST, 0), backlog=4096) as silent,  # nobody ever accepts
        postgres.running() as server,
        sinks.sink() as sink,
        portal_process.prepared(server.database("portal")) as ready,
    ):
        hung = (ready.tenant(f"hung{number}.example", port=silent.getsockname()[1]) for number in range(rounds))
        key = ready.tenant("acme.example", port=sink.port)
        with portal_process.serving(ready) as served:
            others = Contender(served.port, portal_process.PATH, key, call_lost, (), sink)
            events = others.events_in(SECONDS, AT_ONCE)

            def before() -> float:
                shown = others.run(events, AT_ONCE)
                slowest["before"].append(p99(answer.seconds for answer in shown.answers))
                return shown.rate

            def during() -> float:
                # A tenant of its own each time: the last one's mail server is known to be slow by now.
                key = next(hung)
                bodies = [call_lost(number) for number in range(HUNG_EVENTS)]
                waiting = begin(served.port, [request(portal_process.PATH, body, key) for body in bodies], HUNG_EVENTS)
                time.sleep(HEAD_START)
                shown = others.run(events, AT_ONCE)
                slowest["during"].append(p99(answer.seconds for answer in shown.answers))
                waiting.answered()
                return shown.rate

            rates = compare({"before": before, "during": during}, rounds)
    columns = ["other tenants", "events a second", "99 % of answers within"]
    rows = [[name, f"{median_of(rates, name):,.0f}", f"{median_of(slowest, name) * 1000:.1f} ms"] for name in rates]
    rows.append(
        [
            "during ÷ before",
            ratio_text(ratio(rates, "during", "before")),
            ratio_text(ratio(slowest, "during", "before")),
        ]
    )
    return [Table(f"{HUNG_EVENTS} events of a tenant whose mail server hangs", columns, rows)]
