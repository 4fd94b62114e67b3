"""What other tenants notice while the mail server of one tenant takes connections and says nothing."""

import socket
import time
from collections.abc import Sequence
from typing import Final

from bench import postgres, product, sinks
from bench.bodies import call_lost
from bench.contender import Contender
from bench.load import begin, request
from bench.measuring import Table, compare, middle, p99, ratio, times
from bench.processes import HOST

AT_ONCE: Final = 4
SECONDS: Final = 3.0  # that a round takes: less than the portal waits for the greeting
HUNG_EVENTS: Final = 64  # at once: twice as many as there are threads
HEAD_START: Final = 0.5  # seconds until they are on their way


def run(rounds: int) -> Sequence[Table]:
    """Return the rate and the slowest answers of others, before and during."""
    slowest: dict[str, list[float]] = {"before": [], "during": []}
    with (
        socket.create_server((HOST, 0), backlog=4096) as silent,  # nobody ever accepts
        postgres.running() as server,
        sinks.sink() as sink,
        product.prepared(server.database("portal")) as ready,
    ):
        hung = (ready.tenant(f"hung{number}.example", port=silent.getsockname()[1]) for number in range(rounds))
        key = ready.tenant("acme.example", port=sink.port)
        with product.serving(ready) as served:
            others = Contender(served.port, product.PATH, key, call_lost, (), sink)
            events = others.events_in(SECONDS, AT_ONCE)

            def before() -> float:
                shown = others.run(events, AT_ONCE)
                slowest["before"].append(p99(answer.seconds for answer in shown.answers))
                return shown.rate

            def during() -> float:
                # A tenant of its own each time: the last one's mail server is known to be slow by now.
                key = next(hung)
                bodies = [call_lost(number) for number in range(HUNG_EVENTS)]
                waiting = begin(served.port, [request(product.PATH, body, key) for body in bodies], HUNG_EVENTS)
                time.sleep(HEAD_START)
                shown = others.run(events, AT_ONCE)
                slowest["during"].append(p99(answer.seconds for answer in shown.answers))
                waiting.answered()
                return shown.rate

            rates = compare({"before": before, "during": during}, rounds)
    columns = ["other tenants", "events a second", "99 % of answers within"]
    rows = [[name, f"{middle(rates, name):,.0f}", f"{middle(slowest, name) * 1000:.1f} ms"] for name in rates]
    rows.append(["during ÷ before", times(ratio(rates, "during", "before")), times(ratio(slowest, "during", "before"))])
    return [Table(f"{HUNG_EVENTS} events of a tenant whose mail server hangs", columns, rows)]
