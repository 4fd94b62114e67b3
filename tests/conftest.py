"""Fixtures of all tests: one real Postgres for the run, a database for each process, built by the migrations."""

import gc
import os
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from flask_security import hash_password, login_user
from jinja2 import FileSystemBytecodeCache
from pydantic import SecretStr
from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.exc import OperationalError
from werkzeug.http import parse_cookie
from werkzeug.routing import Rule

from portal import create_app
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.config import ROOT, Settings
from portal.database import fast_sql
from portal.database.embedded import start_embedded_postgres
from portal.database.scope import owner_connection
from portal.deliveries import plan
from portal.extensions import Base, db
from portal.mail_servers import account_email, dns_lookup
from portal.pbx import rejections
from portal.tenants import service as tenant_service
from portal.transfer import sealing
from tests.beginnings import begin_with
from tests.pages import PASSWORD
from tests.render_guard import assert_no_sql_while_rendering, no_sql_while_rendering
from tests.smtp_peer import LOCAL
from tests.sql import close_owner_connections, owner_engine

SEND_DELAY = account_email.SEND_DELAY
TEST_KEY = "1:" + "A" * 43 + "="
os.environ["PORTAL_ENV_FILE"] = ""  # not the settings of a portal that is installed on this machine
TEST_SECRET = "only for tests, never for anything that is reached by anybody"
MIGRATIONS = str(ROOT / "migrations")

