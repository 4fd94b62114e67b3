"""Restoring: what is refused, what is held, and that no process keeps believing in what was before."""

import json
import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import psycopg
import pytest
from flask_migrate import downgrade
from pydantic import SecretStr

from portal.backup import archive
from portal.database.scope import enter_scope
from portal.deliveries.plan import load_plan
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.tenants import service as tenant_service
from tests.backup.conftest import ACME, DATABASE, GLOBEX, Machine, Used, post_event, statuses
from tests.conftest import MIGRATIONS
from tests.due_emails import send_due_emails
from tests.operator import opened, pbx_portal

pytestmark = pytest.mark.slow

OTHER_KEY = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="


def back_up(machine: Machine, file: Path) -> Path:
    """Back up a machine."""
    done = pbx_portal(machine.settings, "backup", str(file), "--without-keys")
    assert done.exit_code == 0, done.output
    return file


def refused(machine: Machine, file: Path, *options: str) -> str:
    """Return why a backup is not restored. Nothing was restored then."""
    done = pbx_portal(machine.settings, "restore", str(file), *options)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert machine.run("SELECT to_regclass('public.tenants')") == [(None,)]
    return done.output


# What is refused


def test_a_database_that_is_not_empty_is_left_alone(old: Machine, file: Path) -> None:
    back_up(old, file)
    done = pbx_portal(old.settings, "restore", str(file))
    assert (done.exit_code, "not empty" in done.output) == (1, True), done.output
    assert old.run("SELECT count(*) FROM tenants") == [(2,)]


def test_a_running_portal_is_in_the_way(old: Machine, new: Machine, file: Path) -> None:
    back_up(old, file)
    with psycopg.connect(new.cluster.url(DATABASE)):
        text = refused(new, file)
    assert "Stop the portal first, web and workers" in text
    assert "1 of portal" in text


def test_a_backup_of_a_newer_version_is_refused(old: Machine, new: Machine, file: Path) -> None:
    old.run("UPDATE alembic_version SET version_num = '9999'")
    back_up(old, file)
    assert "newer version of the portal" in refused(new, file)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (OTHER_KEY, "lacks the key 1"),
        (OTHER_KEY.replace("2:", "1:"), "has another key under the id 1"),
    ],
)
def test_missing_keys_are_seen_before_anything_is_restored(
    old: Machine, new: Machine, file: Path, keys: str, text: str
) -> None:
    back_up(old, file)
    other = Machine(new.cluster, new.settings.model_copy(update={"encryption_keys": SecretStr(keys)}))
    assert text in refused(other, file)
    done = pbx_portal(other.settings, "restore", str(file), "--accept-lost-secrets")
    assert (done.exit_code, "cannot be decrypted and have to be entered again: 2." in done.output) == (0, True), (
        done.output
    )
    assert new.run("SELECT count(*) FROM events") == [(2,)]


def test_a_secret_that_cannot_be_decrypted_is_reported(old: Machine, new: Machine, file: Path) -> None:
    """It was damaged before the backup."""
    old.run("UPDATE mail_servers SET password_encrypted = password_encrypted || '\\x00' WHERE id = 1")
    back_up(old, file)
    done = pbx_portal(new.settings, "restore", str(file))
    assert done.exit_code == 1
    assert "not all stored secrets can be decrypted (1 of mail_servers.password_encrypted)" in done.output


def damage(file: Path, target: Path, *, at: float, cut: bool) -> Path:
    """Write a copy of which a byte is changed, or everything after it is missing."""
    content = bytearray(file.read_bytes())
    index = int(len(content) * at)
    content[index] ^= 0xFF
    target.write_bytes(content[:index] if cut else content)
    return target


def test_a_damaged_backup_is_refused(old: Machine, new: Machine, file: Path, tmp_path: Path) -> None:
    back_up(old, file)
    for at in (0.2, 0.5, 0.9):
        text = refused(new, damage(file, tmp_path / "damaged", at=at, cut=False))
        assert "Nothing was restored" in text
        assert "damaged" in refused(new, damage(file, tmp_path / "cut", at=at, cut=True))
    other = tmp_path / "other.zip"
    with ZipFile(other, "w") as parts:
        parts.writestr("readme.txt", "hello")
    assert "not a backup of the portal" in refused(new, other)
    assert "There is no file" in refused(new, tmp_path / "missing")
    assert pbx_portal(new.settings, "restore", str(file)).exit_code == 0


