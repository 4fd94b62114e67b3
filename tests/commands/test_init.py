"""`pbx-portal init`: it creates what a portal needs, once, and says how to go on where it cannot."""

import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from portal.__main__ import main
from portal.config import Settings
from tests.pages import PASSWORD

pytestmark = pytest.mark.slow

URL, EMAIL = "https://portal.example.com", "root@pbx.example"
SUPERUSER_PASSWORD = "superuser-canary"


class Installer:
    """Runs the command with settings files of its own, and a database name of its own on the tests' server."""

    def __init__(self, folder: Path, server: str, database: str) -> None:
        self.file, self.server, self.database = folder / "portal.env", server, database
        self.owner_file = folder / "owner.env"

    def run(self, *options: str, superuser_url: str | None = None, **environment: str | None) -> Result:
        """Run the command."""
        arguments = ["init", "--url", URL, "--administrator", EMAIL, "--database", self.database, *options]
        environment = {
            "PORTAL_ENV_FILE": str(self.file),
            "SUPERUSER_DATABASE_URL": self.server if superuser_url is None else superuser_url,
            "PORTAL_PASSWORD": PASSWORD,
            **environment,
        }
        return CliRunner().invoke(main, arguments, env=environment)

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Return the rows that a superuser sees."""
        url = make_url(self.server).set(database=database).render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture
def installer(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    server = make_url(settings.database_url or "").set(drivername="postgresql")
    name = f"{server.database}_init"
    admin = server.set(database="postgres").render_as_string(hide_password=False)
    yield Installer(tmp_path / "settings", admin, name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        connection.execute(f'DROP ROLE IF EXISTS "{name}", "{name}_owner"'.encode())


def text_of(file: Path) -> dict[str, str]:
    """Return the settings in a file."""
    return {name: value.strip("'") for name, value in (line.split("=", 1) for line in file.read_text().splitlines())}


def test_it_creates_settings_roles_database_and_administrator(installer: Installer) -> None:
    result = installer.run()
    assert result.exit_code == 0, result.output
    assert f"Sign in at {URL} as {EMAIL}" in result.output
    for file in (installer.file, installer.owner_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = text_of(installer.file)
    assert written.keys() == {"PORTAL_URL", "TRUSTED_PROXIES", "DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEYS"}
    assert text_of(installer.owner_file).keys() == {"MIGRATION_DATABASE_URL"}
    assert installer.ask("SELECT email FROM accounts", installer.database) == [(EMAIL,)]
    name = installer.database
    assert installer.ask("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename = 'events'", name) == [
        (f"{name}_owner",)
    ]
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolbypassrls"
    assert installer.ask(f"SELECT DISTINCT {rights} FROM pg_roles WHERE rolname LIKE '{name}%'") == [(False,) * 4]
    passwords = installer.ask(f"SELECT rolpassword FROM pg_authid WHERE rolname LIKE '{name}%'")
    assert [str(password).startswith("SCRAM-SHA-256$") for (password,) in passwords] == [True, True]
    password = make_url(written["DATABASE_URL"]).password
    assert password
    assert password not in result.output


def test_it_can_be_repeated_and_changes_nothing(installer: Installer) -> None:
    assert installer.run().exit_code == 0
    before = installer.file.read_bytes(), installer.owner_file.read_bytes()
    result = installer.run("--url", "https://other.example.com", superuser_url="postgresql://nobody@127.0.0.1:1/x")
    assert result.exit_code == 0, result.output
    assert "was there already and is kept" in result.output
    assert (installer.file.read_bytes(), installer.owner_file.read_bytes()) == before
    assert installer.ask("SELECT email FROM accounts", installer.database) == [(EMAIL,)]


def test_it_goes_on_where_it_stopped(installer: Installer) -> None:
    result = installer.run(PORTAL_PASSWORD="short")
    assert result.exit_code == 1
    assert "at least 10 characters" in result.output
    assert "run the same command again" in result.output
    secrets = installer.file.read_bytes()
    with psycopg.connect(installer.server, autocommit=True) as server:  # as if it had been stopped earlier
        server.execute(f'DROP DATABASE "{installer.database}" WITH (FORCE)'.encode())
        server.execute(f'DROP ROLE "{installer.database}"'.encode())
    result = installer.run()
    assert result.exit_code == 0, result.output
    assert installer.file.read_bytes() == secrets


def test_it_does_not_take_over_a_database_whose_secrets_are_lost(installer: Installer) -> None:
    assert installer.run().exit_code == 0
    installer.file.unlink()
    result = installer.run()
    assert result.exit_code == 1
    assert f"Postgres already has the role {installer.database}" in result.output
    assert "restore its settings files" in result.output
    assert not installer.file.exists()


def test_without_the_owners_url_it_says_where_that_belongs(installer: Installer) -> None:
    assert installer.run().exit_code == 0
    installer.owner_file.unlink()
    result = installer.run()
    assert result.exit_code == 1
    assert f"restore {installer.owner_file}" in result.output


@pytest.mark.parametrize(
    ("options", "superuser_url", "expected"),
    [
        ((), "postgresql://postgres@127.0.0.1:1/postgres?connect_timeout=1", "Postgres cannot be reached"),
        (("--url", "portal.example.com"), None, "must be like https://"),
        (("--url", "https://portal.example.com/pbx"), None, "must not have a path"),
        ((), f"postgres:{SUPERUSER_PASSWORD}@db.example.com/postgres", "must be like postgresql://"),
        ((), f"host=db.example.com password={SUPERUSER_PASSWORD}", "must be like postgresql://"),
        ((), f"postgresql://postgres:{SUPERUSER_PASSWORD}@db.example.com/x?sslmod=y", "must be like postgresql://"),
        ((), f"postgresql://postgres:{SUPERUSER_PASSWORD}@db.example.com:port/x", "must be like postgresql://"),
    ],
)
def test_an_error_is_a_sentence_and_leaves_nothing(
    installer: Installer, options: tuple[str, ...], superuser_url: str | None, expected: str
) -> None:
    result = installer.run(*options, superuser_url=superuser_url)
    assert result.exit_code != 0
    assert expected in result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert SUPERUSER_PASSWORD not in result.output
    assert not installer.file.parent.exists()
    assert installer.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{installer.database}'") == []


def test_a_full_disk_leaves_no_part_of_a_secret(installer: Installer) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        result = installer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert "cannot be written: File too large.\n" in result.output
    assert list(installer.file.parent.iterdir()) == []
    assert installer.run().exit_code == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://127.0.0.1:1/x", "DATABASE_URL and MIGRATION_DATABASE_URL must be like postgresql://"),
        ("postgresql://canary:canary@127.0.0.1:1/x?sslmod=y", "DATABASE_URL: has a parameter"),
    ],
)
def test_an_incomplete_url_in_the_settings_file_is_reported(installer: Installer, url: str, expected: str) -> None:
    assert installer.run().exit_code == 0
    written = text_of(installer.file) | {"DATABASE_URL": url}
    installer.file.write_text("".join(f"{name}='{value}'\n" for name, value in written.items()))
    result = installer.run()
    assert result.exit_code == 1
    assert expected in result.output
    assert "canary" not in result.output


def test_a_link_to_a_settings_file_that_is_missing_is_reported(installer: Installer, tmp_path: Path) -> None:
    installer.file.parent.mkdir()
    installer.file.symlink_to(tmp_path / "unmounted" / "portal.env")
    installer.owner_file.write_text("kept")
    result = installer.run()
    assert (result.exit_code, f"{installer.file} is a link to {tmp_path}/unmounted/portal.env" in result.output) == (
        1,
        True,
    )
    assert installer.owner_file.read_text() == "kept"


def test_an_incomplete_settings_file_is_reported(installer: Installer) -> None:
    installer.file.parent.mkdir()
    installer.file.write_text(f"PORTAL_URL='{URL}'\n")
    result = installer.run()
    assert result.exit_code == 1
    assert "production requires SECRET_KEY, ENCRYPTION_KEYS, DATABASE_URL" in str(result.exception)


def test_it_can_use_an_embedded_postgres(installer: Installer, tmp_path: Path) -> None:
    var = tmp_path / "var"
    result = installer.run("--embedded", VAR_DIR=str(var))
    assert result.exit_code == 0, result.output
    written = text_of(installer.file)
    assert (written["DATABASE_URL"], written["VAR_DIR"]) == ("embedded", str(var))
    assert not installer.owner_file.exists()
    assert (var / "postgres" / "PG_VERSION").exists()


def test_an_upgrade_without_the_owner_names_the_setting(installer: Installer) -> None:
    assert installer.run().exit_code == 0
    installer.owner_file.unlink()
    with psycopg.connect(
        make_url(installer.server).set(database=installer.database).render_as_string(hide_password=False),
        autocommit=True,
    ) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0014'")
    result = CliRunner().invoke(main, ["upgrade"], env={"PORTAL_ENV_FILE": str(installer.file)})
    assert result.exit_code == 1
    assert "Set MIGRATION_DATABASE_URL" in result.output
    assert result.output.count("\n") == 1
