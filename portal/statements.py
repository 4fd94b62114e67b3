"""Statements of which each is a transaction of its own, and one round trip to Postgres: for the way of an event.

What SQLAlchemy does around a statement takes ten times as long as the statement itself, which is no matter for a page
and all the difference for an event. Each runs in the scope in force: its connection is in that scope already, or is
told of it in the same round trip.
"""

from collections import deque
from collections.abc import Mapping
from threading import Lock
from typing import Any

from flask import Flask, current_app
from psycopg.rows import dict_row

from portal.database import CONNECT_ARGS, Connection, is_open, scope_in_force
from portal.extensions import db

ENOUGH = 20  # connections; beyond, one in another scope is used rather than a new one
TELL = "SELECT set_config('portal.tenant', %(scope)s, false)"


class Connections:
    """Connections that no statement uses, the one that was used last behind. Each remembers the scope that it is in."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: deque[Connection] = deque()
        self._open = 0
        self._lock = Lock()

    def take(self, scope: str) -> Connection:
        """Return one that Postgres has not closed, and that is in this scope if there is such a one."""
        while connection := self._idle_one(scope):
            if is_open(connection):
                return connection
            self._close(connection)
        connection = Connection.connect(self._address, autocommit=True, row_factory=dict_row, **CONNECT_ARGS)
        with self._lock:
            self._open += 1
        return connection

    def _idle_one(self, scope: str) -> Connection | None:
        with self._lock:
            found = next((each for each in reversed(self._idle) if each.scope == scope), None)
            if found is not None:
                self._idle.remove(found)
            elif self._idle and self._open >= ENOUGH:
                found = self._idle.popleft()
            return found

    def _close(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._open -= 1

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next statement."""
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Close them all."""
        while self._idle:
            self._close(self._idle.pop())


def init_app(app: Flask) -> None:
    """Give the application connections for such statements."""
    address = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    app.extensions["statements"] = Connections(address)


def run(statement: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first row of the statement, or None. What it did is committed.

    Args:
        statement: with placeholders like `%(name)s`.
        values: what they stand for.

    Raises:
        DATABASE_FAULTS: the database does not answer.
    """
    connections, scope = _connections(), scope_in_force()
    connection = connections.take(scope)
    was, connection.scope = connection.scope, None  # unknown, should the statement fail
    try:
        if was == scope:
            cursor = connection.execute(statement, values)
        else:
            with connection.pipeline():  # which is one transaction
                connection.execute(TELL, {"scope": scope})
                cursor = connection.execute(statement, values)
        row: Mapping[str, Any] | None = cursor.fetchone() if cursor.rownumber is not None else None
        connection.scope = scope
        return row
    finally:
        connections.give_back(connection)


def run_within_session(statement: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what `run` does, as a part of the session's transaction."""
    db.session.flush()
    result = db.session.connection().exec_driver_sql(statement, dict(values))
    row = result.mappings().first() if result.returns_rows else None
    return dict(row) if row else None


def dispose() -> None:
    """Close the connections that no statement uses."""
    _connections().close()


def _connections() -> Connections:
    connections: Connections = current_app.extensions["statements"]
    return connections
