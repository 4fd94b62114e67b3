"""The database as the owner of its tables sees it: for tests that look behind the portal, or move its clock."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text

from portal.database import owner_connection


def sql(statement: str, **values: Any) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows of a statement, which is committed. Within an application context."""
    with owner_connection() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else []
