"""Statements of several threads in one transaction."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import psycopg
import pytest
from flask import Flask

from portal.database import fast_sql, group_commit
from portal.database.engine import PostgresConnection, outage
from portal.database.fast_sql import Sharing
from portal.database.group_commit import MAX_TASKS, GroupCommit
from portal.database.prepared import Row
from portal.database.scope import EVERY_TENANT
from tests.sql import sql

WHERE = "SELECT pg_current_xact_id()::text AS transaction, current_setting('portal.tenant') AS scope"
ADD = "INSERT INTO tenants (name, domain, time_zone, language) VALUES (%(name)s, %(name)s, 'UTC', 'en') RETURNING name"
RENAME = "UPDATE tenants SET name = name || %(more)s WHERE domain = %(domain)s RETURNING name"
LOCK = "SELECT FROM tenants WHERE domain = 'locked' FOR UPDATE"
TENANTS = "SELECT array_agg(name ORDER BY name) AS names FROM tenants"


class Threads:
    """Threads that run statements which may share a transaction."""

    def __init__(self, app: Flask, executor: ThreadPoolExecutor) -> None:
        self._app, self._executor = app, executor

    def run(self, statement: str, scope: str = EVERY_TENANT, *, is_durable: bool = True, **values: Any) -> Future[Row]:
        """Begin to run it, and return its future row."""

        def run() -> Row:
            with self._app.app_context():
                return fast_sql.run(statement, values, scope=scope, sharing=Sharing((), is_durable))

        return self._executor.submit(run)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep a transaction open while the block begins statements."""
        first = self.run("SELECT pg_sleep(0.4)")
        time.sleep(0.1)
        yield
        first.result()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads wait for a transaction, however busy the machine is."""
    monkeypatch.setattr(group_commit, "PATIENCE", 10)


@pytest.fixture
def threads(context: Flask) -> Iterator[Threads]:
    """Return threads that end with the test."""
    with ThreadPoolExecutor(3 * MAX_TASKS) as executor:
        yield Threads(context, executor)


def test_those_that_wait_share_a_transaction_each_in_its_scope(threads: Threads) -> None:
    scopes = ["1", "2", EVERY_TENANT, "1", "3"]
    with threads.busy():
        futures = [threads.run(WHERE, scope) for scope in scopes]
    rows = [future.result() or {} for future in futures]
    assert [row["scope"] for row in rows] == scopes
    assert len({row["transaction"] for row in rows}) == 1


def test_one_that_need_not_wait_has_a_transaction_of_its_own(threads: Threads) -> None:
    assert len({(threads.run(WHERE).result() or {})["transaction"] for _ in range(3)}) == 3


def test_a_transaction_does_not_grow_without_limit(threads: Threads) -> None:
    with threads.busy():
        futures = [threads.run(WHERE) for _ in range(MAX_TASKS + 2)]
    of_each = [(future.result() or {})["transaction"] for future in futures]
    assert sorted(map(of_each.count, set(of_each))) == [2, MAX_TASKS]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
        ("SELECT %(text)s", psycopg.DataError),
        ("SELECT %(lone_surrogate)s", UnicodeEncodeError),
        ("SELECT nothing", psycopg.errors.UndefinedColumn),
    ],
    ids=["when it runs", "when it is sent", "when it is encoded", "when it is prepared"],
)
def test_only_the_statement_at_fault_fails(threads: Threads, fault: str, error: type[Exception]) -> None:
    with threads.busy():
        good = [threads.run(ADD, name=name) for name in ("a", "b")]
        bad = threads.run(fault, text="\0", lone_surrogate="\ud800")
        good += [threads.run(ADD, name=name) for name in ("c", "d")]
    with pytest.raises(error):
        bad.result()
    assert [future.result() for future in good] == [{"name": name} for name in "abcd"]
    assert threads.run(TENANTS).result() == {"names": ["a", "b", "c", "d"]}


def test_a_statement_that_waits_for_a_lock_does_not_keep_its_transaction(threads: Threads) -> None:
    threads.run(ADD, name="locked").result()
    with psycopg.connect(own_url(threads)) as other:
        other.execute(LOCK)
        with threads.busy():
            waits = threads.run(RENAME, domain="locked", more="!")
            others = [threads.run(ADD, name=name) for name in ("a", "b")]
        for future in others:
            future.result(timeout=2)
        assert not waits.done()
    assert waits.result() == {"name": "locked!"}


def test_a_statement_that_waits_for_a_lock_does_not_keep_those_that_come_later(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads.run(ADD, name="locked").result()
    monkeypatch.setattr(group_commit, "PATIENCE", 0.02)
    with psycopg.connect(own_url(threads)) as other:
        other.execute(LOCK)
        waits = threads.run(RENAME, domain="locked", more="!")
        time.sleep(0.1)
        for name in "abc":
            threads.run(ADD, name=name).result(timeout=2)
        assert not waits.done()
    assert waits.result() == {"name": "locked!"}


def test_slow_statements_do_not_make_a_transaction_longer_than_postgres_may_take(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresConnection, "answer_timeout", 2)
    with threads.busy():
        futures = [threads.run("SELECT 1 AS one FROM pg_sleep(0.7)") for _ in range(4)]
    assert [future.result() for future in futures] == [{"one": 1}] * 4
    assert threads.run("SHOW statement_timeout").result() == {"statement_timeout": "9s"}
    assert threads.run("SHOW lock_timeout").result() == {"lock_timeout": "5s"}


def test_a_result_does_not_wait_for_the_disk_of_others(threads: Threads) -> None:
    with threads.busy():
        threads.run("SELECT 1", is_durable=False).result(timeout=0.2)


def own_url(threads: Threads) -> str:
    """Return the URL of the database for psycopg."""
    url: str = threads._app.config["SQLALCHEMY_DATABASE_URI"]
    return url.replace("+psycopg", "")


def test_two_processes_lock_the_same_rows_in_the_same_order(context: Flask) -> None:
    for name in "ab":
        fast_sql.run(ADD, {"name": name})
    tasks = [
        fast_sql._Task((RENAME, {"domain": name, "more": ""}), [("SELECT pg_sleep(0.002)", {})], "0", (name,))
        for name in "ab"
    ]
    processes = [fast_sql.Connections(context.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")) for _ in "12"]
    with ThreadPoolExecutor(2) as executor:
        for _ in range(20):
            one = executor.submit(processes[0].run_together, tasks)
            other = executor.submit(processes[1].run_together, tasks[::-1])
            assert one.result() == [{"name": "a"}, {"name": "b"}]
            assert other.result() == [{"name": "b"}, {"name": "a"}]
    for connections in processes:
        connections.close()


def test_what_is_reported_as_written_is_written_once_although_postgres_ended_the_connection(threads: Threads) -> None:
    with threads.busy():
        futures = [threads.run(ADD, name=name) for name in "ab"]
        futures.append(threads.run("SELECT 1 FROM pg_sleep(0.45)", scope="9"))
    time.sleep(0.2)
    sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    written = [name for name, future in zip("ab", futures, strict=False) if not future.exception()]
    assert threads.run(TENANTS).result() == {"names": written or None}


def test_a_postgres_that_does_not_answer_fails_all_at_once(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostgresConnection, "answer_timeout", 0.7)
    try:
        with threads.busy():
            futures = [threads.run("SELECT pg_sleep(5)") for _ in range(3)]
        began = time.monotonic()
        for future in futures:
            with pytest.raises(psycopg.OperationalError):
                future.result()
        assert time.monotonic() - began < 3
    finally:
        outage.end()


Run = Callable[[Sequence[str]], Sequence[str]]


def run_together_while(group: GroupCommit[str, str], first: Run, run: Run, tasks: str) -> Sequence[Future[str]]:
    """Return the future results of tasks that wait together for the end of the first."""
    began, end = Event(), Event()

    def wait(given: Sequence[str]) -> Sequence[str]:
        began.set()
        end.wait()
        return first(given)

    with ThreadPoolExecutor(len(tasks) + 1) as executor:
        futures = [executor.submit(group.run, "first", wait)]
        began.wait()
        for number, task in enumerate(tasks, start=1):
            futures.append(executor.submit(group.run, task, run))
            while len(group._waiting) < number:
                time.sleep(0.001)
        end.set()
    return futures


def test_a_thread_that_is_interrupted_leaves_no_other_waiting() -> None:
    def fail(_: Sequence[str]) -> Sequence[str]:
        raise KeyboardInterrupt

    group = GroupCommit[str, str]()
    _, *futures = run_together_while(group, list, fail, "abc")
    errors = [type(future.exception()) for future in futures]
    assert errors == [KeyboardInterrupt, psycopg.OperationalError, psycopg.OperationalError]
    assert group.run("d", list) == "d"


def test_nobody_runs_again_what_postgres_may_have_done() -> None:
    ran: list[str] = []

    def fail(tasks: Sequence[str]) -> Sequence[str]:
        ran.extend(tasks)
        raise psycopg.OperationalError("gone")

    _, *futures = run_together_while(GroupCommit[str, str](), list, fail, "abc")
    for future in futures:
        assert isinstance(future.exception(), psycopg.OperationalError)
    assert ran == ["a", "b", "c"]


def test_the_next_transaction_begins_although_the_one_before_failed() -> None:
    def fail(_: Sequence[str]) -> Sequence[str]:
        raise MemoryError

    group = GroupCommit[str, str]()
    first, *others = run_together_while(group, fail, list, "abc")
    assert isinstance(first.exception(), MemoryError)
    assert [future.result() for future in others] == ["a", "b", "c"]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_thread_that_loses_its_patience_runs_its_task_once(monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    """Perhaps just when the transaction with its task has begun."""
    began, end, ran = Event(), Event(), list[str]()

    def wait(tasks: Sequence[str]) -> Sequence[str]:
        ran.extend(tasks)
        began.set()
        end.wait()
        return tasks

    def run(tasks: Sequence[str]) -> Sequence[str]:
        ran.extend(tasks)
        time.sleep(0.2)
        return tasks

    monkeypatch.setattr(group_commit, "PATIENCE", 0.1)
    group = GroupCommit[str, str]()
    with ThreadPoolExecutor() as executor:
        first = executor.submit(group.run, "first", wait)
        began.wait()
        others = [executor.submit(group.run, task, run) for task in "ab"]
        time.sleep(0.07 if is_late else 0)
        others += [executor.submit(group.run, task, run) for task in "cd"]
        time.sleep(0.02 if is_late else 0)
        assert [future.result() for future in others] == list("abcd")
        assert not first.done()
        end.set()
        assert first.result() == "first"
    assert group.run("next", list) == "next"
    assert sorted(ran) == ["a", "b", "c", "d", "first"]
    assert group._running == 0
