"""Records the statements that go to Postgres."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

NOTED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
TELLING = "set_config('portal.tenant'"

Statements = dict[str, Mapping[str, Any] | None]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Each statement that goes to Postgres from now on, with its values, except those that set the scope."""
    noted: Statements = {}
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, values: Any = None, **options: Any) -> Any:
        statement = query.decode() if isinstance(query, bytes) else str(query)
        if statement.lstrip().startswith(NOTED) and TELLING not in statement:
            noted[statement] = values
        return execute(cursor, query, values, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return noted
