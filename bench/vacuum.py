"""Events just after a VACUUM and long after it: whether what earlier emails leave in the tables slows down the next."""

from collections.abc import Sequence
from statistics import median
from typing import Final

import psycopg

from bench import postgres, sinks
from bench.contenders import portal
from bench.measurement import Table, median_of, ratio, ratio_text, report
from bench.rounds import watched

EARLIER: Final = 20_000  # events between the two measurements of a round
EVENTS: Final = 2_000
AT_ONCE: Final = 16
SOON, LATER = "just after VACUUM", f"{EARLIER:,} events later"


def run(rounds: int) -> Sequence[Table]:
    """Return both rates. Meanwhile Postgres does not vacuum on its own, as on a much larger table."""
    rates: dict[str, list[float]] = {SOON: [], LATER: []}
    cpu: dict[str, list[Sequence[float]]] = {SOON: [], LATER: []}
    with postgres.running() as server, sinks.sink() as sink, psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET autovacuum = off")
        admin.execute("SELECT pg_reload_conf()")
        with portal(server, sink) as contender, psycopg.connect(server.url, dbname="portal", autocommit=True) as owner:
            measures = {name: contender.rate(EVENTS, AT_ONCE, cpu[name]) for name in rates}
            contender.run(EVENTS, AT_ONCE)
            for number in range(rounds):
                owner.execute("VACUUM ANALYZE")
                with watched():
                    rates[SOON].append(measures[SOON]())
                    contender.run(EARLIER, AT_ONCE)
                    rates[LATER].append(measures[LATER]())
                report(f"  round {number + 1} of {rounds}: {rates[SOON][-1]:,.0f}, later {rates[LATER][-1]:,.0f}")
    rows = [
        [name, f"{median_of(rates, name):,.0f}", f"{median(used[1] for used in cpu[name]):.2f} ms"] for name in rates
    ]
    rows.append([f"{LATER} ÷ {SOON}", ratio_text(ratio(rates, LATER, SOON)), ""])
    return [Table("Events a second, 16 at a time", ["", "events a second", "Postgres' CPU an event"], rows)]
