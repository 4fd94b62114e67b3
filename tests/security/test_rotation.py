"""Encrypted columns: rotation knows all of them, a new key takes over beside a running portal, nothing can be moved."""

import base64
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import LargeBinary, text

from portal import crypto, rotation
from portal.accounts import registration
from portal.accounts.models import Account
from portal.crypto import Keyring, UnreadableSecret
from portal.database import enter_scope, every_tenant
from portal.deliveries.models import RecordedEvent
from portal.extensions import Base, db
from portal.mail_servers import settings as mail_server_settings
from portal.mail_servers.connection import AuthMode
from portal.mail_servers.models import MailServer
from portal.pbx import keys
from portal.provisioning.models import ProvisioningToken
from portal.tenants import directory
from tests.pages import PASSWORD
from tests.ready import Post, entered, key, peer, post, ready
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["key", "peer", "post", "ready"]

WELCOME = {"extension_number": "101", "extension_password": "s3cret-sip", "email": "ann@acme.example"}
HASHES = ("_hash", "fingerprint", "subject")


@pytest.fixture
def filled(app: Flask, post: Post, ready: str, globex: str, peer: SmtpPeer) -> Iterator[Keyring]:
    """Secrets of two tenants and of the system in every encrypted column; gives the ring with a new first key."""
    peer.script = {"dot": "451 later"}
    assert post("user.created", WELCOME, id="welcome").json["status"] == "deferred"
    signing_in = {"auth_mode": AuthMode.PLAIN, "username": "pbx", "password": "p@ss-mail"}
    before = app.extensions["keyring"]
    with app.app_context():
        for domain in (ready, globex, None):
            tenant = directory.find(domain) if domain else None
            saved = mail_server_settings.save(tenant.id if tenant else None, entered(peer.port, **signing_in))
            assert isinstance(saved, MailServer)
            issued = keys.issue(tenant, signed=True)
            keys.renew_secret(issued.row, timedelta(days=1))
        account = registration.add("admin@acme.example", PASSWORD, system_administrator=True)
        assert isinstance(account, Account)
        account.tf_totp_secret = "JBSWY3DPEHPK3PXP"
        db.session.commit()
    yield Keyring({"new": b"n" * 32} | before.keys)
    app.extensions["keyring"] = before


def key_ids() -> set[str]:
    """Return under which keys the secrets in the database are."""
    found = set()
    for column in rotation.columns():
        values = sql(f"SELECT {column.name} FROM {column.table.name} WHERE {column.name} IS NOT NULL")
        assert values, column
        found |= {crypto.key_id_of(value) for (value,) in values}
    return found


def test_rotation_knows_every_encrypted_column() -> None:
    """A later column of bytes is a hash by its name, or says with `crypto.encrypted` what its values are bound to."""
    known = set(rotation.columns())
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column in known:
                assert len(table.primary_key.columns) == 1, f"{column}: rotation goes along one key"
            elif isinstance(column.type, LargeBinary):
                assert column.name.endswith(HASHES), f"rotation does not know {column}"
            assert column in known or "encrypted" not in column.name, f"rotation does not know {column}"
    assert len(known) >= 3


def test_every_secret_comes_under_the_first_key_and_still_opens(app: Flask, filled: Keyring) -> None:
    assert key_ids_of(app) == {"1"}
    app.extensions["keyring"] = filled
    result = app.test_cli_runner().invoke(args=["secrets", "rotate"])
    assert result.exit_code == 0, result.output
    assert "mail_servers.password_encrypted: 3 encrypted anew" in result.output
    assert "key new: 13 secrets" in result.output, "3 passwords, an event, 2 tokens, 6 for signing, a TOTP"
    assert key_ids_of(app) == {"new"}
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    with app.app_context(), every_tenant():
        assert {each.password for each in db.session.query(MailServer)} == {"p@ss-mail"}
        assert [each.secrets["extension_password"] for each in db.session.query(RecordedEvent)] == ["s3cret-sip"]


def key_ids_of(app: Flask) -> set[str]:
    with app.app_context():
        return key_ids()


