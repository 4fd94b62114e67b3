"""Statements that are each one transaction and one round trip to Postgres, for the path of an event.

SQLAlchemy's work around a statement takes ten times as long as the statement: no matter for a page, but most of the
time of an event. Each statement runs in the tenant scope in force. Its connection is in that scope already, or is put
into it in the same round trip.
"""

import logging
import os
import time
from collections.abc import Mapping
from threading import Lock, local
from typing import Any, Final

import psycopg
from flask import Flask, current_app
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from portal.database.engine import CONNECT_ARGS, PostgresConnection, is_open, outage
from portal.database.scope import current_scope
from portal.extensions import db

MAX_CONNECTIONS = 8  # of one process
IDLE_TIMEOUT: Final = 60.0  # seconds after which a connection is given back to Postgres
CONNECTION_TIMEOUT: Final = 5.0  # seconds to wait for a connection
FAILURE_CHECK_INTERVAL: Final = 0.1  # seconds after which a waiting caller hears of a failed attempt to connect
SET_SCOPE: Final = "SELECT set_config('portal.tenant', %(scope)s, false)"

_opening = Lock()


class ScopedPool(ConnectionPool[PostgresConnection]):
    """A pool that prefers connections in the scope in force, because setting the scope doubles a statement's cost."""

    def __init__(self, conninfo: str) -> None:
        self._failed_at = 0.0
        self._caller = local()
        super().__init__(
            conninfo,
            connection_class=PostgresConnection,
            kwargs={"autocommit": True, "row_factory": dict_row, **CONNECT_ARGS},
            min_size=0,
            max_size=MAX_CONNECTIONS,
            max_idle=IDLE_TIMEOUT,
            num_workers=1,
            reconnect_timeout=0,  # the next caller tries again
            reconnect_failed=self._note_failure,
            name="fast_sql",
            open=True,
        )

    def take(self, scope: str) -> PostgresConnection:
        """Return an open connection, to give back with `putconn`. Raise psycopg.OperationalError without one."""
        outage.check()
        began, self._caller.scope = time.monotonic(), scope
        while True:
            try:
                connection = self.getconn(FAILURE_CHECK_INTERVAL)
            except PoolTimeout:
                outage.check()
                if self._failed_at >= began:
                    raise psycopg.OperationalError("Postgres accepts no connection.") from None
                if time.monotonic() - began >= CONNECTION_TIMEOUT:
                    raise
                continue
            if is_open(connection):
                return connection
            connection.close()
            self.putconn(connection)  # the pool opens another in its place

    def _get_ready_connection(self, timeout: float | None) -> PostgresConnection | None:
        """Prefer a connection in the scope, then a new one, then the one that was idle for longest.

        This method is internal to psycopg_pool. Without it each statement would still be put into its scope.
        """
        scope, idle = self._caller.scope, self._pool
        for connection in reversed(idle):
            if connection.scope == scope:
                idle.remove(connection)
                idle.appendleft(connection)
                break
        else:
            if self._nconns < self.max_size and not self._growing:
                return None  # so that the pool grows
        return super()._get_ready_connection(timeout)

    def _note_failure(self, _pool: object) -> None:
        self._failed_at = time.monotonic()


def init_app(app: Flask) -> None:
    """Give the application its pools, one of each process."""
    app.extensions["fast_sql"] = {}
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # its warnings reach the callers as exceptions


def run(statement: str, values: Mapping[str, Any], *, scope: str | None = None) -> Mapping[str, Any] | None:
    """Run and commit a statement with placeholders like `%(name)s`. Return its first row, or None.

    `scope` replaces the one in force, for what may run beside the thread of the session.
    """
    pool, scope = _pool(), scope or current_scope()
    connection = pool.take(scope)
    previous_scope, connection.scope = connection.scope, None  # unknown, should the statement fail
    try:
        if previous_scope == scope:
            row = connection.run_prepared((statement, values))
        else:
            row = connection.run_prepared((SET_SCOPE, {"scope": scope}), (statement, values))
        connection.scope = scope
        return row
    finally:
        pool.putconn(connection)


def run_within_session(statement: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Run a statement in the session's transaction, and return its first row, or None."""
    db.session.flush()
    result = db.session.connection().exec_driver_sql(statement, dict(values))
    row = result.mappings().first() if result.returns_rows else None
    return dict(row) if row else None


def dispose() -> None:
    """Close the pool. The next statement opens another."""
    if pool := _pools().pop(os.getpid(), None):
        pool.close()


def _pools() -> dict[int, ScopedPool]:
    pools: dict[int, ScopedPool] = current_app.extensions["fast_sql"]
    return pools


def _pool() -> ScopedPool:
    """Return the pool of this process, opened at its first statement: connections do not survive a fork."""
    pools, process = _pools(), os.getpid()
    with _opening:
        if process not in pools:
            pools[process] = ScopedPool(current_app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1))
        return pools[process]
