"""An upgrade from the last version, and back: it runs on the new schema, and no request is refused or breaks."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Engine, event, select, text

from portal import create_app
from portal.config import ROOT, Settings
from portal.database.scope import every_tenant
from portal.deliveries.models import Delivery
from portal.extensions import db
from portal.pbx.api_keys import IssuedKey
from portal.pbx.models import ApiKey
from tests import web_server
from tests.conftest import MIGRATIONS, close_connections
from tests.ports import free_port
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer
from tests.sql import owner_engine, sql
from tests.steady_load import MAKE_DUE, SteadyLoad
from tests.tenant_fixtures import peer

__all__ = ["peer"]

pytestmark = pytest.mark.slow

# Upgrades the schema and runs commands. In version 0.1.0, commands are those of `flask`.
SET_UP = """
import json, sys
from click.testing import CliRunner
from flask_migrate import upgrade
from portal import create_app
app = create_app()
with app.app_context():
    upgrade("migrations")
try:
    from portal.__main__ import main
    def run(arguments): return CliRunner().invoke(main, arguments)
except ImportError:
    def run(arguments): return app.test_cli_runner().invoke(args=arguments)
for arguments in json.loads(sys.argv[1]):
    result = run(arguments)
    assert result.exit_code == 0, result.output
print(result.output)
"""
COUNT_EVENTS = "SELECT count(*), count(DISTINCT external_id) FROM events"
# What code that does not know of it may not survive.
CONTRACTS = re.compile(
    r"DROP (TABLE|COLUMN|CONSTRAINT|TRIGGER|FUNCTION|DOMAIN|TYPE|SEQUENCE|VIEW)|RENAME|SET NOT NULL"
    r"|ALTER (COLUMN )?\w+ TYPE|ADD COLUMN (?!.*DEFAULT).*NOT NULL",
    re.IGNORECASE | re.DOTALL,
)
UNSENT = "SELECT status, reason, count(*) FROM deliveries WHERE status <> 'sent' GROUP BY status, reason"


def git(*arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


def last_version() -> str:
    """Return the last tag before this commit."""
    try:
        return git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^").strip()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this clone does not have the last version: {getattr(error, 'stderr', error)}")


def in_context(app: Flask, work: Callable[[], object]) -> Callable[[], object]:
    """Return a function that does the work in the context of the application."""

    def run() -> object:
        with app.app_context():
            return work()

    return run


@contextmanager
def executed() -> Iterator[list[str]]:
    """Yield the statements that are executed during the block."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The last version's code."""
    command = ["git", "-C", str(ROOT), "archive", last_version()]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(tmp_path / "code", filter="data")
    return tmp_path / "code"


@pytest.fixture
def upgraded(settings: Settings, own_database: str) -> Iterator[Flask]:
    """This version on a database that is still empty."""
    app = create_app(settings.model_copy(update={"database_url": own_database}))
    yield app
    close_connections(app)