def test_a_backup_that_is_not_whole_is_refused(old: Machine, new: Machine, file: Path, tmp_path: Path) -> None:
    """The numbers of rows are part of the backup: rows that were hidden from the dump are seen."""
    back_up(old, file)
    changed = tmp_path / "changed"
    with ZipFile(file) as parts, ZipFile(changed, "w") as copy:
        text = parts.read(archive.DESCRIPTION).decode().replace('"events": 2', '"events": 3')
        copy.writestr(archive.DESCRIPTION, text)
        with parts.open(archive.DUMP) as source, copy.open(archive.DUMP, "w") as target:
            shutil.copyfileobj(source, target)
    assert "the table events has not the rows of the backup" in refused(new, changed)


def test_a_file_that_is_compressed_or_encrypted_is_no_backup(
    old: Machine, new: Machine, file: Path, tmp_path: Path
) -> None:
    """A small file could become a huge one. A damaged file may say so too."""
    back_up(old, file)
    changed = tmp_path / "changed"
    with ZipFile(file) as parts, ZipFile(changed, "w", ZIP_DEFLATED) as copy:
        for part in parts.namelist():
            copy.writestr(part, parts.read(part))
    assert "is not a backup of the portal, or it is damaged" in refused(new, changed)
    listed = file.read_bytes().index(b"PK\x01\x02")  # the first part in the list of parts
    for place, value in {8: 1, 10: 99}.items():  # its flags, its method of compression
        content = bytearray(file.read_bytes())
        content[listed + place] = value
        changed.write_bytes(content)
        assert "is not a backup of the portal, or it is damaged" in refused(new, changed)


def test_a_description_that_would_make_psql_run_a_program_is_refused(
    old: Machine, new: Machine, file: Path, tmp_path: Path
) -> None:
    back_up(old, file)
    changed, made = tmp_path / "changed", tmp_path / "made"
    with ZipFile(file) as parts, ZipFile(changed, "w") as copy:
        description = json.loads(parts.read(archive.DESCRIPTION))
        description["rows"] = {f"x$$\n\\! touch {made}\n": 1} | description["rows"]
        copy.writestr(archive.DESCRIPTION, json.dumps(description))
        copy.writestr(archive.DUMP, parts.read(archive.DUMP))
    assert "not a backup of the portal" in refused(new, changed)
    assert not made.exists()


def test_what_postgres_rejects_is_quoted(old: Machine, new: Machine, file: Path) -> None:
    """A superuser's function, which the owner of the tables may not create. The backup itself is not damaged."""
    old.run("""
        CREATE FUNCTION absolute(int) RETURNS int LANGUAGE internal AS 'int4abs';
        CREATE TABLE filler AS SELECT md5(number::text) FROM generate_series(1, 50000) AS number;
        ALTER TABLE filler OWNER TO portal_owner
    """)
    back_up(old, file)
    text = refused(new, file)
    assert "Postgres says: " in text
    assert "permission denied for language internal" in text
    assert "damaged" not in text


# Versions


def test_an_older_backup_is_upgraded(old: Machine, new: Machine, file: Path) -> None:
    with opened(old.settings) as app, app.app_context():
        downgrade(MIGRATIONS, "0012")
    back_up(old, file)
    done = pbx_portal(new.settings, "restore", str(file))
    assert done.exit_code == 0, done.output
    with opened(new.settings) as app:
        assert set(statuses(app, ACME)) == {"first"}
    (system,) = new.run("SELECT number FROM settings_revisions WHERE tenant_id IS NULL")
    assert isinstance(system[0], int)
    assert system[0] > 10**15


# Emails


@pytest.fixture
def unsent(old: Machine, used: Used) -> None:
    """Emails of each kind that are not finished at the time of the backup."""
    with opened(old.settings) as app:
        for name in ("queued", "in progress", "held", "quiet", "sent"):
            post_event(app, used.keys[ACME], name)
    of = "FROM events WHERE events.id = deliveries.event_id AND external_id ="
    old.run(f"""
        UPDATE deliveries SET status = 'deferred', next_attempt_at = now() {of} 'queued';
        UPDATE deliveries SET status = 'pending', lease_until = now() + interval '3 minutes' {of} 'in progress';
        UPDATE deliveries SET status = 'held', reason = 'no_mail_server' {of} 'held';
        UPDATE deliveries SET status = 'held', reason = 'quiet_hours', held_until = now() {of} 'quiet';
        UPDATE delivery_recipients SET status = deliveries.status FROM deliveries WHERE id = delivery_id
    """)


