"""Locks that a process holds in Postgres beyond a transaction."""

import os
from contextlib import ExitStack

import psycopg
import pytest
from flask import Flask

from portal.database import process_locks
from portal.database.process_locks import ProcessLock
from tests.processes import wait_for
from tests.sql import sql

KEYS = (101, 102, 103)
HOLDERS = """
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE datname = current_database() AND locktype = 'advisory' AND objid IN (101, 102, 103)
"""


def holders() -> list[int]:
    """Return the process of Postgres that holds a lock, for each lock."""
    return [row.pid for row in sql(HOLDERS)]


def lose_connection() -> None:
    sql(f"SELECT pg_terminate_backend(pid, 5000) FROM ({HOLDERS}) AS holders")


def take(wanted: int, held: ExitStack) -> list[int]:
    """Try to take this many locks, hold them during the block, and return which they are."""
    taken = [lock for lock in (process_locks.take_any(KEYS) for _ in range(wanted)) if lock]
    for lock in taken:
        held.callback(lock.release)
    return [lock.key for lock in taken]


def test_each_lock_is_held_once(context: Flask) -> None:
    with ExitStack() as held:
        assert take(4, held) == [101, 102, 103]
        assert len(holders()) == 3
    assert not holders()
    with ExitStack() as held:
        assert take(1, held) == [101], "it was released"


def test_another_connections_lock_is_not_taken(context: Flask) -> None:
    with psycopg.connect(_conninfo(context), autocommit=True) as other, ExitStack() as held:
        other.execute("SELECT pg_advisory_lock(101), pg_advisory_lock(103)")
        assert take(2, held) == [102]
        other.execute("SELECT pg_advisory_unlock(103)")
        assert take(2, held) == [103]


def test_a_connection_is_open_only_while_locks_are_held(context: Flask) -> None:
    with ExitStack() as held:
        take(2, held)
        assert len(set(holders())) == 1
    locks = process_locks._locks()
    assert (locks._connection, locks._held) == (None, set())
    with psycopg.connect(_conninfo(context), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(101), pg_advisory_lock(102), pg_advisory_lock(103)")
        assert process_locks.take_any(KEYS) is None
        assert locks._connection is None


def test_locks_of_a_lost_connection_are_taken_again_and_released_once(context: Flask) -> None:
    lost = process_locks.take_any(KEYS)
    assert isinstance(lost, ProcessLock)
    lose_connection()
    with ExitStack() as held:
        assert take(1, held) == [101]
        lost.release()
        assert len(holders()) == 1


def test_a_lock_whose_connection_was_lost_is_released_without_an_error(context: Flask) -> None:
    lock = process_locks.take_any(KEYS)
    assert lock is not None
    lose_connection()
    lock.release()
    assert process_locks._locks()._connection is None


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_locks_alone(context: Flask) -> None:
    with ExitStack() as held:
        take(2, held)
        child = os.fork()
        if not child:
            status = 1
            try:
                held.close()
                own = process_locks.take_any(KEYS)
                status = 0 if own is not None and own.key == 103 else 1
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        wait_for(lambda: len(holders()) <= 2)  # until Postgres has noticed that the child's connection ended
        assert len(holders()) == 2


def _conninfo(app: Flask) -> str:
    uri: str = app.config["SQLALCHEMY_DATABASE_URI"]
    return uri.replace("+psycopg", "", 1)
