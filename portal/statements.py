"""Statements of which each is a transaction of its own, and one round trip to Postgres: for the way of an event.

What SQLAlchemy does around a statement takes ten times as long as the statement itself, which is no matter for a page
and all the difference for an event. Postgres is told of the scope in force in the same round trip.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flask import Flask, current_app
from psycopg.rows import dict_row

from portal.database import CONNECT_ARGS, TELL_SCOPE, Connection, is_open, scope_in_force
from portal.extensions import db


class Connections:
    """Connections that no statement uses. There are never more than threads that ran one at the same time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: deque[Connection] = deque()

    def take(self) -> Connection:
        """Return one that Postgres has not closed."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if is_open(connection):
                    return connection
                connection.close()
        return Connection.connect(self._address, autocommit=True, row_factory=dict_row, **CONNECT_ARGS)

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next statement."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close them all."""
        while self._idle:
            self._idle.pop().close()


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
    connections = _connections()
    connection = connections.take()
    try:
        with connection.pipeline():  # which is one transaction
            connection.execute(TELL_SCOPE, {"scope": scope_in_force()})
            cursor = connection.execute(statement, values)
        row: Mapping[str, Any] | None = cursor.fetchone() if cursor.rownumber is not None else None
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
