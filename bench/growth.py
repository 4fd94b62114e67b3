"""The same work on a database with ten million deliveries (BENCH_DELIVERIES sets how many) and on one with few."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Final

import psycopg
from sqlalchemy import event

from bench import postgres, sinks
from bench.fill_database import DAYS, Size
from bench.filled_database import SMALL_TABLE, Filled, filled
from bench.measurement import Table, median_of, ratio, ratio_text, report
from bench.rounds import compare
from portal.deliveries import retention
from portal.extensions import db
from portal.web.pagination import PAGE_SIZE

FULL: Final = Size(10_000, int(os.environ.get("BENCH_DELIVERIES", "10_000_000")), keyed_tenants=100, keys_each=100)
EMPTY: Final = Size(60, 1_500, keyed_tenants=1, keys_each=1)
WARM_UP: Final = 15  # calls: Postgres may turn to a plan for any values at the eleventh execution
GOAL: Final = 1.2


def run(rounds: int) -> Sequence[Table]:
    """Compare each kind of work on both databases, then delete what is past the retention time."""
    with ExitStack() as stack:
        server, sink = stack.enter_context(postgres.running()), stack.enter_context(sinks.sink())
        _tune(server.url)
        full, empty = (
            stack.enter_context(filled(server.database(name), size, sink.port))
            for name, size in (("full", FULL), ("empty", EMPTY))
        )
        return measure(full, empty, rounds)


def measure(full: Filled, empty: Filled, rounds: int) -> Sequence[Table]:
    """Return the tables of both filled databases."""
    rows = [_row(name, full, empty, rounds) for name in full.work]
    columns = ("", "hardly any rows", "many rows", "ratio", "rows read without an index")
    note = (
        f"{FULL.deliveries:,} deliveries in {DAYS} days, {FULL.deliveries // 10:,} of them of the measured tenant; "
        f"{FULL.tenants:,} tenants with a mail server each, {FULL.keyed_tenants} with {FULL.keys_each} keys. "
        f"Goal: at most {ratio_text(GOAL)}. Rows without an index: of tables with more than {SMALL_TABLE:,} rows, per "
        f"run. Both databases show pages with {PAGE_SIZE} events and as many tenants with problems; "
        f"{EMPTY.due:,} emails are due in both."
    )
    return [Table("The same work among many rows", columns, rows, note), _retention(full)]


def _row(name: str, full: Filled, empty: Filled, rounds: int) -> Sequence[str]:
    report(name)
    sides = {"many": full, "hardly any": empty}
    for side in sides.values():
        for _ in range(WARM_UP):
            side.work[name]()
    samples = compare({each: partial(side.milliseconds, name) for each, side in sides.items()}, rounds)
    found = ratio(samples, "many", "hardly any")
    told = ratio_text(found) if found <= GOAL else f"**{ratio_text(found)}**"
    few, many = (f"{median_of(samples, each):.1f} ms" for each in ("hardly any", "many"))
    return name, few, many, told, f"{full.rows_without_index(name):,.0f}"


def _retention(full: Filled) -> Table:
    """Delete the oldest day and return how long its transactions took."""
    commits = [time.perf_counter()]
    note_commit = partial(_record_commit, commits)
    with full.portal.app.app_context():
        event.listen(db.engine, "commit", note_commit)
        deleted = retention.delete_old_data()
        event.remove(db.engine, "commit", note_commit)
    batches = [later - earlier for earlier, later in pairwise(commits)]
    row = (f"{deleted:,}", f"{commits[-1] - commits[0]:.1f} s", f"{len(batches):,}")
    lengths = (f"{median(batches) * 1000:.0f} ms", f"{max(batches) * 1000:.0f} ms")
    columns = ("events deleted", "in", "transactions", "median", "longest")
    return Table("Retention", columns, [(*row, *lengths)], "With each event its delivery and its recipient go.")


def _record_commit(commits: list[float], _connection: object) -> None:
    commits.append(time.perf_counter())


def _tune(url: str) -> None:
    """Tune the server for loading many rows; the measurements do not depend on it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
        connection.execute("SELECT pg_reload_conf()")
