"""Saving a mail server: what happens to its password, and to a pause."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from portal import crypto
from portal.database import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import pause, settings
from portal.mail_servers.connection import AuthMode, Encryption
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Pause
from portal.mail_servers.selection import of_owner
from portal.tenants import directory
from tests.meanwhile import meanwhile
from tests.ready import entered

SIGNS_IN: dict[str, Any] = {"auth_mode": AuthMode.AUTO, "username": "mailer", "password": "saved secret"}


@pytest.fixture
def owner(context: Flask) -> int:
    tenant = directory.add("Acme", "acme.example", "UTC")
    assert not isinstance(tenant, Refusal)
    return tenant.id


def saved_password(owner: int | None) -> str | None:
    server = of_owner(owner)
    assert server is not None
    return server.password


def test_a_password_is_encrypted_and_bound_to_its_owner(owner: int) -> None:
    for each in (owner, None):
        settings.save(each, entered(587, **SIGNS_IN))
    own, system = of_owner(owner), of_owner(None)
    assert own is not None
    assert system is not None
    assert own.password_encrypted is not None
    assert b"saved secret" not in own.password_encrypted
    own.password_encrypted = system.password_encrypted
    with pytest.raises(crypto.UnreadableSecret):
        saved_password(owner)


def test_a_password_that_is_not_typed_stays(owner: int) -> None:
    settings.save(owner, entered(587, **SIGNS_IN))
    settings.save(owner, entered(587, **SIGNS_IN | {"password": None}, sender_email="other@acme.example"))
    assert saved_password(owner) == "saved secret"


@pytest.mark.parametrize(
    "change",
    [{"host": "198.51.100.1"}, {"port": 588}, {"encryption": Encryption.TLS}, {"username": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_a_saved_password_does_not_go_elsewhere(owner: int, change: dict[str, Any]) -> None:
    settings.save(owner, entered(587, **SIGNS_IN))
    changed = entered(**{"port": 587, **SIGNS_IN, "password": None, **change})
    for refused in (settings.complete(owner, changed), settings.save(owner, changed)):
        assert refused == Refusal("password", "Enter the password again, because the server or the username changed.")
    server = of_owner(owner)
    assert server is not None
    assert (server.host, server.port, server.username) == ("127.0.0.1", 587, "mailer")


def test_a_first_password_has_to_be_typed(owner: int) -> None:
    assert settings.save(owner, entered(587, **SIGNS_IN | {"password": None})) == Refusal(
        "password", "Enter the password."
    )
    assert of_owner(owner) is None


def test_without_authentication_the_password_is_forgotten(owner: int) -> None:
    settings.save(owner, entered(587, **SIGNS_IN))
    settings.save(owner, entered(587))
    assert saved_password(owner) is None


def test_saving_ends_a_pause(owner: int) -> None:
    server = settings.save(owner, entered(587))
    assert isinstance(server, MailServer)
    for kind in (Pause.BRIEF, Pause.UNTIL_SAVED):
        pause.apply(server.id, server.saved_at, kind, "535 no")
    db.session.commit()
    with every_tenant():
        db.session.refresh(server)
    assert server.rejected_at is not None
    assert pause.paused_until(server) is not None
    settings.save(owner, entered(587))
    assert server.rejected_at is None
    assert pause.paused_until(server) is None


def test_an_attempt_with_older_settings_does_not_pause_newer_ones(owner: int) -> None:
    server = settings.save(owner, entered(587))
    assert isinstance(server, MailServer)
    pause.apply(server.id, datetime(2026, 1, 1, tzinfo=UTC), Pause.UNTIL_SAVED, "535 no")
    db.session.commit()
    with every_tenant():
        db.session.refresh(server)
    assert server.rejected_at is None


def test_only_a_set_server_can_be_shared(context: Flask) -> None:
    assert settings.share(True) == Refusal("host", "Set the system's mail server first.")


def test_sharing_outlives_new_settings(context: Flask) -> None:
    settings.save(None, entered(587))
    settings.share(True)
    settings.save(None, entered(2525))
    server = of_owner(None)
    assert server is not None
    assert server.shared


def test_a_password_that_is_saved_meanwhile_stays_with_its_server(context: Flask, owner: int) -> None:
    thief, honest = ({**SIGNS_IN, "host": host} for host in ("mail.thief.example", "mail.acme.example"))
    settings.save(owner, entered(587, **thief))
    of_owner(owner, to_change=True)
    with meanwhile(context, lambda: settings.save(owner, entered(587, **thief | {"password": ""}))) as theft:
        settings.save(owner, entered(587, **honest | {"password": "the new one"}))
        refused = theft.result()
    assert isinstance(refused, Refusal)
    assert "Enter the password again" in refused.text
    server = of_owner(owner)
    assert server is not None
    assert (server.host, server.password) == ("mail.acme.example", "the new one")


@pytest.mark.parametrize("of_the_system", [False, True])
def test_two_first_settings_at_once_are_saved_one_after_the_other(
    context: Flask, owner: int, of_the_system: bool
) -> None:
    whose = None if of_the_system else owner
    of_owner(whose, to_change=True)
    with meanwhile(context, lambda: settings.save(whose, entered(587, host="mail.second.example"))) as second:
        settings.save(whose, entered(587, host="mail.first.example"))
        assert isinstance(second.result(), MailServer)
    server = of_owner(whose)
    assert server is not None
    assert server.host == "mail.second.example"


def test_a_server_that_is_removed_meanwhile_does_not_come_back_without_its_password(context: Flask, owner: int) -> None:
    settings.save(owner, entered(587, **SIGNS_IN))
    of_owner(owner, to_change=True)
    with meanwhile(context, lambda: settings.save(owner, entered(587, **SIGNS_IN | {"password": ""}))) as kept:
        settings.remove(owner)
        refused = kept.result()
    assert isinstance(refused, Refusal)
    assert refused.text == "Enter the password."
    assert of_owner(owner) is None
