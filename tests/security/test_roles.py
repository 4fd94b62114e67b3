"""A portal whose login is not the tables' owner, as the documentation for operators recommends."""

from collections.abc import Iterator

import psycopg
import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from portal import create_app
from portal.config import Settings
from portal.database import fast_sql
from portal.database.engine import ROLE
from portal.database.scope import every_tenant
from portal.extensions import db
from portal.tenants import service as tenant_service
from tests.conftest import MIGRATIONS


@pytest.fixture
def apart(settings: Settings, built_app: Flask) -> Iterator[Settings]:
    """The settings of a portal with two logins, on a database of its own."""
    server = make_url(settings.database_url or "")
    owner, login = (f"{server.database}_{each}" for each in ("owner", "login"))
    admin = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{owner}" LOGIN'.encode())
        connection.execute(f'CREATE ROLE "{login}" LOGIN IN ROLE {ROLE}'.encode())
        connection.execute(f'CREATE DATABASE "{owner}" OWNER "{owner}"'.encode())
    urls = {
        name: server.set(username=user, database=owner).render_as_string(hide_password=False)
        for name, user in (("migration_database_url", owner), ("database_url", login))
    }
    yield settings.model_copy(update=urls)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{owner}" WITH (FORCE)'.encode())
        connection.execute(f'DROP ROLE "{owner}", "{login}"'.encode())


def test_it_works_and_its_login_can_be_nobody_else(apart: Settings) -> None:
    app = create_app(apart)
    with app.app_context():
        upgrade(MIGRATIONS)
        tenant_service.add("Acme", "acme.example", "UTC")
        assert tenant_service.find("acme.example")
        db.session.execute(text("RESET ROLE"))
        with every_tenant():
            assert db.session.scalar(text("SELECT count(*) FROM recipients")) == 0
        with pytest.raises(ProgrammingError, match="must be owner"):
            db.session.execute(text("ALTER TABLE recipients NO FORCE ROW LEVEL SECURITY"))
        db.session.remove()
        db.engine.dispose()
        fast_sql.dispose()


def test_an_owner_whose_login_may_not_become_the_role_is_told(apart: Settings) -> None:
    app = create_app(apart.model_copy(update={"database_url": apart.migration_database_url}))
    with app.app_context():
        upgrade(MIGRATIONS)
        with pytest.raises(OperationalError, match=f'permission denied to set role "{ROLE}"'):
            tenant_service.find("acme.example")