JOB_TABLES = ("procrastinate_periodic_defers", "procrastinate_events", "procrastinate_jobs", "procrastinate_workers")
TABLES = (*JOB_TABLES, *(table.name for table in reversed(Base.metadata.sorted_tables)))  # the ones that refer first
# Restarts the sequences, and says what else is left to do: it is planned once, and most tables are empty. What Postgres
# would not forget with the rows, and what decides about its plans, are the size and the number of rows.
LEFT = f"""
    SELECT (
        SELECT string_agg(it::text, ', ') FROM unnest('{{{",".join(TABLES)}}}'::regclass[]) AS it
        JOIN pg_class ON pg_class.oid = it WHERE reltuples >= 0 OR pg_relation_size(it) > 80 * 1024
    ),
    array_remove(ARRAY[{", ".join(f"CASE WHEN EXISTS (SELECT FROM {it}) THEN '{it}' END" for it in TABLES)}], NULL),
    (
        SELECT count(setval(seqrelid, seqstart, false)) FROM pg_sequence
        WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
    )
"""
SignIn = Callable[..., FlaskClient]
Cookies = Sequence[tuple[str, str]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, nor in what is collected: it is kept until the end, as what is imported."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """Look for garbage once, so that pytest and the interpreter, which do so six times more, have nothing to visit."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """Return two processes more than there are processors: many tests wait for a server or a timer."""
    return (os.cpu_count() or 1) + 2


def make_passwords_cheap(app: Flask) -> None:
    """Let the application hash passwords as argon2 does at its least cost: half a second less for each sign-in."""
    context = app.extensions["security"].pwd_context
    context.update(argon2__time_cost=1, argon2__memory_cost=8, argon2__parallelism=1)


def make_sealing_cheap(patch: pytest.MonkeyPatch) -> None:
    """Let the keys of exported tenants be derived at next to no cost: a quarter of a second less for each."""
    patch.setattr(sealing, "COST", 16)
    patch.setattr(sealing, "ALLOWED_COSTS", (16, *sealing.ALLOWED_COSTS))


def close_connections(app: Flask) -> None:
    """Close the connections of an application. One that is left open fails the test in which it is found."""
    with app.app_context():
        db.engine.dispose()
        fast_sql.dispose()


@pytest.fixture(autouse=True)
def _close_other_applications(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections of the applications that the test creates."""
    apps, init_app = list[Flask](), fast_sql.init_app

    def init_and_note(app: Flask) -> None:
        apps.append(app)
        init_app(app)

    monkeypatch.setattr(fast_sql, "init_app", init_and_note)
    yield
    for app in apps:
        close_connections(app)


def wait_for_account_email(app: Flask) -> None:
    """Wait until no email to an account is being sent: it would arrive at the mail server of the next test."""
    places, count = (
        app.extensions["security"]._mail_util._free_places,
        account_email.WORKERS + account_email.MAX_WAITING,
    )
    assert all(places.acquire(timeout=30) for _ in range(count))
    places.release(count)


def empty_tables(owner: Connection) -> None:
    """Delete all rows and restart the sequences. A session left open fails the test, and not the run."""
    owner.exec_driver_sql(f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE")
    grew, filled, _ = owner.exec_driver_sql(LEFT).one()
    if grew:
        owner.exec_driver_sql(f"TRUNCATE {grew} CASCADE")
    if filled:  # DELETE costs a thirtieth of TRUNCATE
        # Triggers fill the last one meanwhile.
        statements = "; ".join(f"DELETE FROM {table}" for table in [*filled, "settings_revisions"])
        owner.exec_driver_sql(statements, execution_options={"no_parameters": True})  # which lets them be several


def make_account(app: Flask, email: str, *, administers: str | None = None, system: bool = False) -> None:
    """Make an account that administers the tenant with this domain, or the system, or nothing."""
    begin_with(app, ("account", email, administers, system), lambda: _write_account(email, administers, system))


def _write_account(email: str, administers: str | None, system: bool) -> None:
    """Write the account. Its password is not checked by the rules for passwords, which takes as long as a page."""
    tenant = tenant_service.find(administers) if administers else None
    if account_service.find(email) is None:
        db.session.add(Account(email=email, password=hash_password(PASSWORD), fs_uniquifier=uuid4().hex))
    account_service.add(email, None, system_administrator=system, tenant_id=tenant.id if tenant else None)


def signed_in(app: Flask, email: str) -> FlaskClient:
    """Return a browser in which the account has signed in, as far as the portal can tell."""
    return _browser_with(app, _sign_in(app, email))


def make_signed_in_account(
    app: Flask, email: str, *, administers: str | None = None, system: bool = False
) -> FlaskClient:
    """Make an account and return a browser in which it has signed in: several times as fast as one after the other."""

    def write() -> Cookies:
        _write_account(email, administers, system)
        return _sign_in(app, email)

    return _browser_with(app, begin_with(app, ("signed-in account", email, administers, system), write))


def _sign_in(app: Flask, email: str) -> Cookies:
    with app.test_request_context("/sign-in", environ_base=app.test_client().environ_base):
        app.preprocess_request()
        account = account_service.find(email)
        assert account
        login_user(account, authn_via=["password"])
        db.session.commit()
        response = app.process_response(app.make_response(""))
    return [next(iter(parse_cookie(header).items())) for header in response.headers.getlist("Set-Cookie")]


def _browser_with(app: Flask, cookies: Cookies) -> FlaskClient:
    """Return a browser with the cookies of a sign-in. They may be copies: the time of the password is set to now."""
    browser = app.test_client()
    for name, value in cookies:
        browser.set_cookie(name, value)
    with browser.session_transaction() as session:
        session["fs_paa"] = time.time()
    return browser


@pytest.fixture(scope="session", autouse=True)
def _compile_routes_once() -> Iterator[None]:
    """Let all applications share the functions that build URLs: compiling them takes 40 ms per application."""
    compile_builder, compiled = Rule._compile_builder, dict[Hashable, Callable[..., tuple[str, str]]]()

    def compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        key = (rule.rule, repr(rule.defaults), append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compile_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_name_server() -> Iterator[None]:
    """The portal asks no name server, except one of the tests: see `dns_server`."""
    offline = dns_lookup.bounded_resolver([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dns_lookup, "resolver", lambda: offline)
        yield


def never_wait_for_the_disk(superuser: URL) -> None:
    """Let a server be quick. It may lose data only where the machine itself fails."""
    with psycopg.connect(superuser.set(drivername="postgresql").render_as_string(False), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="session")
def server_url() -> str:
    """The address of a Postgres server: TEST_DATABASE_URL, else an embedded one that all test processes share."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        return url
    url = start_embedded_postgres(ROOT / "var" / "test")
    never_wait_for_the_disk(make_url(url))
    return url


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


@pytest.fixture
def own_database(database_url: str) -> Iterator[str]:
    """The address of another empty database, for one test."""
    base, _, query = database_url.partition("?")
    name = base.rpartition("/")[2] + "_own"
    admin = database_url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
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
        smtp_allowed_networks=LOCAL.trusted_networks,
        var_dir=Path(tmp_path_factory.mktemp("var")),
    )


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def built_app(settings: Settings, run_dir: Path) -> Iterator[Flask]:
    """The portal on a migrated database."""
    app = create_app(settings)
    make_passwords_cheap(app)
    app.jinja_env.bytecode_cache = FileSystemBytecodeCache(str(run_dir))
    with app.app_context():
        upgrade(MIGRATIONS)
        with owner_connection() as connection:
            # What Postgres knows of a table decides about its plans: each test is to begin knowing nothing.
            for table in Base.metadata.sorted_tables:
                connection.execute(text(f"ALTER TABLE {table.name} SET (autovacuum_enabled = off)"))
    with no_sql_while_rendering(app):
        yield app
    close_connections(app)
    close_owner_connections()


@pytest.fixture
def app(built_app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The portal with an empty database, outside of any context: each request and each `with` has its own session."""
    monkeypatch.setattr(plan, "_kept", {})
    monkeypatch.setattr(account_email, "SEND_DELAY", 0)
    monkeypatch.setattr(rejections, "_counter", rejections.RejectionCounter("1000 per minute", "1000 per minute"))
    yield built_app
    wait_for_account_email(built_app)
    assert settings.database_url is not None
    owner = owner_engine(make_url(settings.database_url))
    try:
        with owner.begin() as connection:
            empty_tables(connection)
    except OperationalError:  # a dead-lock with the last request of a browser that has just been closed
        with owner.begin() as connection:
            empty_tables(connection)
    assert_no_sql_while_rendering()


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
    begin_with(app, "acme", lambda: tenant_service.add("Acme", "acme.example", "Europe/Berlin"))
    return "acme.example"


@pytest.fixture
def globex(app: Flask) -> str:
    """The domain of another tenant."""
    begin_with(app, "globex", lambda: tenant_service.add("Globex", "globex.example", "UTC"))
    return "globex.example"


@pytest.fixture
def sign_in(app: Flask) -> SignIn:
    """A function that makes an account and returns a browser in which it is signed in."""

    def sign_in(email: str, *, administers: str | None = None, system: bool = False) -> FlaskClient:
        return make_signed_in_account(app, email, administers=administers, system=system)

    return sign_in


@pytest.fixture
def admin(sign_in: SignIn, acme: str) -> FlaskClient:
    """The browser of the administrator of Acme."""
    return sign_in("admin@acme.example", administers=acme)


@pytest.fixture
def system(sign_in: SignIn) -> FlaskClient:
    """The browser of the system administrator."""
    return sign_in("root@pbx.example", system=True)
