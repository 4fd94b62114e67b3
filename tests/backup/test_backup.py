"""Making a backup: whole or not at all, private, of one moment, and with what is in it said."""

import json
import re
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryFile
from zipfile import ZipFile

import pytest
from pydantic import SecretStr

from portal.backup import archive, postgres_tools
from tests.backup.conftest import DATABASE, PASSPHRASE, Machine
from tests.clusters import KEY, PASSWORD
from tests.conftest import TEST_SECRET
from tests.operator import pbx_portal

pytestmark = pytest.mark.slow


def contents(file: Path) -> str:
    """Return the bytes of a backup's parts, each of which is readable apart from the dump."""
    with ZipFile(file) as parts:
        return "\n".join(parts.read(name).decode("latin-1") for name in parts.namelist())


def test_a_backup_without_keys_says_what_is_lost_without_them(old: Machine, tmp_path: Path) -> None:
    done = pbx_portal(old.settings, "backup", str(tmp_path), "--without-keys")
    assert done.exit_code == 0, done.output
    assert "Without ENCRYPTION_KEYS these are lost: passwords of mail servers" in done.output
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("pbx-portal-20")
    assert file.stat().st_mode & 0o777 == 0o600
    assert archive.SETTINGS not in ZipFile(file).namelist()
    for secret in (TEST_SECRET, KEY[2:], PASSWORD):
        assert secret not in contents(file) + done.output
    done = pbx_portal(old.settings, "restore", str(file), "--settings-to", "x", PORTAL_PASSPHRASE=PASSPHRASE)
    assert (done.exit_code, "left out of this backup" in done.output) == (1, True)


def test_keys_are_encrypted_with_a_passphrase(old: Machine, file: Path) -> None:
    settings = old.settings.model_copy(update={"sso_client_secret": SecretStr("it's a \\ secret"), "sso_label": "Acme"})
    settings.model_fields_set.update({"sso_client_secret", "sso_label"})
    short = pbx_portal(settings, "backup", str(file), "--with-keys", PORTAL_PASSPHRASE="too short")
    assert (short.exit_code, "at least 12" in short.output, file.exists()) == (1, True, False)
    done = pbx_portal(settings, "backup", str(file), "--with-keys", PORTAL_PASSPHRASE=PASSPHRASE)
    assert done.exit_code == 0, done.output
    for secret in (TEST_SECRET, KEY[2:], PASSWORD, "a \\ secret", PASSPHRASE):
        assert secret not in contents(file) + done.output
    target = file.with_name("portal.env")
    command = ("restore", str(file), "--settings-to", str(target))
    wrong = pbx_portal(settings, *command, PORTAL_PASSPHRASE="correct horse battery stable")
    assert (wrong.exit_code, "passphrase is wrong" in wrong.output, target.exists()) == (1, True, False)
    assert pbx_portal(settings, *command, PORTAL_PASSPHRASE=PASSPHRASE).exit_code == 0
    again = pbx_portal(settings, *command, PORTAL_PASSPHRASE=PASSPHRASE)
    assert (again.exit_code, "exists already" in again.output) == (1, True)
    text = target.read_text()
    assert f"ENCRYPTION_KEYS='{KEY}'" in text
    assert "SSO_CLIENT_SECRET='it\\'s a \\\\ secret'" in text
    assert "DATABASE_URL" not in text


