"""Whether this process can do its work, for a load balancer or a monitor. `web.front` answers `/livez` itself."""

import time
from functools import cache
from threading import Lock
from typing import Any, Final

import psycopg
from alembic.script import ScriptDirectory
from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue
from psycopg.abc import PQGen

from portal.accounts.access import for_clients
from portal.alerts.conditions import free_disk_share, is_worker_running
from portal.database.engine import CONNECT_ARGS, ROLE
from portal.extensions import db
from portal.monitoring.processes import hung_workers

blueprint = Blueprint("health", __name__)

TIMEOUT: Final = 2  # seconds to connect to Postgres, and for its answer
FULL_DISK: Final = 0.01  # the share of the database's disk that is free: Postgres is about to stop

_NO_SCHEMA: Final = "The database schema is not current. Run: pbx-portal upgrade"


class _Last:
    """When the database was last asked, and what was found."""

    began_at = 0.0
    problem: str | None = None


_last, _asking = _Last(), Lock()


class _BriefConnection(psycopg.Connection[Any]):
    """A connection that waits briefly for answers, and does not tell others when there is none."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer. Raise psycopg.OperationalError if there is none in time."""
        return super().wait(gen, interval, timeout or TIMEOUT)


@blueprint.get("/readyz")
@blueprint.get("/healthz")  # the name in version 0.1
@for_clients
def readyz() -> ResponseReturnValue:
    """Answer 200 if the database responds, its schema is new enough and its disk is not full, else 503 with why."""
    problem = find_problem()
    return (jsonify(status="ok"), 200) if problem is None else (jsonify(status="unavailable", reason=problem), 503)


def find_problem() -> str | None:
    """Return why this process cannot work, or None. This takes a few seconds if Postgres does not answer."""
    if problem := find_database_problem():
        return problem
    free = free_disk_share()
    return "The disk of the database is full." if free is not None and free < FULL_DISK else None


def find_worker_problem() -> str | None:
    """Return why due emails may not be sent: no worker has been running for a minute, or one of this host hangs."""
    if problem := find_database_problem():
        return problem
    if hung := hung_workers():
        return f"A worker does nothing any more. Restart it: process {', '.join(map(str, hung))}."
    return None if is_worker_running() else "No worker is running."


def find_database_problem() -> str | None:
    """Return what is wrong with the database: it does not answer, or its schema is older than this version needs.

    A process opens one connection for it at a time. Those who ask meanwhile get the result of the next one.
    """
    asked_at = time.monotonic()
    with _asking:
        if _last.began_at < asked_at:
            _last.began_at = time.monotonic()
            _last.problem = _ask_database()
        return _last.problem


def _ask_database() -> str | None:
    try:
        revisions = _read_revisions()
    except psycopg.errors.UndefinedTable:
        return _NO_SCHEMA
    except psycopg.OperationalError as error:
        return _NO_SCHEMA if f'role "{ROLE}" does not exist' in str(error) else "The database does not respond."
    known, latest = _own_revisions(str(current_app.extensions["migrate"].directory))
    # A revision that is not known is that of a newer version, whose schema works for this one too.
    return None if revisions and not revisions & (known - latest) else _NO_SCHEMA


def _read_revisions() -> set[str]:
    conninfo = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    options = CONNECT_ARGS | {"connect_timeout": TIMEOUT}
    connection = _BriefConnection.connect(conninfo, autocommit=True, **options)
    try:
        return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
    finally:
        connection.close()


@cache
def _own_revisions(directory: str) -> tuple[set[str], set[str]]:
    """Return the revisions of the schema that this version knows, and the latest."""
    scripts = ScriptDirectory(directory)
    return {script.revision for script in scripts.walk_revisions()}, set(scripts.get_heads())