class Version:
    """Starts the programs of one version on a database."""

    def __init__(self, code: Path, settings: Settings, output: Path) -> None:
        self.code, self.settings, self.output = code, settings, output
        has_command = (code / "portal/__main__.py").exists()
        self._server = ("portal", "run") if has_command else ("portal.server",)
        self._worker = ("portal", "worker") if has_command else ("flask", "--app", "wsgi", "worker")

    @contextmanager
    def server(self) -> Iterator[int]:
        """Run the web server during the block and yield its port."""
        port = free_port()
        with self._running(port, *self._server, "--port", str(port), "--processes", "1") as process:
            wait_for(lambda: process.poll() is not None or web_server.answers(port))
            yield port

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker during the block."""
        with self._running(80, *self._worker):
            yield

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments and return its output."""
        environment = {**os.environ, **web_server.variables(self.settings, 80)}
        command = [sys.executable, *arguments]
        finished = subprocess.run(command, cwd=self.code, env=environment, stdout=subprocess.PIPE, check=True)
        return finished.stdout.decode()

    @contextmanager
    def _running(self, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = {**os.environ, **web_server.variables(self.settings, port)}
        command = [sys.executable, "-m", *arguments]
        with self.output.open("ab") as output:
            process = subprocess.Popen(command, cwd=self.code, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(100)


def set_up(version: Version, mail_server_port: int) -> IssuedKey:
    """Create the schema and a tenant with the version's own commands, and return a key of the tenant."""
    tenant = ("--tenant", "acme.example")
    mail_server = ("--host", "127.0.0.1", "--port", str(mail_server_port), "--encryption", "none", "--auth", "none")
    commands = [
        ("tenants", "add", "Acme", "--domain", "acme.example"),
        ("mail-server", "set", *tenant, *mail_server, "--sender", "pbx@acme.example"),
        ("recipients", "set", *tenant, "ops@acme.example"),
        ("notifications", "on", *tenant, "all"),
        ("keys", "issue", *tenant, "--signed"),
    ]
    secret, signing_secret = version.run("-c", SET_UP, json.dumps(commands)).split()[-2:]
    return IssuedKey(ApiKey(), secret, signing_secret)


@pytest.mark.operation
def test_upgrade_and_rollback_under_load(
    upgraded: Flask, settings: Settings, code: Path, tmp_path: Path, peer: SmtpPeer
) -> None:
    own = settings.model_copy(update={"database_url": upgraded.config["SQLALCHEMY_DATABASE_URI"]})
    old, new = Version(code, own, tmp_path / "old"), Version(ROOT, own, tmp_path / "new")
    key = set_up(old, peer.port)
    with ExitStack() as programs:
        old_port = programs.enter_context(old.server())
        programs.enter_context(old.worker())
        with upgraded.app_context(), SteadyLoad([old_port], key) as load:
            load.wait_for(40)
            upgrade(MIGRATIONS)
            load.wait_for(100)  # the last version on the new schema
            peer.script = {"rcpt": "450 4.2.0 later"}
            load.wait_for(10)
            new_port = programs.enter_context(new.server())
            load.ports = [new_port]
            load.wait_for(40)
            load.ports = [old_port]  # back
            load.wait_for(10)
            peer.script = {}
            load.wait_for(40)
        with upgraded.app_context():
            wait_for(lambda: bool(sql(MAKE_DUE)) or not sql(UNSENT))
            assert load.results == {200: len(load.outcomes)}
            assert tuple(sql(COUNT_EVENTS)[0]) == (len(load.outcomes), len(load.outcomes))
            with every_tenant():
                assert {delivery.status for delivery in db.session.scalars(select(Delivery))} == {"sent"}
                db.session.remove()
    assert "Traceback" not in old.output.read_text() + new.output.read_text()


def test_migrations_since_the_last_version_only_expand(upgraded: Flask) -> None:
    listed = git("ls-tree", "--name-only", last_version(), "migrations/versions/").split()
    last_revision = max(Path(name).name[:4] for name in listed)
    script = ScriptDirectory(MIGRATIONS)
    with upgraded.app_context(), executed() as statements:
        upgrade(MIGRATIONS, last_revision)
        for revision in reversed(list(script.iterate_revisions("head", last_revision))):
            statements.clear()
            upgrade(MIGRATIONS, revision.revision)
            contracting = [statement for statement in statements if CONTRACTS.search(statement)]
            reason = getattr(revision.module, "contracts", None)
            assert bool(contracting) == bool(reason), f"{revision.path}: see CONTRIBUTING.md. {contracting}"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a DROP COLUMN b",
        "DROP TABLE a",
        "ALTER TABLE a RENAME b TO c",
        "ALTER TABLE a ALTER COLUMN b SET NOT NULL",
        "ALTER TABLE a ADD COLUMN b INTEGER NOT NULL",
        "ALTER TABLE a ALTER b TYPE int",
    ],
)
def test_a_statement_that_contracts_is_seen(statement: str) -> None:
    assert CONTRACTS.search(statement)


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE a ADD COLUMN b INTEGER", "ALTER TABLE a ADD COLUMN b INTEGER DEFAULT 0 NOT NULL", "DROP INDEX a"],
)
def test_a_statement_that_expands_is_no_contraction(statement: str) -> None:
    assert not CONTRACTS.search(statement)


def test_requests_do_not_wait_for_a_migration_that_waits(upgraded: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    with upgraded.app_context():
        upgrade(MIGRATIONS, "0014")
        owner = owner_engine(db.engine.url)
        with ThreadPoolExecutor(1) as executor, owner.connect() as backup, owner.connect() as request:
            backup.execute(text("SELECT FROM events"))  # as a backup does, it keeps its lock until it ends
            upgrading = executor.submit(in_context(upgraded, lambda: upgrade(MIGRATIONS)))
            wait_for(lambda: "Waiting" in capsys.readouterr().err)
            request.execute(text("SET statement_timeout = '4s'"))
            request.execute(text("SELECT FROM events"))
            request.rollback()
            backup.rollback()
            upgrading.result(60)
        owner.dispose()
