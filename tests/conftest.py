"""What all tests stand on: one real Postgres for the run, a database for each process, built by the migrations."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from pydantic import SecretStr
from sqlalchemy import text

from portal import create_app, statements
from portal.accounts import registration
from portal.config import ROOT, Settings
from portal.database import embedded_url, owner_connection
from portal.extensions import Base, db
from portal.pbx import rejections
from portal.tenants import directory
from tests.pages import PASSWORD, csrf_token
from tests.smtp_peer import LOCAL

TEST_KEY = "1:" + "A" * 43 + "="
TEST_SECRET = "only for tests, never for anything that is reached by anybody"
MIGRATIONS = str(ROOT / "migrations")

JOB_TABLES = ("procrastinate_jobs", "procrastinate_periodic_defers", "procrastinate_workers")
SignIn = Callable[..., FlaskClient]


@pytest.fixture(scope="session")
def server_url() -> str:
    """The address of a Postgres server: TEST_DATABASE_URL, else an embedded one that all test processes share."""
    return os.environ.get("TEST_DATABASE_URL") or embedded_url(ROOT / "var" / "test")


@pytest.fixture(scope="session")
def database_url(server_url: str, worker_id: str) -> Iterator[str]:
    """The address of an empty database of this process alone."""
    name = f"portal_test_{os.getpid()}_{worker_id}"
    admin = server_url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    base, _, query = server_url.partition("?")
    yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of a production portal, except that it is reached without TLS."""
    return Settings(
        portal_env="production",
        portal_url="http://portal.test",
        secret_key=SecretStr(TEST_SECRET),
        encryption_keys=SecretStr(TEST_KEY),
        database_url=database_url,
        smtp_allowed_networks=LOCAL.networks,
        var_dir=Path(tmp_path_factory.mktemp("var")),
    )


@pytest.fixture(scope="session")
def built_app(settings: Settings) -> Iterator[Flask]:
    """The portal on a migrated database."""
    app = create_app(settings)
    with app.app_context():
        upgrade(MIGRATIONS)
        with owner_connection() as connection:
            # What Postgres knows of a table decides about its plans: each test is to begin knowing nothing.
            for table in Base.metadata.sorted_tables:
                connection.execute(text(f"ALTER TABLE {table.name} SET (autovacuum_enabled = off)"))
    yield app
    with app.app_context():
        db.engine.dispose()
        statements.dispose()


@pytest.fixture
def app(built_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The portal with an empty database, outside of any context: each request and each `with` has its own session."""
    monkeypatch.setattr(rejections, "_tally", rejections.Tally("1000 per minute", "1000 per minute"))
    yield built_app
    tables = ", ".join([*(table.name for table in Base.metadata.sorted_tables), *JOB_TABLES])
    with built_app.app_context(), owner_connection() as connection:
        # A session left open fails the test, and not the run.
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))


@pytest.fixture
def context(app: Flask) -> Iterator[Flask]:
    """The portal within one application context: for tests that call the domain, and make no request."""
    with app.app_context():
        yield app
        db.session.remove()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser that nobody has signed in with."""
    return app.test_client()


@pytest.fixture
def acme(app: Flask) -> str:
    """The domain of a tenant."""
    with app.app_context():
        directory.add("Acme", "acme.example", "Europe/Berlin")
    return "acme.example"


@pytest.fixture
def globex(app: Flask) -> str:
    """The domain of another tenant."""
    with app.app_context():
        directory.add("Globex", "globex.example", "UTC")
    return "globex.example"


@pytest.fixture
def sign_in(app: Flask) -> SignIn:
    """A function that makes an account and returns a browser in which it is signed in."""

    def sign_in(email: str, *, administers: str | None = None, system: bool = False) -> FlaskClient:
        with app.app_context():
            tenant = directory.find(administers) if administers else None
            registration.add(email, PASSWORD, system_administrator=system, tenant_id=tenant.id if tenant else None)
        browser = app.test_client()
        page = browser.get("/sign-in").get_data(as_text=True)
        answer = browser.post("/sign-in", data={"email": email, "password": PASSWORD, "csrf_token": csrf_token(page)})
        assert answer.status_code == 302, answer.get_data(as_text=True)
        return browser

    return sign_in


@pytest.fixture
def admin(sign_in: SignIn, acme: str) -> FlaskClient:
    """The browser of the administrator of Acme."""
    return sign_in("admin@acme.example", administers=acme)


@pytest.fixture
def system(sign_in: SignIn) -> FlaskClient:
    """The browser of the system administrator."""
    return sign_in("root@pbx.example", system=True)
