"""What is written: one entry for each thing that somebody did, with old and new, in the same transaction."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import LargeBinary, inspect, select

from portal.accounts import registration
from portal.accounts.models import Account, Membership, SignInPolicy
from portal.audit.actions import ACTIONS
from portal.audit.audited import Audited
from portal.audit.entries import note
from portal.audit.fields import LABELS
from portal.audit.models import AuditEntry
from portal.audit.who import Actor, act_as
from portal.database import enter_scope, every_tenant
from portal.extensions import Base, db
from portal.mail_servers import pause, sender, settings
from portal.mail_servers.connection import AuthMode
from portal.mail_servers.models import MailServer
from portal.notifications import recipients, storm_limits, switches
from portal.notifications.models import NotificationSwitch
from portal.notifications.switches import Audience
from portal.pbx import keys
from portal.pbx.models import PbxKey
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.pages import PASSWORD
from tests.ready import entered

AUDITED = sorted(
    (each.class_ for each in Base.registry.mappers if issubclass(each.class_, Audited)), key=lambda each: each.__name__
)
# What changes by itself, says who or what it is about, or has an entry of its own.
UNTOLD: dict[type, set[str]] = {
    Account: {"id", "password", "fs_uniquifier", "totp_counter", "recovery_code_hashes"},
    MailServer: {"id", "tenant_id", "paused_until", "pause_text", "rejected_at", "saved_at"},
    Membership: {"account_id", "tenant_id"},
    NotificationSwitch: {"tenant_id", "event_type", "template_id"},
    PbxKey: {
        *("id", "tenant_id", "key_hash", "prefix", "created_at", "last_used_at", "last_used_from"),
        *("previous_secret_encrypted", "previous_secret_until"),
    },
    SignInPolicy: {"id"},
    Tenant: {"id", "created_at", "grams"},
}


def entries() -> Sequence[AuditEntry]:
    """Return all entries, the oldest first."""
    with every_tenant():
        found = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        db.session.commit()
    return found


def told(after: int = 0) -> list[tuple[str, str, dict[str, Any]]]:
    """Return action, subject and changes of all entries but the first ones."""
    return [(each.action, each.subject, each.changes) for each in entries()[after:]]


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, in whose scope the session is; its adding is told already."""
    tenant = directory.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.mark.parametrize("model", AUDITED)
def test_each_column_of_a_model_is_told_or_left_out_on_purpose(model: type[Audited]) -> None:
    columns = {each.key: each for each in inspect(model).columns}
    named = {*model.audited_fields, *model.audited_secrets, *model.audited_states}
    assert named | UNTOLD[model] == set(columns)
    for name in {*model.audited_fields, *model.audited_states}:
        assert not isinstance(columns[name].type, LargeBinary)
        assert not any(word in name for word in ("password", "secret", "token", "hash"))


@pytest.mark.parametrize("model", AUDITED)
def test_each_action_and_field_of_a_model_has_words(model: type[Audited]) -> None:
    if model is not NotificationSwitch:  # which are made as a new tenant's, and never removed
        for verb in ("added", "removed"):
            assert f"{model.audited_as}.{model.audited_verbs.get(verb, verb)}" in ACTIONS
    for verb in (each for pair in model.audited_states.values() for each in pair):
        assert f"{model.audited_as}.{verb}" in ACTIONS
    fields = (*model.audited_fields, *model.audited_secrets)
    assert {field.removesuffix("_encrypted") for field in fields} <= set(LABELS)


def test_an_action_without_words_is_not_written(context: Flask) -> None:
    with pytest.raises(AssertionError, match=r"tenant\.eaten"):
        note("tenant.eaten")


def test_a_tenant(tenant: Tenant) -> None:
    new = {"name": [None, "Acme"], "domain": [None, "acme.example"], "time_zone": [None, "Europe/Berlin"]}
    defaults = {"locale": [None, "en"], "storm_limit": [None, 10], "storm_minutes": [None, 5]}
    assert told() == [("tenant.added", "acme.example", new | defaults)]
    directory.edit(tenant, "Acme", "acme.test", "UTC")
    sender.save(tenant, "help@acme.example")
    storm_limits.save(tenant, 3, 5)
    directory.suspend(tenant)
    directory.suspend(tenant)
    directory.resume(tenant)
    assert told(1) == [
        (
            "tenant.changed",
            "acme.test",
            {"domain": ["acme.example", "acme.test"], "time_zone": ["Europe/Berlin", "UTC"]},
        ),
        ("tenant.changed", "acme.test", {"reply_to": [None, "help@acme.example"]}),
        ("tenant.changed", "acme.test", {"storm_limit": [10, 3]}),
        ("tenant.suspended", "acme.test", {}),
        ("tenant.resumed", "acme.test", {}),
    ]
    assert {each.tenant_id for each in entries()} == {tenant.id}


def test_what_was_refused_was_not_done(tenant: Tenant, globex: str) -> None:
    directory.edit(tenant, "Acme", globex, "UTC")
    directory.add("Acme", "acme.example", "UTC")
    db.session.rollback()
    assert [(action, subject) for action, subject, _ in told()] == [
        ("tenant.added", "acme.example"),
        ("tenant.added", "globex.example"),
    ]


