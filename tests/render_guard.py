"""Fails every test in which SQL runs while a template renders: a view passes its template all values."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

import psycopg
from flask import Flask
from jinja2 import Template

from portal.database.prepared import PreparedStatements

_thread = local()
_found: list[str] = []


class GuardedTemplate(Template):
    """A template that notes that it renders."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Render the template."""
        _thread.rendering = self.name or "a template"
        try:
            return super().render(*args, **kwargs)
        finally:
            _thread.rendering = None


@contextmanager
def no_sql_while_rendering(app: Flask) -> Iterator[None]:
    """Note each statement that runs while one of the application's templates renders."""
    execute, run = psycopg.Cursor.execute, PreparedStatements.run

    def note(statement: object) -> None:
        if getattr(_thread, "rendering", None):
            _found.append(f"{_thread.rendering} runs SQL: {statement}")

    def guarded_execute(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        note(query)
        return execute(cursor, query, *args, **options)

    def guarded_run(prepared: PreparedStatements, *statements: Any) -> Any:
        note(statements[-1][0])
        return run(prepared, *statements)

    app.jinja_env.template_class = GuardedTemplate
    psycopg.Cursor.execute = guarded_execute  # type: ignore[method-assign, assignment]
    PreparedStatements.run = guarded_run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]
        PreparedStatements.run = run  # type: ignore[method-assign]


def assert_no_sql_while_rendering() -> None:
    """Fail if a statement ran while a template rendered since the last call, in whichever thread."""
    found = _found.copy()
    _found.clear()
    assert not found, "\n".join(found)
