"""Recording: one entry for each action, with old and new values, in the same transaction."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import LargeBinary, inspect, select

from portal.accounts import service as account_service
from portal.accounts.models import Account, Membership, SignInPolicy
from portal.audit.labels import ACTIONS, FIELD_LABELS
from portal.audit.log import Actor, record, set_actor
from portal.audit.mixin import Audited
from portal.audit.models import AuditEntry
from portal.database.scope import enter_scope, every_tenant
from portal.extensions import Base, db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.client import AuthMode
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.notifications.models import NotificationSetting
from portal.notifications.settings import Audience
from portal.pbx import api_keys
from portal.pbx.models import ApiKey
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.pages import PASSWORD
from tests.tenant_fixtures import entered

AUDITED = sorted(
    (each.class_ for each in Base.registry.mappers if issubclass(each.class_, Audited)), key=lambda each: each.__name__
)
# What changes without anyone's action, identifies the row, or has an entry of its own.
NOT_RECORDED: dict[type, set[str]] = {
    Account: {
        *("id", "password", "fs_uniquifier", "totp_counter", "recovery_code_hashes", "last_sign_in_at"),
        *(
            "active",
            "deactivated_by_tenant_id",
            "totp_secret_encrypted",
        ),  # have actions of their own, which can be in a tenant's trail
    },
    MailServer: {
        *("id", "tenant_id", "paused_until", "pause_reason", "rejected_at", "failing_since", "last_failed_at"),
        "saved_at",
    },
    OAuthConnection: {
        *("id", "tenant_id", "certificate", "refresh_token_encrypted", "access_token_encrypted"),
        *("access_token_expires_at", "refreshing_until", "lapsed_at", "lapse_reason"),
    },
    Membership: {"account_id", "tenant_id"},
    NotificationSetting: {"tenant_id", "event_type", "template_id"},
    ApiKey: {
        *("id", "tenant_id", "key_hash", "prefix", "created_at", "last_used_at", "last_used_ip"),
        *("previous_secret_encrypted", "previous_secret_expires_at"),
    },
    SignInPolicy: {"id"},
    Tenant: {"id", "created_at", "search_trigrams", "deletion_requested_at"},
}


def entries() -> Sequence[AuditEntry]:
    """Return all entries, oldest first."""
    with every_tenant():
        found = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        db.session.commit()
    return found


def recorded(skip: int = 0) -> list[tuple[str, str, dict[str, Any]]]:
    """Return action, subject and changes of all entries except the first ones."""
    return [(entry.action, entry.subject, entry.changes) for entry in entries()[skip:]]


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, in whose scope the session is. That it was added is recorded already."""
    tenant = tenant_service.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.mark.parametrize("model", AUDITED)
def test_each_column_of_a_model_is_recorded_or_left_out_on_purpose(model: type[Audited]) -> None:
    columns = {each.key: each for each in inspect(model).columns}
    named = {*model.audited_fields, *model.audited_secrets, *model.audited_states}
    assert named | NOT_RECORDED[model] == set(columns)
    for name in {*model.audited_fields, *model.audited_states}:
        assert not isinstance(columns[name].type, LargeBinary)
        assert not any(word in name for word in ("password", "secret", "token", "hash"))


@pytest.mark.parametrize("model", AUDITED)
def test_each_action_and_field_of_a_model_has_a_label(model: type[Audited]) -> None:
    if model is not NotificationSetting:  # which are made as a new tenant's, and never removed
        for verb in ("added", "removed"):
            assert f"{model.audited_as}.{model.audited_verbs.get(verb, verb)}" in ACTIONS
    for verb in (each for pair in model.audited_states.values() for each in pair):
        assert f"{model.audited_as}.{verb}" in ACTIONS
    fields = (*model.audited_fields, *model.audited_secrets)
    assert {field.removesuffix("_encrypted") for field in fields} <= set(FIELD_LABELS)


def test_an_unknown_action_is_not_recorded(context: Flask) -> None:
    with pytest.raises(AssertionError, match=r"tenant\.eaten"):
        record("tenant.eaten")