def test_no_secret_of_the_url_is_in_the_list_of_processes(old: Machine, file: Path, tmp_path: Path) -> None:
    url = f"{old.settings.migration_database_url}&sslpassword=canary-1"
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@"; echo "$PGPASSWORD"; cat "$PGSERVICEFILE"\n')
    program.chmod(0o700)
    plain = f"{url}&scram_client_key=canary-2&oauth_client_secret=canary-3".replace("+psycopg", "")
    with TemporaryFile() as errors:
        said = postgres_tools.start(program, plain, "--quiet", errors=errors, stdout=subprocess.PIPE).communicate()[0]
    command, password, *service = said.decode().splitlines()
    assert ("user=portal_owner" in command, password) == (True, PASSWORD)
    assert not re.search(f"canary|{PASSWORD}", command)
    secrets = {"oauth_client_secret=canary-3", "sslpassword=canary-1", "scram_client_key=canary-2"}
    assert (service[0], {*service[1:]}) == ("[portal]", secrets)
    settings = old.settings.model_copy(update={"migration_database_url": url})
    done = pbx_portal(settings, "backup", str(file), "--without-keys")
    assert done.exit_code == 0, done.output


def test_one_of_the_two_options_about_keys_is_required(old: Machine, file: Path) -> None:
    done = pbx_portal(old.settings, "backup", str(file))
    assert (done.exit_code, "--with-keys or --without-keys" in done.output, file.exists()) == (1, True, False)


def test_a_backup_replaces_no_file(old: Machine, file: Path) -> None:
    file.write_text("mine")
    done = pbx_portal(old.settings, "backup", str(file), "--without-keys")
    assert (done.exit_code, "exists already" in done.output, file.read_text()) == (1, True, "mine")
    assert list(file.parent.iterdir()) == [file]


def test_a_backup_that_fails_leaves_nothing(
    old: Machine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump ends in the middle: the tables' owner may not read one of them."""
    old.run("CREATE TABLE foreign_table (id int); INSERT INTO foreign_table VALUES (1)")
    done = pbx_portal(old.settings, "backup", str(file), "--without-keys")
    assert (done.exit_code, "does not own the tables" in done.output) == (1, True), done.output
    old.run("ALTER TABLE foreign_table OWNER TO portal_owner; CREATE SCHEMA other; CREATE TABLE other.secret (id int)")
    done = pbx_portal(old.settings, "backup", str(file), "--without-keys")
    assert (done.exit_code, "pg_dump failed" in done.output, "permission denied" in done.output) == (1, True, True)
    assert PASSWORD not in done.output
    assert list(tmp_path.iterdir()) == []


def test_the_applications_login_is_not_enough(old: Machine, file: Path) -> None:
    settings = old.settings.model_copy(update={"migration_database_url": None})
    done = pbx_portal(settings, "backup", str(file), "--without-keys")
    assert (done.exit_code, "MIGRATION_DATABASE_URL" in done.output) == (1, True), done.output


def test_programs_of_another_version_are_not_used(old: Machine, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_tools, "_folders", lambda: [Path("/usr/lib/postgresql/15/bin"), Path("/nowhere")])
    done = pbx_portal(old.settings, "backup", str(file), "--without-keys")
    assert done.exit_code == 1
    assert "The server is Postgres 18" in done.output
    assert "postgresql-client-18" in done.output


def test_a_backup_is_of_one_moment(old: Machine, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is added after the description was made is not in the dump: the numbers of rows would differ."""
    began = threading.Event()
    real = postgres_tools.start

    def add_and_start(*arguments: object, **options: object) -> object:
        if not began.is_set():
            began.set()
            columns, values = "name, domain, time_zone, language", "'New', 'new.example', 'UTC', 'en'"
            old.run(f"INSERT INTO tenants ({columns}) VALUES ({values})")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(postgres_tools, "start", add_and_start)
    assert pbx_portal(old.settings, "backup", str(file), "--without-keys").exit_code == 0
    assert began.is_set()
    with ZipFile(file) as parts:
        assert json.loads(parts.read(archive.DESCRIPTION))["rows"]["tenants"] == 2
    assert old.run("SELECT count(*) FROM tenants") == [(3,)]
    old.cluster.create_database(DATABASE)
    done = pbx_portal(old.settings, "restore", str(file))
    assert done.exit_code == 0, done.output
    assert old.run("SELECT count(*) FROM tenants") == [(2,)]
