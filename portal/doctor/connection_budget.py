"""Whether Postgres has enough connections for all processes of the portal."""

from typing import Any, Final, NamedTuple

import psycopg
from flask import current_app

from portal.database import fast_sql
from portal.deliveries import worker
from portal.doctor.diagnoses import Diagnosis, State

SPARE: Final = 5  # for commands, an upgrade and a backup
NEARLY_ALL: Final = 0.9
LIMITS: Final = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0) AS server,
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS of_database,
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS of_login,
        (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL) AS used
"""


class Processes(NamedTuple):
    """The numbers of web processes and workers that use the database."""

    web: int
    workers: int


def check_connections(connection: psycopg.Connection[Any], name: str, processes: Processes) -> Diagnosis:
    """Compare what the processes may open with what Postgres allows."""
    row = connection.execute(LIMITS).fetchone()
    assert row
    server, of_database, of_login, used = row
    allowed = min(limit for limit in (server, of_database, of_login) if limit >= 0)
    web, workers = processes
    needed = web * of_web_process() + workers * of_worker() + SPARE
    parts = (f"{web} times {of_web_process()} for web processes", f"{workers} times {of_worker()} for workers")
    sum_text = f"{', '.join(parts)}, and {SPARE} to spare"
    if needed > allowed:
        seen = f"Postgres allows {allowed} connections, and the portal may need {needed}: {sum_text}."
        return Diagnosis(
            name, State.FAILED, seen, "Raise max_connections or the limit of the login, or run fewer processes."
        )
    if used > server * NEARLY_ALL:
        seen = f"{used} of the {server} connections of Postgres are in use."
        return Diagnosis(
            name, State.WARNING, seen, "Raise max_connections, or find out in pg_stat_activity who has them."
        )
    return Diagnosis(
        name, State.OK, f"Postgres allows {allowed} connections, which is enough for {needed}: {sum_text}."
    )


def of_web_process() -> int:
    """Return how many connections a web process may open: one tells whether the database is ready."""
    return _of_process() + 1


def of_worker() -> int:
    """Return how many connections a worker may open."""
    return _of_process() + worker.JOB_CONNECTIONS


def _of_process() -> int:
    pool = current_app.config["SQLALCHEMY_ENGINE_OPTIONS"]
    return int(pool["pool_size"] + pool["max_overflow"] + fast_sql.MAX_CONNECTIONS + 1)  # one holds process locks
