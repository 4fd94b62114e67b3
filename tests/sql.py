"""SQL as the owner of the tables, for tests that read or change rows directly."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, Row, text

from portal.extensions import db

OWNER = {"options": "-c portal.tenant=0 -c lock_timeout=10s"}  # sees the rows of every tenant
_engines: dict[URL, Engine] = {}


def owner_engine(url: URL) -> Engine:
    """Return the owner's engine, whose connections stay open: opening one takes longer than most statements."""
    if url not in _engines:
        _engines[url] = sqlalchemy.create_engine(url, connect_args=OWNER)
    return _engines[url]


def close_owner_connections() -> None:
    """Close the owner's connections to all databases."""
    while _engines:
        _engines.popitem()[1].dispose()


def sql(statement: str, **values: Any) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows of a statement, which is committed. Within an application context."""
    with owner_engine(db.engine.url).begin() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else []
