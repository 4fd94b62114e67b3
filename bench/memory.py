"""The memory and the Postgres connections of the web processes and of the worker while 100,000 events run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import psutil
import psycopg

from bench import portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import call_lost
from bench.measurement import Table, ratio_text, report
from bench.portal_process import WEB_NAME as WEB
from bench.portal_process import WORKER_NAME as WORKER
from bench.processes import resident

EVENTS: Final = 100_000
QUICK_EVENTS: Final = 10_000
ROUNDS: Final = 5
SAMPLES: Final = 10
AT_ONCE: Final = 16
MAX_CONNECTIONS: Final = 8
CONNECTIONS: Final = """
    SELECT application_name, count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND datname = 'portal' GROUP BY application_name
"""


def run(rounds: int) -> Sequence[Table]:
    """Return the memory at ten points in time, and most connections. With few rounds there are fewer events."""
    events = EVENTS if rounds >= ROUNDS else QUICK_EVENTS
    memory: defaultdict[str, list[float]] = defaultdict(list)
    connections: defaultdict[str, int] = defaultdict(int)
    with (
        postgres.running() as server,
        sinks.sink() as sink,
        portal_process.prepared(server.database("portal")) as ready,
    ):
        key = ready.tenant("acme.example", port=sink.port)
        with portal_process.serving(ready) as served:
            portal = Contender(served.port, portal_process.PATH, key, call_lost, (), sink)
            processes = {WEB: len(psutil.Process(served.web.pid).children()), WORKER: 1}
            for number in range(SAMPLES):
                portal.run(events // SAMPLES, AT_ONCE)
                for name, process in ((WEB, served.web), (WORKER, served.worker)):
                    memory[name].append(resident([process.pid]))
                for name, count in _connections(server.url).items():
                    connections[name] = max(connections[name], count)
                report(f"  {number + 1} of {SAMPLES}: {memory[WEB][-1]:.0f} MB and {memory[WORKER][-1]:.0f} MB")
    columns = ["MB after", *(f"{(number + 1) * events // SAMPLES:,}" for number in range(SAMPLES)), "last ÷ first"]
    rows = [
        [name, *(f"{each:.0f}" for each in sizes), ratio_text(sizes[-1] / sizes[0])] for name, sizes in memory.items()
    ]
    most = [
        [name, f"{count}", f"{connections[name]}", f"{connections[name] / count:.1f}"]
        for name, count in processes.items()
    ]
    return [
        Table(f"Memory over {events:,} events", columns, rows),
        Table(
            f"Postgres connections, {AT_ONCE} events at a time",
            ["", "processes", "most connections", "a process, on average"],
            most,
            f"Goal: at most {MAX_CONNECTIONS} a process.",
        ),
    ]


def _connections(url: str) -> Mapping[str, int]:
    """Return the number of connections of the web processes and of the worker at this moment."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute(CONNECTIONS).fetchall())
