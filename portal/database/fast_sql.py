"""Statements that are one transaction and one round trip to Postgres, for the path of an event.

SQLAlchemy's work around a statement takes ten times as long as the statement: no matter for a page, but most of the
time of an event. Each statement runs in the tenant scope in force. Its connection is in that scope already, or is put
into it in the same round trip.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import psycopg
from flask import Flask, current_app
from psycopg.rows import dict_row

from portal import config
from portal.database.engine import CONNECT_ARGS, PostgresConnection, outage
from portal.database.group_commit import GroupCommit
from portal.database.prepared import Row, Statement
from portal.database.scope import current_scope
from portal.extensions import db

MAX_CONNECTIONS: Final = 4  # of one process: more statements at a time take longer in all
CONNECTION_TIMEOUT: Final = 5.0  # seconds to wait for a connection
SET_SCOPE: Final = "SELECT set_config('portal.tenant', %(scope)s, false)"
# A statement that takes longer than usual continues alone: the others of its transaction do not wait for it, and all
# together stay within ANSWER_TIMEOUT.
LIMIT_EACH: Final = "SELECT set_config('lock_timeout', '100ms', true), set_config('statement_timeout', '500ms', true)"


class Sharing(NamedTuple):
    """Allows a statement to share a transaction with those of other threads.

    A transaction runs them in this `order`, so that two transactions lock the rows that both need in the same order.
    """

    order: tuple[str, ...]
    is_durable: bool = True  # False: the statement lets its transaction commit without waiting for the disk


class _Task(NamedTuple):
    """A statement with those that follow it, and its scope."""

    statement: Statement
    then: Sequence[Statement]
    scope: str
    order: tuple[str, ...]

    @property
    def place(self) -> tuple[str, ...]:
        """Its place in a transaction."""
        return (self.scope, *self.order)


class Connections:
    """The connections of one process, opened when they are needed. Threads may share it."""

    def __init__(self, conninfo: str) -> None:
        # What need not wait for the disk does not wait for those that do.
        self.groups = {is_durable: GroupCommit[_Task, Row]() for is_durable in (True, False)}
        self._conninfo, self._process = conninfo, os.getpid()
        self._idle: list[PostgresConnection] = []  # the one that was used last at the end
        self._slots: SimpleQueue[None] = SimpleQueue()  # of the connections that may be in use: faster than a semaphore
        for _ in range(MAX_CONNECTIONS):
            self._slots.put(None)

    def take(self) -> PostgresConnection:
        """Return an open connection, to give back with `put_back`. Raise psycopg.OperationalError without one."""
        outage.check()
        try:
            self._slots.get(timeout=CONNECTION_TIMEOUT)
        except Empty:
            raise psycopg.OperationalError("All connections to Postgres are in use.") from None
        connection = None
        try:
            outage.check()  # it may have begun meanwhile
            connection = self._take_idle() or PostgresConnection.connect(
                self._conninfo, autocommit=True, row_factory=dict_row, **CONNECT_ARGS
            )
            return connection
        finally:
            if connection is None:
                self._slots.put(None)

    def _take_idle(self) -> PostgresConnection | None:
        try:
            while True:
                connection = self._idle.pop()
                if connection.is_open:
                    return connection
                connection.close()
        except IndexError:  # not asked before: another thread may take the last one
            return None

    def put_back(self, connection: PostgresConnection) -> None:
        """Let another statement use the connection, unless it is closed."""
        if not connection.closed:
            self._idle.append(connection)
        self._slots.put(None)

    def run_together(self, tasks: Sequence[_Task]) -> Sequence[Row]:
        """Run and commit tasks in one transaction, and return the first row of each one's statement, or None."""
        statements, places = list[Statement](), [0] * len(tasks)
        is_group = len(tasks) > 1
        in_order = sorted(range(len(tasks)), key=lambda number: tasks[number].place) if is_group else (0,)
        if is_group:
            statements.append((LIMIT_EACH, {}))
        connection = self.take()
        scope, connection.scope = connection.scope, None  # unknown, should a statement fail
        try:
            for number in in_order:
                task = tasks[number]
                if task.scope != scope:
                    scope = task.scope
                    statements.append((SET_SCOPE, {"scope": scope}))
                places[number] = len(statements)
                statements += [task.statement, *task.then]
            rows = connection.run_prepared(*statements)
            connection.scope = scope
        finally:
            self.put_back(connection)
        return [rows[place] for place in places]

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        """Close those of an application that is gone, unless they are those of the process that forked this one."""
        if self._process == os.getpid():
            self.close()


def init_app(app: Flask) -> None:
    """Give the application its connections, those of each process."""
    app.extensions["fast_sql"] = {}


def run(
    statement: str,
    values: Mapping[str, Any],
    *,
    then: Sequence[Statement] = (),
    scope: str | None = None,
    sharing: Sharing | None = None,
) -> Row:
    """Run and commit a statement with placeholders like `%(name)s`. Return its first row, or None.

    The statements in `then` follow in the same transaction and see what it did. `scope` replaces the one in force, for
    what may run beside the thread of the session. With `sharing`, it may share its transaction with those of other
    threads.
    """
    connections = _connections()
    task = _Task((statement, values), then, scope or current_scope(), sharing.order if sharing else ())
    if sharing:
        return connections.groups[sharing.is_durable].run(task, connections.run_together)
    return connections.run_together([task])[0]


def run_within_session(statement: str, values: Mapping[str, Any]) -> Row:
    """Run a statement in the session's transaction, and return its first row, or None."""
    db.session.flush()
    result = db.session.connection().exec_driver_sql(statement, dict(values))
    row = result.mappings().first() if result.returns_rows else None
    return dict(row) if row else None


@cache
def rows(name: str, columns: str, count: int) -> str:
    """Return a table of that many rows, at least one, with columns such as "id uuid, text text", for `row_values`."""
    types = [column.split()[1] for column in columns.split(",")]
    placeholders = [
        ", ".join(f"%({key})s::{kind}" for key, kind in zip(_row_keys(name, columns, number), types, strict=True))
        for number in range(count)
    ]
    names = ", ".join(column.split()[0] for column in columns.split(","))
    return f"(VALUES ({'), ('.join(placeholders)})) AS {name} ({names})"


def row_values(name: str, columns: str, table: Iterable[Iterable[Any]]) -> dict[str, Any]:
    """Return the values of rows, in the order of the columns, for the placeholders of a table that `rows` returned."""
    values: dict[str, Any] = {}
    for number, row in enumerate(table):
        values.update(zip(_row_keys(name, columns, number), row, strict=True))
    return values


@cache
def _row_keys(name: str, columns: str, number: int) -> Sequence[str]:
    return [f"{name}{number}_{column.split()[0]}" for column in columns.split(",")]


def dispose() -> None:
    """Close the connections. The next statement opens others."""
    if connections := _by_process().pop(os.getpid(), None):
        connections.close()


def _by_process() -> dict[int, Connections]:
    by_process: dict[int, Connections] = config.extension("fast_sql")
    return by_process


def _connections() -> Connections:
    """Return the connections of this process: they do not survive a fork."""
    by_process, process = _by_process(), os.getpid()
    if process not in by_process:
        conninfo = current_app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
        return by_process.setdefault(process, Connections(conninfo))
    return by_process[process]
