"""Saving a mail server: its password, its pause, and saving at the same time."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from portal import crypto
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.service import get_server
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.mail_servers.smtp.outcome import Pause
from portal.tenants import service as tenant_service
from tests.concurrency import blocked_until_done
from tests.tenant_fixtures import entered

SIGNS_IN: dict[str, Any] = {"auth_mode": AuthMode.AUTO, "username": "mailer", "password": "saved secret"}


@pytest.fixture
def owner(context: Flask) -> int:
    tenant = tenant_service.add("Acme", "acme.example", "UTC")
    assert not isinstance(tenant, Refusal)
    return tenant.id


def saved_password(owner: int | None) -> str | None:
    server = get_server(owner)
    assert server is not None
    return server.password


def test_a_password_is_encrypted_and_bound_to_its_owner(owner: int) -> None:
    for each in (owner, None):
        mail_server_service.save(each, entered(587, **SIGNS_IN))
    own, system = get_server(owner), get_server(None)
    assert own is not None
    assert system is not None
    assert own.password_encrypted is not None
    assert b"saved secret" not in own.password_encrypted
    own.password_encrypted = system.password_encrypted
    with pytest.raises(crypto.UnreadableSecret):
        saved_password(owner)


def test_without_a_new_password_the_saved_one_is_kept(owner: int) -> None:
    mail_server_service.save(owner, entered(587, **SIGNS_IN))
    mail_server_service.save(owner, entered(587, **SIGNS_IN | {"password": None}, sender_email="other@acme.example"))
    assert saved_password(owner) == "saved secret"


@pytest.mark.parametrize(
    "change",
    [{"host": "198.51.100.1"}, {"port": 588}, {"encryption": Encryption.TLS}, {"username": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_a_saved_password_is_not_used_for_another_server(owner: int, change: dict[str, Any]) -> None:
    mail_server_service.save(owner, entered(587, **SIGNS_IN))
    changed = entered(**{"port": 587, **SIGNS_IN, "password": None, **change})
    for refusal in (mail_server_service.connection_settings(owner, changed), mail_server_service.save(owner, changed)):
        assert refusal == Refusal("password", "Enter the password again, because the server or the username changed.")
    server = get_server(owner)
    assert server is not None
    assert (server.host, server.port, server.username) == ("127.0.0.1", 587, "mailer")


def test_the_first_password_is_required(owner: int) -> None:
    assert mail_server_service.save(owner, entered(587, **SIGNS_IN | {"password": None})) == Refusal(
        "password", "Enter the password."
    )
    assert get_server(owner) is None


def test_without_authentication_the_password_is_deleted(owner: int) -> None:
    mail_server_service.save(owner, entered(587, **SIGNS_IN))
    mail_server_service.save(owner, entered(587))
    assert saved_password(owner) is None


def test_saving_ends_a_pause(owner: int) -> None:
    server = mail_server_service.save(owner, entered(587))
    assert isinstance(server, MailServer)
    for length in (Pause.BRIEF, Pause.UNTIL_SAVED):
        mail_server_service.pause(server.id, server.saved_at, length, "535 no")
    db.session.commit()
    with every_tenant():
        db.session.refresh(server)
    assert server.rejected_at is not None
    assert mail_server_service.paused_until(server) is not None
    mail_server_service.save(owner, entered(587))
    assert server.rejected_at is None
    assert mail_server_service.paused_until(server) is None


def test_a_later_failure_does_not_replace_the_reason_why_the_settings_are_rejected(owner: int) -> None:
    server = mail_server_service.save(owner, entered(587))
    assert isinstance(server, MailServer)
    for length, reason in ((Pause.UNTIL_SAVED, "535 no"), (Pause.BRIEF, "No response in time.")):
        mail_server_service.pause(server.id, server.saved_at, length, reason)
    db.session.commit()
    with every_tenant():
        db.session.refresh(server)
    status = mail_server_service.server_status(server)
    assert (status.state, status.reason, status.paused_until) == ("rejected", "535 no", None)


def test_an_attempt_with_older_settings_does_not_pause_newer_ones(owner: int) -> None:
    server = mail_server_service.save(owner, entered(587))
    assert isinstance(server, MailServer)
    mail_server_service.pause(server.id, datetime(2026, 1, 1, tzinfo=UTC), Pause.UNTIL_SAVED, "535 no")
    db.session.commit()
    with every_tenant():
        db.session.refresh(server)
    assert server.rejected_at is None


def test_only_a_saved_server_can_be_shared(context: Flask) -> None:
    assert mail_server_service.share(True) == Refusal("host", "Set up the system's mail server first.")


def test_new_settings_keep_the_server_shared(context: Flask) -> None:
    mail_server_service.save(None, entered(587))
    mail_server_service.share(True)
    mail_server_service.save(None, entered(2525))
    server = get_server(None)
    assert server is not None
    assert server.shared


def test_a_password_saved_at_the_same_time_stays_with_its_server(context: Flask, owner: int) -> None:
    thief, honest = ({**SIGNS_IN, "host": host} for host in ("mail.thief.example", "mail.acme.example"))
    mail_server_service.save(owner, entered(587, **thief))
    get_server(owner, for_update=True)
    with blocked_until_done(
        context, lambda: mail_server_service.save(owner, entered(587, **thief | {"password": ""}))
    ) as theft:
        mail_server_service.save(owner, entered(587, **honest | {"password": "the new one"}))
        refusal = theft.result()
    assert isinstance(refusal, Refusal)
    assert "Enter the password again" in refusal.text
    server = get_server(owner)
    assert server is not None
    assert (server.host, server.password) == ("mail.acme.example", "the new one")


@pytest.mark.parametrize("is_system", [False, True])
def test_two_first_saves_at_once_happen_one_after_the_other(context: Flask, owner: int, is_system: bool) -> None:
    server_owner = None if is_system else owner
    get_server(server_owner, for_update=True)
    with blocked_until_done(
        context, lambda: mail_server_service.save(server_owner, entered(587, host="mail.second.example"))
    ) as second:
        mail_server_service.save(server_owner, entered(587, host="mail.first.example"))
        assert isinstance(second.result(), MailServer)
    server = get_server(server_owner)
    assert server is not None
    assert server.host == "mail.second.example"


def test_a_server_removed_at_the_same_time_is_not_saved_without_its_password(context: Flask, owner: int) -> None:
    mail_server_service.save(owner, entered(587, **SIGNS_IN))
    get_server(owner, for_update=True)
    with blocked_until_done(
        context, lambda: mail_server_service.save(owner, entered(587, **SIGNS_IN | {"password": ""}))
    ) as second_save:
        mail_server_service.remove(owner)
        refusal = second_save.result()
    assert isinstance(refusal, Refusal)
    assert refusal.text == "Enter the password."
    assert get_server(owner) is None