def restored(machine: Machine, file: Path, *options: str) -> str:
    """Restore a backup, and return what the command says."""
    done = pbx_portal(machine.settings, "restore", str(file), *options)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.usefixtures("unsent")
def test_emails_that_may_have_been_sent_are_held(old: Machine, new: Machine, used: Used, file: Path) -> None:
    """Those that wait for their time, that were being sent, and that a change of settings would release."""
    said = restored(new, back_up(old, file))
    assert "are held until someone decides: 4." in said
    may_have_been_sent = ("held", "may_have_been_sent")
    with opened(new.settings) as app:
        assert statuses(app, ACME) == {
            **dict.fromkeys(("queued", "in progress", "held", "quiet"), may_have_been_sent),
            **dict.fromkeys(("first", "sent"), ("sent", None)),
        }
        before = len(used.peer.messages)
        with app.app_context():
            assert send_due_emails() == 0
            tenant = tenant_service.find(ACME)
            assert tenant
            enter_scope(tenant.id)
        assert len(used.peer.messages) == before
    assert new.run("SELECT DISTINCT status FROM delivery_recipients ORDER BY 1") == [("held",), ("sent",)]


@pytest.mark.usefixtures("unsent")
def test_a_portal_that_was_stopped_before_continues(old: Machine, new: Machine, used: Used, file: Path) -> None:
    old.run("UPDATE deliveries SET lease_until = now() WHERE lease_until IS NOT NULL")
    said = restored(new, back_up(old, file), "--continue")
    assert "held" not in said
    with opened(new.settings) as app:
        assert statuses(app, ACME)["held"] == ("held", "no_mail_server")
        assert statuses(app, ACME)["quiet"] == ("held", "quiet_hours")
        before = len(used.peer.messages)
        with app.app_context():
            assert send_due_emails() == 2
        assert len(used.peer.messages) == before + 2
        assert statuses(app, ACME)["queued"] == ("sent", None)


def test_nobody_stays_signed_in_unless_the_portal_continues(old: Machine, new: Machine, file: Path) -> None:
    old.run("""
        INSERT INTO account_sessions (account_id, token_hash, expires_at, remembered, ip_address, browser)
        SELECT id, '\\x00', now() + interval '1 day', false, '127.0.0.1', 'Firefox' FROM accounts
    """)
    back_up(old, file)
    restored(new, file)
    assert new.run("SELECT count(*) FROM account_sessions") == [(0,)]
    new.cluster.create_database(DATABASE)
    restored(new, file, "--continue")
    assert new.run("SELECT count(*) FROM account_sessions") == [(1,)]


# What processes keep


@pytest.mark.parametrize("options", [(), ("--continue",)])
def test_no_process_keeps_settings_of_before(old: Machine, used: Used, file: Path, options: tuple[str, ...]) -> None:
    """A web process that was not stopped keeps a plan: after the restore its revision is never reached again."""
    back_up(old, file)
    with opened(old.settings) as app:
        with app.app_context():
            tenant = tenant_service.find(ACME)
            assert tenant
            tenant_id = tenant.id
        old.run(f"UPDATE mail_servers SET port = 1, saved_at = now() WHERE tenant_id = {tenant_id}")
        with app.app_context():
            kept = load_plan(tenant_id, "queue.call_lost").revision
        assert kept
    old.cluster.create_database(DATABASE)
    restored(old, file, *options)
    with opened(old.settings) as app:
        with app.app_context():
            found = load_plan(tenant_id, "queue.call_lost").revision
            assert found
            assert found > kept + 10**12
            for domain in (ACME, "a-new-tenant.example"):
                added = tenant_service.find(domain) or tenant_service.add("New", domain, "UTC")
                revision = load_plan(added.id, "queue.call_lost").revision  # type: ignore[union-attr]
                assert revision
                assert revision > kept + 10**12
        assert post_event(app, used.keys[ACME], "after") == "sent"


def test_a_restored_backup_can_be_backed_up_and_restored_again(
    old: Machine, new: Machine, file: Path, tmp_path: Path
) -> None:
    restored(new, back_up(old, file))
    second = back_up(new, tmp_path / "second.backup")
    new.cluster.create_database(DATABASE)
    restored(new, second)
    with opened(new.settings) as app, app.app_context():
        tenant = tenant_service.find(GLOBEX)
        assert tenant
        enter_scope(tenant.id)
        (server,) = db.session.query(MailServer).all()
        assert server.password