def test_it_does_nothing_twice_and_goes_on_where_it_was_broken_off(
    context: Flask, filled: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 1)
    context.extensions["keyring"] = filled
    opened, most = filled.decrypt, [2]

    def break_off(self: Keyring, stored: bytes, place: str) -> str:
        if not most[0]:
            raise KeyboardInterrupt
        most[0] -= 1
        return opened(stored, place)

    with monkeypatch.context() as broken:
        broken.setattr(Keyring, "decrypt", break_off)
        with pytest.raises(KeyboardInterrupt):
            rotation.rotate()
    db.session.rollback()
    assert key_ids() == {"1", "new"}
    assert rotation.rotate().rotated.total() == 11
    assert rotation.rotate().rotated.total() == 0
    assert key_ids() == {"new"}


def test_it_waits_for_nobody_and_says_what_it_passed_by(app: Flask, filled: Keyring) -> None:
    app.extensions["keyring"] = filled
    with app.app_context(), every_tenant():
        db.session.execute(text("UPDATE mail_servers SET port = 26 WHERE tenant_id = 1"))
        results: list[Any] = []
        command = threading.Thread(
            target=lambda: results.append(app.test_cli_runner().invoke(args=["secrets", "rotate"]))
        )
        command.start()
        command.join(timeout=4)
        assert results, "it waits for a row"
        db.session.commit()
    assert results[0].exit_code == 1
    assert "key 1: 1 secrets" in results[0].output
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0


def test_secrets_of_a_key_that_left_are_counted_and_left_alone(app: Flask, filled: Keyring) -> None:
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    result = app.test_cli_runner().invoke(args=["secrets", "rotate"])
    assert result.exit_code == 1
    assert "key 1: 13 secrets" in result.output
    app.extensions["keyring"] = filled
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0


def test_a_repeat_is_known_as_long_as_its_key_stays_and_sends_nothing_after(
    app: Flask, filled: Keyring, post: Post, peer: SmtpPeer
) -> None:
    app.extensions["keyring"] = filled
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0
    mails = len(peer.mails)
    assert post("user.created", WELCOME, id="welcome").json["duplicate"]
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    assert post("user.created", WELCOME, id="welcome").status_code == 409
    assert len(peer.mails) == mails


@pytest.mark.parametrize(
    "theft",
    [
        "SELECT password_encrypted FROM mail_servers WHERE tenant_id = 1",
        "SELECT password_encrypted FROM mail_servers WHERE tenant_id IS NULL",
        "SELECT secrets_encrypted FROM events",
        "SELECT line_encrypted FROM provisioning_tokens LIMIT 1",
    ],
    ids=["of another tenant", "of the system", "from events", "from tokens"],
)
def test_a_secret_that_was_moved_opens_neither_there_nor_by_rotation(
    app: Flask, filled: Keyring, globex: str, theft: str
) -> None:
    with app.app_context():
        sql(f"UPDATE mail_servers SET password_encrypted = ({theft}) WHERE tenant_id = 2")
        enter_scope(2)
        stolen = db.session.query(MailServer).one()
        with pytest.raises(UnreadableSecret):
            assert stolen.password
    app.extensions["keyring"] = filled
    result = app.test_cli_runner().invoke(args=["secrets", "rotate"])
    assert "key 1: 1 secrets" in result.output, "what does not open in its place is not made to"


def test_a_line_that_was_moved_to_another_tenant_does_not_open(context: Flask, filled: Keyring) -> None:
    sql("UPDATE provisioning_tokens SET tenant_id = 2")
    with every_tenant():
        row = db.session.query(ProvisioningToken).first()
        assert row is not None
        assert row.line_encrypted is not None
        with pytest.raises(UnreadableSecret):
            crypto.keyring().decrypt(row.line_encrypted, "provisioning_tokens.line:2")


def test_a_dump_is_opened_by_no_other_key(context: Flask, filled: Keyring) -> None:
    thief = Keyring({"1": base64.b64decode("B" * 43 + "=")})
    for (stored,) in sql("SELECT password_encrypted FROM mail_servers WHERE tenant_id = 1"):
        with pytest.raises(UnreadableSecret):
            thief.decrypt(stored, "mail_servers.password:1")
