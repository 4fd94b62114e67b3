"""A tenant as a document: exported, imported into another portal, and exported again. Hostile files are refused."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask_migrate import upgrade
from pydantic import SecretStr

from portal import create_app
from portal.config import Settings
from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.mail_templates import branding, versions
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.notifications import recipients
from portal.notifications import settings as notification_settings
from portal.notifications.decision import QuietHours, RecipientRules
from portal.pbx import api_keys
from portal.people import invitations
from portal.transfer import sealing, tenant_document, tenant_export, tenant_import
from portal.transfer.tenant_document import Document, Secrets
from portal.transfer.tenant_import import Imported
from tests.conftest import MIGRATIONS, close_connections, make_account, make_passwords_cheap, make_sealing_cheap
from tests.people.example_people import account_with, tenant_with
from tests.sql import owner_engine, sql
from tests.tenant_fixtures import entered

PASSPHRASE = "four words are enough"
PASSWORD = "the mail server's password"
LINK = '<a href="%%CALLER_NUMBER%%">x</a>'
PUBLIC = "93.184.216.34"
BEFORE_YEAR_1, AFTER_YEAR_9999 = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"  # in UTC
OAUTH: dict[str, str | None] = {"provider": "google", "grant_type": "authorization_code", "client_id": "portal"}
OAUTH |= dict.fromkeys(("directory", "mailbox", "certificate", "credential_expires_at"))
LOST = EVENT_TYPES["queue.call_lost"]
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_sealing_cheap(monkeypatch)


@pytest.fixture
def tenant(app: Flask, acme: str) -> str:
    """Acme, with one of everything that a document holds."""
    make_account(app, "root@pbx.example", system=True)
    make_account(app, "ann@acme.example", administers=acme)
    with app.app_context():
        tenant = tenant_with(acme)
        enter_scope(tenant.id)
        branding.save_branding(tenant, "Acme <Berlin>", "#aa0000", "Bye\n%%DOMAIN%%", "de")
        notification_settings.save_storm_limits(tenant, 7, 3)
        tenant.name = "Sales <Berlin>"
        tenant.reply_to, tenant.realm, tenant.alerts_on_silence = "help@acme.example", "asterisk", True
        signs_in = {"auth_mode": AuthMode.AUTO, "username": "pbx", "password": PASSWORD}
        server = entered(2525, host="smtp.acme.example", encryption=Encryption.STARTTLS, **signs_in)
        assert not isinstance(mail_server_service.save(tenant.id, server), Refusal)
        recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
        ops, night = recipients.list_recipients()
        quiet = QuietHours(frozenset({0, 6}), time(22), time(7))
        rules = RecipientRules("", ["8000", "S" * 490], quiet, ["queue.sla_breached"])
        recipients.change_rules(tenant, ops, ["queue.call_lost", "queue.sla_breached"], rules)
        recipients.pause(tenant, night, None)
        notification_settings.set_enabled(tenant, ["queue.call_lost"], on=True)
        for body in ("First", "Second %%QUEUE_NUMBER%%"):
            source = TemplateSource(TemplateFormat.MARKDOWN, "Lost", body)
            setting = notification_settings.settings_by_type([LOST.type])[LOST.type]
            assert not isinstance(versions.save_version(tenant, LOST, source, setting.template_id), Refusal)
        api_keys.issue(tenant, "Plain")
        signed = api_keys.issue(tenant, "Signed", signed=True)
        assert not isinstance(api_keys.renew_secret(signed.row, timedelta(days=2)), Refusal)
        api_keys.revoke(api_keys.issue(tenant, "Revoked").row)
        invited = invitations.invite(tenant, "vera@acme.example", "viewer", by=account_with("root@pbx.example"))
        assert not isinstance(invited, Refusal)
    return acme


def exported(app: Flask, domain: str, passphrase: str | None = PASSPHRASE) -> Document:
    """Return the document of a tenant."""
    with app.app_context():
        return tenant_export.export(tenant_with(domain), passphrase)


@pytest.fixture
def other(settings: Settings) -> Iterator[Flask]:
    """Another portal, with its own database and another encryption key."""
    assert settings.database_url is not None
    base, _, query = settings.database_url.partition("?")
    name = base.rpartition("/")[2] + "_other"
    admin = settings.database_url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    url = f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    keys = SecretStr("9:" + "B" * 43 + "=")
    app = create_app(settings.model_copy(update={"database_url": url, "encryption_keys": keys}))
    make_passwords_cheap(app)
    with app.app_context():
        upgrade(MIGRATIONS)
    yield app
    with app.app_context():
        owner_engine(db.engine.url).dispose()
    close_connections(app)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def imported(app: Flask, found: Document, passphrase: str | None = PASSPHRASE) -> Imported:
    """Import a document into a portal."""
    with app.app_context():
        result = tenant_import.apply(found, passphrase, by=None)
        assert isinstance(result, Imported), result
        return result


def read(content: bytes) -> Document:
    """Return the document in a file."""
    found = tenant_document.read(content)
    assert isinstance(found, Document), found
    return found


def without_secrets(found: Document) -> dict[str, Any]:
    """Return what is not encrypted differently each time."""
    return found.model_dump(exclude={"secrets"})


@pytest.mark.slow
def test_exported_and_imported_elsewhere_and_exported_again_is_the_same(app: Flask, tenant: str, other: Flask) -> None:
    first = exported(app, tenant)
    with app.app_context():
        secrets = sealing.unseal(first, PASSPHRASE)
    file = tenant_document.to_json(first)
    for secret in (PASSWORD, *secrets.signing_secrets.values(), *secrets.previous_signing_secrets.values()):
        assert secret.encode() not in file
    with other.app_context():
        tried = tenant_import.preview(read(file))
        assert isinstance(tried, Imported)
        assert sql("SELECT count(*) FROM tenants") == [(0,)], "a preview writes nothing"
    result = imported(other, read(file))
    assert (result.domain, result.recipient_count, result.key_count, result.email_count) == (tenant, 2, 2, 2)
    assert (result.enabled_count, result.template_count, result.to_do) == (1, 1, [])
    second = exported(other, tenant)
    assert without_secrets(second) == without_secrets(first)
    with other.app_context():
        assert sealing.unseal(second, PASSPHRASE) == secrets
        assert secrets.mail_server_password == PASSWORD
        server = mail_server_service.get_server(tenant_with(tenant).id)
        assert server is not None
        assert server.password == PASSWORD
        assert mail_server_service.server_status(server).state == "working"


@pytest.mark.slow
def test_without_a_passphrase_the_report_says_what_to_enter_again(app: Flask, tenant: str, other: Flask) -> None:
    found = exported(app, tenant, None)
    assert found.secrets is None
    result = imported(other, found, None)
    assert result.to_do == [
        "The password of the mail server was not imported. Enter it again.",
        "Issue a new key for Signed: its signing secret was not imported.",
    ]
    with other.app_context():
        row = tenant_with(tenant)
        status = mail_server_service.tenant_status(row)
        assert (status.state, "Enter it again" in status.reason) == ("rejected", True)
        assert sql("SELECT name, signing_secret_encrypted FROM api_keys") == [("Plain", None)]


@pytest.mark.slow
def test_an_imported_tenant_works_for_its_pbx(app: Flask, acme: str, other: Flask) -> None:
    with app.app_context():
        key = api_keys.issue(tenant_with(acme)).secret
    imported(other, exported(app, acme))
    body = {"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "1", "waited_seconds": 9}}
    answer = other.test_client().post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code in (200, 202), answer.text


def test_the_export_is_recorded_and_names_no_ids(app: Flask, tenant: str) -> None:
    content = tenant_document.to_json(exported(app, tenant)).decode()
    assert '"id"' not in content
    assert "tenant_id" not in content
    with app.app_context():
        query = "SELECT changes FROM audit_entries WHERE action = 'tenant.exported'"
        assert sql(query)[0][0] == {"secrets": "set"}


def test_a_tenant_with_this_domain_is_never_overwritten(app: Flask, tenant: str) -> None:
    found = exported(app, tenant)
    with app.app_context():
        before = sql("SELECT count(*) FROM audit_entries"), sql("SELECT * FROM recipients")
        for result in (tenant_import.preview(found), tenant_import.apply(found, PASSPHRASE, by=None)):
            assert isinstance(result, Refusal)
            assert result.text == "There is a tenant with the SIP domain acme.example already."
        assert (sql("SELECT count(*) FROM audit_entries"), sql("SELECT * FROM recipients")) == before


def refused(app: Flask, found: Document, edit: Edit | None = None, passphrase: str | None = None) -> str:
    """Return why an edited document is refused. Nothing of it is written."""
    content = json.loads(tenant_document.to_json(found))
    content["tenant"]["domain"] = "new.example"
    for key in content["keys"]:
        key["hash"] = key["hash"][::-1]
    if edit:
        edit(content)
    with app.app_context():
        changed = tenant_document.read(json.dumps(content).encode())
        result = tenant_import.apply(changed, passphrase, by=None) if isinstance(changed, Document) else changed
        assert isinstance(result, Refusal), result
        assert sql("SELECT count(*) FROM tenants") == [(1,)]
        assert sql("SELECT count(*) FROM invitations WHERE is_due") == [(0,)]
        return result.text


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda it: it.update(version=2), "newer version"),
        (lambda it: it.update(format="other"), "not the export of a tenant"),
        (lambda it: it.update(extra=1), "not valid at “extra”"),
        (lambda it: it["tenant"].update(id=1), "not valid at “tenant / id”"),
        (lambda it: it["recipients"][0].update(tenant_id=1), "recipients / 0 / tenant_id"),
        (lambda it: it["tenant"].update(name=""), "tenant: Name: Enter the tenant's name."),
        (lambda it: it["tenant"].update(name="A" * 300), "not valid at “tenant / name”"),
        (lambda it: it["tenant"].update(domain="a b"), "not a domain name"),
        (lambda it: it["tenant"].update(time_zone="Mars/Base"), "tenant: Time zone: "),
        (lambda it: it["tenant"].update(brand_color="red;} * {"), "tenant: Colour: "),
        (lambda it: it["tenant"].update(reply_to="a@b.example\nBcc: x@y.example"), "tenant: Reply-To: "),
        (lambda it: it["tenant"].update(storm_limit=0), "tenant / storm_limit"),
        (lambda it: it["recipients"][0].update(email="nobody"), "recipients: “nobody” is not an email address."),
        (lambda it: it["recipients"][1].update(email="OPS@acme.example"), "A recipient is there twice."),
        (lambda it: it["recipients"][0]["quiet_hours"].update(days=[7]), "quiet_hours / days / 0"),
        (lambda it: it["recipients"][0].update(queues=["a\x07"]), "Control characters"),
        (
            lambda it: it["recipients"][0]["quiet_hours"].update(days=[0, 1, 2, 3, 4, 5, 6], begin="07:00:00"),
            "never end",
        ),
        (lambda it: it["notifications"][0].update(event_type="queue.unknown"), "does not know the event type"),
        (
            lambda it: it["notifications"].append(it["notifications"][0]),
            "The event type queue.call_lost is there twice.",
        ),
        (lambda it: it["notifications"][0]["template"].update(format="html", body=LINK), "cannot begin with"),
        (lambda it: it["notifications"][0]["template"].update(body="- a\n" * 5_000), "too complex"),
        (lambda it: it["notifications"][0]["template"].update(body="x" * 50_000), "Body: This is too long"),
        (lambda it: it["mail_server"].update(host="10.0.0.1"), "not on the internet"),
        (lambda it: it["mail_server"].update(host=PUBLIC, port=22), "port 25, 465"),
        (lambda it: it["mail_server"].update(host=PUBLIC, encryption="none"), "no password is sent without encryption"),
        (lambda it: it["mail_server"].update(username=None), "mail_server: Username: "),
        (lambda it: it["mail_server"].update(provider="nobody"), "mail_server: Email Service Provider: "),
        (lambda it: it["keys"][0].update(hash="00"), "keys / 0 / hash"),
        (lambda it: it["keys"][1].update(hash=it["keys"][0]["hash"]), "in use already"),
        (lambda it: it["keys"][0].update(hash=it["keys"][0]["hash"][::-1]), "in use already"),
        (lambda it: it["keys"][0].update(expires_at=BEFORE_YEAR_1), "keys / 0 / expires_at"),
        (lambda it: it["keys"][0].update(previous_secret_expires_at=AFTER_YEAR_9999), "previous_secret_expires_at"),
        (lambda it: it["recipients"][0].update(paused_until=AFTER_YEAR_9999), "recipients / 0 / paused_until"),
        (lambda it: it.update(oauth=OAUTH | {"credential_expires_at": BEFORE_YEAR_1}), "credential_expires_at"),
        (lambda it: it["people"][0].update(email="x"), "people: “x” is not an email address."),
        (lambda it: it["people"][0].update(role="system_administrator"), "people / 0 / role"),
        (lambda it: it.update(people=it["people"] * 600), "not valid at “people”"),
    ],
)
def test_hostile_and_faulty_documents_are_refused_with_a_sentence(
    app: Flask, tenant: str, edit: Edit, expected: str
) -> None:
    assert expected in refused(app, exported(app, tenant, None), edit)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"format": "pbx-portal-tenant", "version": "1"}', "damaged"),
        (b'{"format": "pbx-portal-tenant", "version": 1}', "not valid at “tenant”"),
        (b"[" * 100_000, "damaged"),
        (b'{"format": "pbx-portal-tenant", "version": 1, "tenant": ' + b'{"a":' * 50_000, "damaged"),
        (b"\xff\xfe{}", "damaged"),
        (b" " * 2_000_001, "too large"),
    ],
)
def test_files_that_are_no_document(context: Flask, content: bytes, expected: str) -> None:
    found = tenant_document.read(content)
    assert isinstance(found, Refusal)
    assert expected in found.text


@pytest.mark.parametrize(
    ("edit", "passphrase"),
    [
        (None, "another passphrase"),
        (lambda it: it["mail_server"].update(host="smtp.evil.example"), PASSPHRASE),
        (lambda it: it["people"].append({"email": "eve@evil.example", "role": "administrator"}), PASSPHRASE),
        (lambda it: it["secrets"].update(ciphertext=it["secrets"]["ciphertext"][:-8] + "AAAAAAA="), PASSPHRASE),
        (lambda it: it["secrets"].update(n=2**30), PASSPHRASE),
        (lambda it: it["secrets"].update(p=1_000), PASSPHRASE),
        (lambda it: it["secrets"].update(salt="AAAA"), PASSPHRASE),
        (lambda it: it["secrets"].update(nonce="A=="), PASSPHRASE),
    ],
)
def test_a_wrong_passphrase_and_a_changed_file_are_refused(
    app: Flask, tenant: str, edit: Edit | None, passphrase: str
) -> None:
    text = refused(app, exported(app, tenant), edit, passphrase)
    assert text == "The passphrase is wrong, or the file was changed after the export."


@pytest.mark.parametrize("forged", ["", "whsec_", "whsec_AAAA", "no Base64"])
def test_a_signing_secret_that_the_portal_did_not_make_is_refused(app: Flask, tenant: str, forged: str) -> None:
    found = exported(app, tenant, None)
    secrets = Secrets.model_construct(signing_secrets={key.hash: forged for key in found.keys})
    with app.app_context(), pytest.raises(sealing.CannotUnseal):
        sealing.unseal(sealing.seal(found, secrets, PASSPHRASE), PASSPHRASE)


def test_a_pause_without_an_end_is_kept(app: Flask, tenant: str) -> None:
    paused = exported(app, tenant, None).recipients[1].paused_until
    assert paused == datetime(9999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59Z", "2030-01-01T00:00:00"])
def test_the_last_time_and_one_without_a_time_zone_are_kept(app: Flask, tenant: str, end: str) -> None:
    content = json.loads(tenant_document.to_json(exported(app, tenant, None)))
    content["oauth"] = OAUTH | {"credential_expires_at": end}
    oauth = read(json.dumps(content).encode()).oauth
    assert oauth is not None
    assert oauth.credential_expires_at == datetime.fromisoformat(end).replace(tzinfo=UTC)
