"""Columns whose values a domain of Postgres checks.

Postgres reads the text of a CHECK constraint again for each statement, that of a domain once for each connection.
"""

from typing import Any

from sqlalchemy.types import UserDefinedType


class Domain(UserDefinedType[Any]):
    """A domain, created by a migration. Its values are those of the type below it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """Return its name."""
        return self.name
