"""Locks that this process holds in Postgres until it releases them or ends, however it ends.

They are advisory locks of one connection, which is open only while there are any.
"""

import os
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Final

from sqlalchemy import URL

from portal.database.engine import CONNECT_ARGS, DATABASE_ERRORS, PostgresConnection, outage
from portal.extensions import db

# It stops at the first free lock.
TAKE_ANY: Final = "SELECT key FROM unnest(%s::bigint[]) AS key WHERE pg_try_advisory_lock(key) LIMIT 1"
RELEASE: Final = "SELECT pg_advisory_unlock(%s)"


class ProcessLock:
    """A lock that is held."""

    def __init__(self, holder: "_ProcessLocks", connection: PostgresConnection, key: int) -> None:
        self._holder, self.connection, self.key = holder, connection, key

    def release(self) -> None:
        """Let others take it. Without Postgres it is released with the lost connection."""
        if self._holder.process == os.getpid():  # in a forked process it is the parent's
            self._holder.release(self)


class _ProcessLocks:
    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = Lock()
        self._connection: PostgresConnection | None = None
        self._held: set[int] = set()  # a connection could take its own lock once more

    def take_any(self, keys: Sequence[int], url: URL) -> ProcessLock | None:
        with self._lock:
            outage.check()
            if self._connection is None or not self._connection.is_open:
                self._disconnect()
                self._connection = _connect(url)
            try:
                others = [key for key in keys if key not in self._held]
                row = self._connection.execute(TAKE_ANY, [others]).fetchone()
            except DATABASE_ERRORS:
                self._disconnect()
                raise
            if row is None:
                self._disconnect_if_unused()
                return None
            self._held.add(row[0])
            return ProcessLock(self, self._connection, row[0])

    def release(self, lock: ProcessLock) -> None:
        with self._lock:
            if lock.connection is not self._connection or lock.key not in self._held:
                return
            self._held.remove(lock.key)
            try:
                self._connection.execute(RELEASE, [lock.key])
            except DATABASE_ERRORS:
                self._disconnect()
            else:
                self._disconnect_if_unused()

    def _disconnect_if_unused(self) -> None:
        if not self._held:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._held = None, set()


def _connect(url: URL) -> PostgresConnection:
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresConnection.connect(conninfo, autocommit=True, **CONNECT_ARGS)


@cache
def _locks() -> _ProcessLocks:
    return _ProcessLocks()


os.register_at_fork(after_in_child=_locks.cache_clear)  # the connection remains the parent's


def take_any(keys: Sequence[int]) -> ProcessLock | None:
    """Take the first of these locks that nobody holds, or return None. Without Postgres it raises a DATABASE_ERROR."""
    return _locks().take_any(keys, db.engine.url)
