"""The migrations: one line of them, up and down, and the schema that they make is the models'."""

from collections.abc import Iterator

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect

from portal import create_app
from portal.config import Settings
from portal.database import is_ours
from portal.extensions import Base, db
from tests.conftest import MIGRATIONS


@pytest.fixture
def empty(settings: Settings) -> Iterator[Flask]:
    """The portal on a database without any table."""
    assert settings.database_url is not None
    base, _, query = settings.database_url.partition("?")
    name = base.rpartition("/")[2] + "_migrations"
    admin = settings.database_url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    app = create_app(settings.model_copy(update={"database_url": url}))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_the_schema_equals_the_models(empty: Flask) -> None:
    upgrade(MIGRATIONS)
    with db.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": is_ours}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_they_go_down_and_up_again(empty: Flask) -> None:
    upgrade(MIGRATIONS)
    downgrade(MIGRATIONS, "base")
    assert set(inspect(db.engine).get_table_names()) == {"alembic_version"}
    upgrade(MIGRATIONS)
    assert "events" in inspect(db.engine).get_table_names()


def test_they_are_one_line_of_numbers() -> None:
    revisions = [script.revision for script in ScriptDirectory(MIGRATIONS).walk_revisions()][::-1]
    assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]


def test_every_constraint_has_a_name() -> None:
    for table in Base.metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"{table.name}: {constraint}"


def test_health_tells_of_a_schema_that_is_not_current(empty: Flask) -> None:
    answer = empty.test_client().get("/healthz")
    assert answer.status_code == 503
    assert "schema" in answer.get_json()["reason"]
    upgrade(MIGRATIONS)
    assert empty.test_client().get("/healthz").status_code == 200