def test_a_tenant(tenant: Tenant) -> None:
    new = {"name": [None, "Acme"], "domain": [None, "acme.example"], "time_zone": [None, "Europe/Berlin"]}
    defaults = {"language": [None, "en"], "storm_limit": [None, 10], "storm_minutes": [None, 5]}
    assert recorded() == [("tenant.added", "acme.example", new | defaults)]
    tenant_service.edit(tenant, "Acme", "acme.test", "UTC")
    mail_server_service.save_sender(tenant, "help@acme.example")
    notifications_settings.save_storm_limits(tenant, 3, 5)
    tenant_service.suspend(tenant)
    tenant_service.suspend(tenant)
    tenant_service.resume(tenant)
    assert recorded(1) == [
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


def test_refused_changes_are_not_recorded(tenant: Tenant, globex: str) -> None:
    tenant_service.edit(tenant, "Acme", globex, "UTC")
    tenant_service.add("Acme", "acme.example", "UTC")
    db.session.rollback()
    assert [(action, subject) for action, subject, _ in recorded()] == [
        ("tenant.added", "acme.example"),
        ("tenant.added", "globex.example"),
    ]


def test_saving_without_changes_is_not_recorded(tenant: Tenant) -> None:
    tenant_service.edit(tenant, tenant.name, tenant.domain, tenant.time_zone)
    signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
    mail_server_service.save(tenant.id, entered(587, **signing_in, password="secret"))
    recipients.replace(tenant, ["a@acme.example", "b@acme.example"])
    notifications_settings.set_enabled(tenant, ["queue.call_lost"], on=True)
    before = len(entries())
    mail_server_service.save(tenant.id, entered(587, **signing_in))
    recipients.replace(tenant, ["b@acme.example", "a@acme.example"])
    notifications_settings.set_enabled(tenant, ["queue.call_lost"], on=True)
    assert len(entries()) == before
    (paused, _), until = recipients.list_recipients(), date(2100, 1, 1)
    recipients.pause(tenant, paused, until)
    for _ in range(2):
        recipients.pause(tenant, paused, until)
        account_service.require_two_factor(False)
    assert recorded(before) == [("recipient.paused", paused.email, {"until": [None, "2100-01-01"]})]


def test_a_mail_server(tenant: Tenant) -> None:
    signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
    mail_server_service.save(tenant.id, entered(587, host="mail.old", **signing_in, password="first"))
    mail_server_service.save(tenant.id, entered(587, host="mail.new", **signing_in, password="second"))
    mail_server_service.save(tenant.id, entered(587, host="mail.new"))
    mail_server_service.end_pause(tenant.id)
    mail_server_service.remove(tenant.id)
    mail_server_service.save(None, entered(587))
    mail_server_service.share(True)
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
    assert recorded(1) == [
        ("recipients.changed", "", {"recipients": [[], ["a@acme.example", "b@acme.example"]]}),
        ("recipients.changed", "", {"recipients": [["a@acme.example", "b@acme.example"], ["a@acme.example"]]}),
    ]


def test_each_notification_is_one_entry(tenant: Tenant) -> None:
    notifications_settings.set_enabled(tenant, ["queue.call_lost", "user.created"], on=True)
    notifications_settings.set_audience(tenant, "user.created", Audience.USER)
    assert recorded(1) == [
        ("notification.changed", "queue.call_lost", {"enabled": [False, True]}),
        ("notification.changed", "user.created", {"enabled": [False, True]}),
        ("notification.changed", "user.created", {"audience": ["both", "user"]}),
    ]


def test_an_api_key_is_identified_by_its_prefix(tenant: Tenant) -> None:
    issued = api_keys.issue(tenant, "Main PBX", signed=True)
    api_keys.renew_secret(issued.row, timedelta(days=1))
    api_keys.revoke(issued.row)
    api_keys.revoke(issued.row)
    api_keys.issue(None)
    subject = f"Main PBX ({issued.row.prefix}…)"
    assert recorded(1)[:3] == [
        ("key.issued", subject, {"name": [None, "Main PBX"], "signing_secret": "set"}),
        ("key.changed", subject, {"signing_secret": "changed"}),
        ("key.revoked", subject, {}),
    ]
    assert entries()[-1].tenant_id is None


def test_accounts_and_their_roles(tenant: Tenant) -> None:
    account_service.add("ann@acme.example", PASSWORD, tenant_id=tenant.id)
    account_service.add("ann@acme.example", None, tenant_id=tenant.id)
    account_service.add("ann@acme.example", None, system_administrator=True)
    account = db.session.scalars(select(Account)).one()
    account.memberships.clear()
    db.session.commit()
    assert recorded(1) == [
        ("account.added", "ann@acme.example", {"email": [None, "ann@acme.example"]}),
        ("membership.added", "ann@acme.example", {"role": [None, "administrator"]}),
        ("account.made_system_administrator", "ann@acme.example", {}),
        ("membership.removed", "ann@acme.example", {"role": ["administrator", None]}),
    ]
    assert [each.tenant_id for each in entries()[1:]] == [None, tenant.id, None, tenant.id]


def test_the_actor_is_looked_up_only_when_an_entry_is_written(tenant: Tenant) -> None:
    lookups = []

    def find() -> Actor:
        lookups.append(True)
        return Actor("ann@acme.example", 7, "192.0.2.1")

    set_actor(find)
    assert tenant_service.find("acme.example")
    assert not lookups
    tenant_service.suspend(tenant)
    first, second = entries()
    assert (first.actor, first.actor_account_id, first.ip_address) == ("portal", None, None)
    assert (second.actor, second.actor_account_id, second.ip_address) == ("ann@acme.example", 7, "192.0.2.1")


def test_recording_for_another_tenant_leaves_the_scope_unchanged(tenant: Tenant) -> None:
    recipients.replace(tenant, ["a@acme.example"])
    api_keys.issue(None)
    assert recipients.list_emails() == ["a@acme.example"]


def test_a_requests_actor_is_its_account_and_ip_address(admin: FlaskClient, app: Flask) -> None:
    with app.app_context():
        signed_in = entries()[-1]
        account = db.session.scalars(select(Account)).one()
    assert (signed_in.action, signed_in.actor) == ("account.signed_in", "admin@acme.example")
    assert (signed_in.actor_account_id, signed_in.ip_address) == (account.id, "127.0.0.1")


def test_a_commands_actor_is_its_operating_system_user(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "operator")
    line = ["tenants", "add", "Acme", "--domain", "acme.example"]
    assert app.test_cli_runner().invoke(args=line).exit_code == 0
    with app.app_context():
        assert [(each.actor, each.ip_address) for each in entries()] == [("command line (operator)", None)]
