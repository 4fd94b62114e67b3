"""Prepared statements on one connection, straight through libpq.

psycopg's cursor takes longer in Python than Postgres takes for a statement of the event path. Its adapters still
convert the values.
"""

import re
import select
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_PLACEHOLDER: Final = re.compile(r"%(?:\((?P<name>\w+)\)s|%)")
_FINISHED: Final = {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC}

# The most values of a statement that is prepared. Statements with more are rare, and there is another one for each
# number of rows, up to a megabyte each. A tenant's settings and the replies of its mail server decide how many there
# are, and Postgres would keep all of them for each connection.
MAX_KEPT_VALUES: Final = 100

Statement = tuple[str, Mapping[str, Any]]  # with placeholders like `%(name)s`, and their values
Row = Mapping[str, Any] | None  # the first one that a statement returns, by the names of its columns


class _Query(NamedTuple):
    text: bytes
    names: tuple[str, ...]  # of the values for $1, $2, …


@cache
def _query(statement: str) -> _Query:
    """Return a statement with placeholders like `%(name)s` as Postgres wants it. There are few statements."""
    names: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = match["name"]
        return names.setdefault(name, f"${len(names) + 1}") if name else "%"

    return _Query(_PLACEHOLDER.sub(placeholder, statement).encode(), tuple(names))


class _Types(dict[type, int]):
    """The oids of types that Postgres could take for others: `now() - '1 day'` might be the difference of two times.

    It finds out the rest from the statement.
    """

    def __missing__(self, python_type: type) -> int:
        self[python_type] = 0  # for the next value: there are few types
        return 0


_TYPES: Final = _Types(
    {
        python_type: psycopg.adapters.types[name].oid
        for python_type, name in {bool: "bool", float: "float8", datetime: "timestamptz", timedelta: "interval"}.items()
    }
)


class PreparedStatements:
    """The prepared statements of a connection in autocommit mode."""

    timeout: float | None = None  # how many seconds Postgres may take for an answer

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._pgconn: PGconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._columns: dict[tuple[bytes | None, ...], Sequence[str]] = {}
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)

    def run(self, *statements: Statement) -> Sequence[Row]:
        """Run statements in one transaction and one round trip, and return the first row of each, or None.

        Raises:
            psycopg.Error: as psycopg does. psycopg.OperationalError if Postgres does not answer in time; then the
                connection must be closed, because its answer may still arrive.
        """
        ready = [self._prepare(statement, values) for statement, values in statements]
        results = self._send(ready)
        for result in results:
            _check(result)
        return list(map(self._first_row, results[: len(ready)]))

    def _send(self, statements: Sequence[Callable[[], None]]) -> list[PGresult]:
        """Send the statements, several of them in a pipeline, and return their results."""
        is_pipeline = len(statements) > 1
        if is_pipeline:
            self._pgconn.enter_pipeline_mode()
        for send in statements:
            send()
        if not is_pipeline:
            return self._results()
        self._pgconn.pipeline_sync()
        results = self._results(last=ExecStatus.PIPELINE_SYNC)
        self._pgconn.exit_pipeline_mode()
        return results

    def _prepare(self, statement: str, values: Mapping[str, Any]) -> Callable[[], None]:
        """Prepare the statement if it is worth it, and return what sends it, with the values as text."""
        query = _query(statement)
        given = [values[name] for name in query.names]
        types = tuple(map(_TYPES.__getitem__, map(type, given)))
        texts = list(self._transformer.dump_sequence(given, [PyFormat.TEXT] * len(given)))
        if len(given) > MAX_KEPT_VALUES:
            return partial(self._pgconn.send_query_params, query.text, texts, types)
        name = self._names.get((statement, types))
        if name is None:
            name = f"portal_{len(self._names)}".encode()
            self._pgconn.send_prepare(name, query.text, types)
            for result in self._results():
                _check(result)
            self._names[statement, types] = name
        return partial(self._pgconn.send_query_prepared, name, texts)

    def _first_row(self, result: PGresult) -> Row:
        if not result.ntuples:
            return None
        self._transformer.set_pgresult(result)
        row = self._transformer.load_row(0, tuple)
        assert row is not None
        names = tuple(map(result.fname, range(result.nfields)))
        if names not in self._columns:
            self._columns[names] = [(name or b"").decode() for name in names]
        return dict(zip(self._columns[names], row, strict=True))

    def _results(self, last: ExecStatus | None = None) -> list[PGresult]:
        """Return all results, once the last one is there: in a pipeline it has this status."""
        ends = None if self.timeout is None else time.monotonic() + self.timeout
        results: list[PGresult] = []
        must_write = self._pgconn.flush()
        if must_write:
            self._poll.modify(self._pgconn.socket, select.POLLIN | select.POLLOUT)
        while True:
            self._wait(ends)
            if must_write and not (must_write := self._pgconn.flush()):
                self._poll.modify(self._pgconn.socket, select.POLLIN)
            if self._take_results(results, last):
                return results

    def _take_results(self, results: list[PGresult], last: ExecStatus | None) -> bool:
        """Add the results that have arrived, and return whether these are all."""
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                return last is None
            results.append(result)
            if result.status == last:
                return True
            if last is not None:
                self._pgconn.get_result()  # None, which is always there: is_busy() would let other threads run
        return False

    def _wait(self, ends: float | None) -> None:
        milliseconds = None if ends is None else max(0, (ends - time.monotonic()) * 1000)
        if not self._poll.poll(milliseconds):
            raise psycopg.OperationalError("Postgres did not answer in time.")
        self._pgconn.consume_input()


def _check(result: PGresult) -> None:
    if result.status not in _FINISHED:
        raise psycopg.errors.error_from_result(result)
