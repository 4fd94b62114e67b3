"""Records the statements that go to Postgres."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from portal.database.prepared import PreparedStatements, Statement

NOTED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
TELLING = "set_config('portal.tenant'"

Statements = dict[str, Mapping[str, Any] | None]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Each statement that goes to Postgres from now on, with its values, except those that set the scope."""
    noted: Statements = {}
    execute, run = psycopg.Cursor.execute, PreparedStatements.run

    def note(statement: str, values: Mapping[str, Any] | None) -> None:
        if statement.lstrip().startswith(NOTED) and TELLING not in statement:
            noted[statement] = values

    def note_execute(cursor: Any, query: Any, values: Any = None, **options: Any) -> Any:
        note(query.decode() if isinstance(query, bytes) else str(query), values)
        return execute(cursor, query, values, **options)

    def note_run(prepared: PreparedStatements, *statements: Statement, **options: Any) -> Any:
        for statement, values in statements:
            note(statement, values)
        return run(prepared, *statements, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", note_execute)
    monkeypatch.setattr(PreparedStatements, "run", note_run)
    return noted
