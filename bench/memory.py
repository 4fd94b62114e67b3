"""The memory of the web processes and of the worker while 100,000 events run."""

from collections.abc import Sequence
from typing import Final

from bench import portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import call_lost
from bench.measurement import Table, ratio_text, report
from bench.processes import resident

EVENTS: Final = 100_000
QUICK_EVENTS: Final = 10_000
ROUNDS: Final = 5
SAMPLES: Final = 10
AT_ONCE: Final = 16


def run(rounds: int) -> Sequence[Table]:
    """Return the memory at ten points in time. With few rounds there are fewer events."""
    events = EVENTS if rounds >= ROUNDS else QUICK_EVENTS
    web, worker = [], []
    with (
        postgres.running() as server,
        sinks.sink() as sink,
        portal_process.prepared(server.database("portal")) as ready,
    ):
        key = ready.tenant("acme.example", port=sink.port)
        with portal_process.serving(ready) as served:
            portal = Contender(served.port, portal_process.PATH, key, call_lost, (), sink)
            for number in range(SAMPLES):
                portal.run(events // SAMPLES, AT_ONCE)
                web.append(resident([served.web.pid]))
                worker.append(resident([served.worker.pid]))
                report(f"  {number + 1} of {SAMPLES}: {web[-1]:.0f} MB and {worker[-1]:.0f} MB")
    columns = ["MB after", *(f"{(number + 1) * events // SAMPLES:,}" for number in range(SAMPLES)), "last ÷ first"]
    rows = [
        [name, *(f"{each:.0f}" for each in sizes), ratio_text(sizes[-1] / sizes[0])]
        for name, sizes in (("all web processes", web), ("worker", worker))
    ]
    return [Table(f"Memory over {events:,} events", columns, rows)]