def test_saving_without_a_change_is_not_told(tenant: Tenant) -> None:
    directory.edit(tenant, tenant.name, tenant.domain, tenant.time_zone)
    signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
    settings.save(tenant.id, entered(587, **signing_in, password="secret"))
    recipients.replace(tenant, ["a@acme.example", "b@acme.example"])
    switches.turn(tenant, ["queue.call_lost"], on=True)
    before = len(entries())
    settings.save(tenant.id, entered(587, **signing_in))
    recipients.replace(tenant, ["b@acme.example", "a@acme.example"])
    switches.turn(tenant, ["queue.call_lost"], on=True)
    assert len(entries()) == before


def test_a_mail_server(tenant: Tenant) -> None:
    signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
    settings.save(tenant.id, entered(587, host="mail.old", **signing_in, password="first"))
    settings.save(tenant.id, entered(587, host="mail.new", **signing_in, password="second"))
    settings.save(tenant.id, entered(587, host="mail.new"))
    pause.lift(tenant.id)
    settings.remove(tenant.id)
    settings.save(None, entered(587))
    settings.share(True)
    added, changed, no_longer, tried, removed, _, shared = entries()[1:]
    assert added.changes["host"] == [None, "mail.old"]
    assert added.changes["password"] == "set"
    assert "shared" not in added.changes
    assert (changed.action, changed.changes) == (
        "mail_server.changed",
        {"host": ["mail.old", "mail.new"], "password": "changed"},
    )
    assert no_longer.changes == {"auth_mode": ["auto", "none"], "username": ["ann", None], "password": "removed"}
    assert tried.action == "mail_server.tried_now"
    assert removed.changes["host"] == ["mail.new", None]
    assert (shared.tenant_id, shared.changes) == (None, {"shared": [False, True]})


def test_recipients_are_one_entry(tenant: Tenant) -> None:
    recipients.replace(tenant, ["b@acme.example", "a@acme.example"])
    recipients.replace(tenant, ["a@acme.example"])
    assert told(1) == [
        ("recipients.changed", "", {"recipients": [[], ["a@acme.example", "b@acme.example"]]}),
        ("recipients.changed", "", {"recipients": [["a@acme.example", "b@acme.example"], ["a@acme.example"]]}),
    ]


def test_each_switch_is_one_entry(tenant: Tenant) -> None:
    switches.turn(tenant, ["queue.call_lost", "user.created"], on=True)
    switches.choose_audience(tenant, "user.created", Audience.USER)
    assert told(1) == [
        ("notification.changed", "queue.call_lost", {"enabled": [False, True]}),
        ("notification.changed", "user.created", {"enabled": [False, True]}),
        ("notification.changed", "user.created", {"audience": ["both", "user"]}),
    ]


def test_a_key_is_known_by_its_beginning(tenant: Tenant) -> None:
    issued = keys.issue(tenant, "Main PBX", signed=True)
    keys.renew_secret(issued.row, timedelta(days=1))
    keys.revoke(issued.row)
    keys.revoke(issued.row)
    keys.issue(None)
    subject = f"Main PBX ({issued.row.prefix}…)"
    assert told(1)[:3] == [
        ("key.issued", subject, {"name": [None, "Main PBX"], "signing_secret": "set"}),
        ("key.changed", subject, {"signing_secret": "changed"}),
        ("key.revoked", subject, {}),
    ]
    assert entries()[-1].tenant_id is None


def test_accounts_and_what_they_may(tenant: Tenant) -> None:
    registration.add("ann@acme.example", PASSWORD, tenant_id=tenant.id)
    registration.add("ann@acme.example", None, tenant_id=tenant.id)
    registration.add("ann@acme.example", None, system_administrator=True)
    account = db.session.scalars(select(Account)).one()
    account.memberships.clear()
    db.session.commit()
    assert told(1) == [
        ("account.added", "ann@acme.example", {"email": [None, "ann@acme.example"], "active": [None, True]}),
        ("membership.added", "ann@acme.example", {}),
        ("account.made_system_administrator", "ann@acme.example", {}),
        ("membership.removed", "ann@acme.example", {}),
    ]
    assert [each.tenant_id for each in entries()[1:]] == [None, tenant.id, None, tenant.id]


def test_who_acts_is_asked_only_where_something_is_written(tenant: Tenant) -> None:
    asked = []

    def find() -> Actor:
        asked.append(True)
        return Actor("ann@acme.example", 7, "192.0.2.1")

    act_as(find)
    assert directory.find("acme.example")
    assert not asked
    directory.suspend(tenant)
    first, second = entries()
    assert (first.actor, first.actor_account_id, first.from_address) == ("portal", None, None)
    assert (second.actor, second.actor_account_id, second.from_address) == ("ann@acme.example", 7, "192.0.2.1")


def test_an_entry_in_the_scope_of_another_leaves_the_scope_as_it_was(tenant: Tenant) -> None:
    recipients.replace(tenant, ["a@acme.example"])
    keys.issue(None)
    assert recipients.addresses() == ["a@acme.example"]


def test_a_request_tells_who_and_from_where(admin: FlaskClient, app: Flask) -> None:
    with app.app_context():
        signed_in = entries()[-1]
        account = db.session.scalars(select(Account)).one()
    assert (signed_in.action, signed_in.actor) == ("account.signed_in", "admin@acme.example")
    assert (signed_in.actor_account_id, signed_in.from_address) == (account.id, "127.0.0.1")


def test_a_command_tells_its_user(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "operator")
    line = ["tenants", "add", "Acme", "--domain", "acme.example"]
    assert app.test_cli_runner().invoke(args=line).exit_code == 0
    with app.app_context():
        assert [(each.actor, each.from_address) for each in entries()] == [("command line (operator)", None)]
