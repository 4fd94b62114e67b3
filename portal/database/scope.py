"""The tenant scope: whose rows a session, and Postgres itself, sees and writes.

A `TenantOwned` table shows only the rows of the tenant whose scope was entered. Where no scope was entered it shows
none, which is the safe mistake. The session filters its own queries. Postgres, which knows the scope of each
transaction, filters everything else with row level security, for a role that owns no table.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Final

import sqlalchemy
from psycopg.pq import TransactionStatus
from sqlalchemy import ForeignKey, event
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.pool import NullPool

from portal import config
from portal.database import clock
from portal.database.engine import PostgresConnection
from portal.extensions import db

SESSION_KEY: Final = "tenant_id"
NO_TENANT: Final = 0  # no tenant has this id; NULL would match the system's rows
EVERY_TENANT: Final = "0"  # the value of `portal.tenant` that shows the rows of all tenants
SET_SCOPE: Final = "SELECT set_config('portal.tenant', %(scope)s, true), clock_timestamp()"


class _Scope(Enum):
    EVERY_TENANT = "every tenant"


class RowOutsideScope(Exception):
    """A row of one tenant was about to be written in the scope of another."""


class TenantOwned:
    """A table whose rows belong to a tenant. The scope fills in and filters `tenant_id`."""

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))


class TenantOrSystemOwned(TenantOwned):
    """A table whose rows belong to a tenant, or to the system: then `tenant_id` is NULL, outside any tenant's scope."""

    tenant_id: Mapped[int | None] = mapped_column(  # type: ignore[assignment]
        ForeignKey("tenants.id", ondelete="CASCADE")
    )


def enter_scope(tenant_id: int) -> None:
    """Limit the rest of this session (a request, a job) to the rows of one tenant."""
    _change(db.session(), tenant_id)


@contextmanager
def every_tenant() -> Iterator[None]:
    """Show the block the rows of all tenants: before a tenant is known, and for the system's pages."""
    session = db.session()
    previous = session.info.get(SESSION_KEY)
    _change(session, _Scope.EVERY_TENANT)
    try:
        yield
    finally:
        _change(session, previous)


def scope_of_owner(owner: object) -> AbstractContextManager[None]:
    """Return the scope that shows an owner's rows: the current one for a tenant, every tenant's for None."""
    return every_tenant() if owner is None else nullcontext()


def current_scope(session: Session | None = None) -> str:
    """Return the session's scope as the value of `portal.tenant` in Postgres."""
    scope = (session or db.session()).info.get(SESSION_KEY)
    return EVERY_TENANT if scope is _Scope.EVERY_TENANT else str(scope or "")


def _change(session: Session, scope: int | _Scope | None) -> None:
    if session.info.get(SESSION_KEY) == scope:
        return
    session.info[SESSION_KEY] = scope
    if session.in_transaction() and session.is_active:
        _set_scope(session, None, session.connection())


@event.listens_for(Session, "after_begin")
def _set_scope(session: Session, _transaction: object, connection: sqlalchemy.Connection) -> None:
    """Set the scope in Postgres until the transaction ends. A failed transaction accepts no more statements."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, PostgresConnection)
    if driver.info.transaction_status in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
        clock.note(connection.exec_driver_sql(SET_SCOPE, {"scope": current_scope(session)}).one()[1])


@event.listens_for(Session, "do_orm_execute")
def _filter_rows(state: ORMExecuteState) -> None:
    scope = state.session.info.get(SESSION_KEY) or NO_TENANT
    if scope is not _Scope.EVERY_TENANT:
        state.statement = state.statement.options(
            with_loader_criteria(TenantOwned, lambda cls: cls.tenant_id == scope, include_aliases=True)
        )


@event.listens_for(Session, "before_flush")
def _check_rows(session: Session, _context: UOWTransaction, _instances: object) -> None:
    scope = session.info.get(SESSION_KEY) or NO_TENANT
    if scope is _Scope.EVERY_TENANT:
        return
    for row in session.new | session.dirty | session.deleted:
        if isinstance(row, TenantOwned):
            if row.tenant_id is None:
                row.tenant_id = scope
            elif row.tenant_id != scope:
                raise RowOutsideScope(f"{type(row).__name__} of tenant {row.tenant_id} in the scope of {scope}")


@contextmanager
def owner_connection() -> Iterator[sqlalchemy.Connection]:
    """Connect as the owner of the tables: one transaction, without a time limit, in the scope of every tenant."""
    url = config.current().migration_database_url or db.engine.url
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        driver = connection.connection.driver_connection
        assert isinstance(driver, PostgresConnection)
        driver.answer_timeout = None  # a large table takes long to change
        connection.exec_driver_sql(SET_SCOPE, {"scope": EVERY_TENANT})
        yield connection
