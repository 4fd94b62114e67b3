"""Prepared statements straight through libpq: values, errors, connections that Postgres leaves."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from portal.database import engine, fast_sql
from portal.database.engine import PostgresConnection, outage
from portal.mail_servers.smtp.client import Encryption

VALUES: dict[str, tuple[str, Any]] = {
    "text": ("text", "Zoë said “%s”, 100 % \\ '"),
    "nothing": ("text", None),
    "an integer": ("int", -7),
    "a large integer": ("bigint", 2**40),
    "a truth value": ("bool", True),
    "bytes": ("bytea", b"\x00\xff'\\"),
    "a time": ("timestamptz", datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=UTC)),
    "a duration": ("interval", timedelta(days=1, seconds=3, microseconds=9)),
    "an id": ("uuid", UUID(int=5)),
    "a list": ("text[]", ["a,b", 'c"d', "{e}", ""]),
    "an empty list": ("int[]", []),
    "an enumeration": ("text", Encryption.STARTTLS),
    "JSON": ("jsonb", '{"a": [1, null, "ü"]}'),
}


@pytest.fixture
def connection(context: Flask) -> Iterator[PostgresConnection]:
    """A connection of the tests' database."""
    url = context.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "", 1)
    with PostgresConnection.connect(url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(("type_name", "value"), VALUES.values(), ids=VALUES)
def test_a_value_arrives_as_through_a_cursor(connection: PostgresConnection, type_name: str, value: Any) -> None:
    statement, values = f"SELECT %(value)s::{type_name} AS value, 1 AS one", {"value": value}
    expected = connection.execute(statement, values).fetchone()
    assert expected
    for _ in range(2):  # prepared, and prepared before
        assert connection.run_prepared((statement, values)) == [{"value": expected[0], "one": 1}]


def test_a_value_that_is_used_twice_and_a_per_cent_sign(connection: PostgresConnection) -> None:
    statement = "SELECT %(b)s::int - %(a)s::int + %(b)s::int AS n, 7 %% 4 AS rest"
    assert connection.run_prepared((statement, {"a": 1, "b": 5})) == [{"n": 9, "rest": 3}]


def test_postgres_does_not_keep_a_statement_for_every_number_of_rows(connection: PostgresConnection) -> None:
    columns = "a int, b int, c int, d int, e text"
    for count in range(1, 52):
        table = fast_sql.rows("row", columns, count)
        values = fast_sql.row_values("row", columns, ([number, 0, 0, 0, "x"] for number in range(count)))
        statement = (f"SELECT sum(a) AS sum FROM {table}", values)
        assert connection.run_prepared(("SELECT 1 AS one", {}), statement) == [{"one": 1}, {"sum": sum(range(count))}]
        assert connection.run_prepared(statement) == [{"sum": sum(range(count))}]
    kept = connection.execute("SELECT count(*), max(length(statement)) FROM pg_prepared_statements").fetchone()
    assert kept
    assert kept[0] <= 22
    assert kept[1] < 3_000


@pytest.mark.parametrize("value", [timedelta(days=1), 0.5, None, 3])
def test_the_type_of_a_value_is_never_guessed_wrong(connection: PostgresConnection, value: Any) -> None:
    """Each value here has another type, although the statement is the same."""
    statement = "SELECT coalesce(%(value)s::text, 'nothing') AS value"
    for given in (value, None, value):
        expected = connection.execute(statement, {"value": given}).fetchone()
        assert expected
        assert connection.run_prepared((statement, {"value": given})) == [{"value": expected[0]}]


def test_a_duration_before_now(connection: PostgresConnection) -> None:
    statement = "SELECT now() - %(ago)s < now() AS is_before"
    assert connection.run_prepared((statement, {"ago": timedelta(hours=1)})) == [{"is_before": True}]


def test_a_statement_without_a_row(connection: PostgresConnection) -> None:
    assert connection.run_prepared(("SELECT 1 WHERE false", {})) == [None]
    assert connection.run_prepared(("SET application_name = 'x'", {})) == [None]


def test_several_statements_are_one_transaction(connection: PostgresConnection) -> None:
    connection.execute("CREATE TEMPORARY TABLE kept (n int CHECK (n > 0))")
    add = "INSERT INTO kept VALUES (%(n)s) RETURNING n"
    assert connection.run_prepared((add, {"n": 1}), (add, {"n": 2})) == [{"n": 1}, {"n": 2}]
    for statements in ([(add, {"n": 3}), (add, {"n": 0})], [(add, {"n": 0}), (add, {"n": 3})]):
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.run_prepared(*statements)
    assert connection.run_prepared(("SELECT count(*) AS rows FROM kept", {})) == [{"rows": 2}]


@pytest.mark.parametrize("statement", ["SELECT nothing", "SELECT %(text)s::int", "SELECT FROM"])
def test_an_error_is_psycopgs_and_the_connection_goes_on(connection: PostgresConnection, statement: str) -> None:
    values = {"text": "no number"}
    with pytest.raises(psycopg.Error) as expected:
        connection.execute(statement, values)
    for _ in range(2):
        with pytest.raises(type(expected.value), match=str(expected.value).partition("\n")[0]):
            connection.run_prepared((statement, values))
    assert connection.run_prepared(("SELECT 1 AS one", {})) == [{"one": 1}]


def test_a_statement_that_cannot_be_sent_leaves_no_pipeline_open(connection: PostgresConnection) -> None:
    many = 70_000  # values: more than the protocol has room for
    statement = (
        f"SELECT {'+'.join(f'%(n{number})s::int' for number in range(many))}",
        {f"n{n}": n for n in range(many)},
    )
    with pytest.raises(psycopg.Error, match="between 0 and 65535"):
        connection.run_prepared(statement, statement)
    assert connection.closed


def test_an_answer_that_comes_too_late_ends_the_connection(
    connection: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRY_INTERVAL", 60)
    connection.answer_timeout = 0.05
    with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
        connection.run_prepared(("SELECT pg_sleep(1)", {}))
    assert connection.closed
    with pytest.raises(psycopg.OperationalError, match="a moment ago"):
        outage.check()
    outage.end()


def test_a_large_value_is_sent_and_received(connection: PostgresConnection) -> None:
    large = "x" * 20_000_000  # more than the buffers of the socket
    statement = "SELECT length(%(text)s) AS size, %(text)s AS text"
    assert connection.run_prepared((statement, {"text": large})) == [{"size": len(large), "text": large}]


def test_a_connection_whose_prepared_statement_no_longer_fits_is_closed(connection: PostgresConnection) -> None:
    connection.execute("CREATE TEMPORARY TABLE changing (a int); INSERT INTO changing VALUES (1)")
    assert connection.run_prepared(("SELECT * FROM changing", {})) == [{"a": 1}]
    connection.execute("ALTER TABLE changing ADD b int")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        connection.run_prepared(("SELECT * FROM changing", {}))
    assert connection.closed
