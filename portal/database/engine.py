"""Connections to Postgres: how they are opened and checked, and what happens when Postgres does not answer."""

import select
import time
from collections.abc import Sequence
from threading import Lock, get_ident
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool

from portal.database.prepared import PreparedStatements, Row, Statement

# Postgres does not answer: try again later. The last one is raised where SQLAlchemy is not involved.
DATABASE_ERRORS: Final = (OperationalError, InterfaceError, PoolTimeoutError, psycopg.OperationalError)
ANSWER_TIMEOUT: Final = 10.0  # seconds
RETRY_INTERVAL: Final = 2.0  # seconds after Postgres did not answer
ROLE: Final = "pbx_portal"
# So that Postgres ends what a lost host held within a minute. The default of the system is two hours.
KEEPALIVE: Final = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
CONNECT_ARGS: Final[dict[str, Any]] = {
    "connect_timeout": 5,  # seconds
    # Postgres ends slow statements before ANSWER_TIMEOUT, which is for a Postgres that is frozen. Compiling
    # a statement (jit) takes longer than running any statement of a page.
    "options": f"-c role={ROLE} -c timezone=UTC -c jit=off -c statement_timeout=9s -c lock_timeout=5s "
    f"-c idle_in_transaction_session_timeout=60s {KEEPALIVE}",
}

Result = TypeVar("Result")


class Outage:
    """Notes that Postgres did not answer in time, so that other requests need not wait for the same timeout.

    While it lasts, one thread after the other tries whether Postgres answers again. Threads may share it.
    """

    def __init__(self) -> None:
        self._next_try: float | None = None  # None: there is no outage
        self._trying: int | None = None  # the thread that tries
        self._lock = Lock()

    def begin(self) -> None:
        """Note that Postgres did not answer."""
        self._trying, self._next_try = None, time.monotonic() + RETRY_INTERVAL

    def end(self) -> None:
        """Note that Postgres answered."""
        self._next_try = None

    def check(self) -> None:
        """Let a thread try a statement. Raise psycopg.OperationalError if it is not yet time to try again."""
        if self._next_try is None:
            return
        with self._lock:
            now, thread = time.monotonic(), get_ident()
            if self._next_try is None or self._trying == thread:
                return
            if now < self._next_try:
                raise psycopg.OperationalError("Postgres did not answer a moment ago.")
            self._trying, self._next_try = thread, now + RETRY_INTERVAL


outage = Outage()


class PostgresConnection(psycopg.Connection[Any]):
    """A connection that stops waiting for a Postgres that does not answer."""

    answer_timeout: float | None = ANSWER_TIMEOUT
    _statements: PreparedStatements | None = None
    _idle_poll: "select.poll | None" = None
    scope: str | None = None  # set for the connection, beyond a transaction; None: unknown

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed the idle connection, without a round trip."""
        if self.closed:
            return False
        if self._idle_poll is None:
            self._idle_poll = select.poll()
            self._idle_poll.register(self.fileno(), select.POLLIN)  # for what arrives only when Postgres ends it
        return not self._idle_poll.poll(0)

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Wait for an answer. If there is none in time, close the connection and raise psycopg.OperationalError."""
        try:
            result = super().wait(gen, interval, timeout or self.answer_timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.close()  # a late answer would be taken for that of the next statement
                outage.begin()
            raise
        outage.end()
        return result

    def run_prepared(self, *statements: Statement) -> Sequence[Row]:
        """Do what `PreparedStatements.run` does. If an answer may still arrive, close the connection."""
        if self._statements is None:
            self._statements = PreparedStatements(self)
        self._statements.timeout = self.answer_timeout
        try:
            rows = self._statements.run(*statements)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                outage.begin()
            raise
        except psycopg.errors.FeatureNotSupported:
            self.close()  # a migration changed what a statement returns: the next connection prepares it again
            raise
        finally:
            is_unfinished = self.pgconn.pipeline_status != PipelineStatus.OFF
            if is_unfinished or self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # also after an interrupt
                self.close()
        outage.end()
        return rows


@event.listens_for(Engine, "do_connect")
def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> PostgresConnection:
    outage.check()
    return PostgresConnection.connect(*arguments, **options)


@event.listens_for(Pool, "checkout")
def _check(connection: PostgresConnection, _record: object, _proxy: object) -> None:
    outage.check()
    if not connection.is_open:
        raise DisconnectionError


def is_portal_table(name: str | None, object_type: str, _parents: object) -> bool:
    """Return whether a table is the portal's and not the job queue's: for Alembic's `include_name`."""
    return not (object_type == "table" and name is not None and name.startswith("procrastinate_"))
