"""Encrypted columns: rotation covers all of them, works while the portal runs, and values cannot be moved."""

import base64
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import LargeBinary, text

from portal import crypto, key_rotation
from portal.accounts import kept_forms
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.crypto import Keyring, UnreadableSecret
from portal.database.scope import enter_scope, every_tenant
from portal.deliveries.models import RecordedEvent
from portal.extensions import Base, db
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.client import AuthMode
from portal.pbx import api_keys
from portal.provisioning.models import ProvisioningToken
from portal.tenants import service as tenant_service
from tests.pages import PASSWORD
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, entered, key, peer, post, working_tenant

pytestmark = pytest.mark.slow

__all__ = ["key", "peer", "post", "working_tenant"]

WELCOME = {"extension_number": "101", "extension_password": "s3cret-sip", "email": "ann@acme.example"}
HASH_NAMES = ("_hash", "fingerprint")


@pytest.fixture
def filled(app: Flask, post: Post, working_tenant: str, globex: str, peer: SmtpPeer) -> Iterator[Keyring]:
    """Secrets of two tenants and of the system in every encrypted column. Returns a key ring with a new current key."""
    peer.script = {"dot": "451 later"}
    assert post("user.created", WELCOME, id="welcome").json["status"] == "deferred"
    signing_in = {"auth_mode": AuthMode.PLAIN, "username": "pbx", "password": "p@ss-mail"}
    before = app.extensions["keyring"]
    with app.app_context():
        for domain in (working_tenant, globex, None):
            tenant = tenant_service.find(domain) if domain else None
            saved = mail_server_settings.save(tenant.id if tenant else None, entered(peer.port, **signing_in))
            assert isinstance(saved, MailServer)
            connection = OAuthConnection(
                tenant_id=saved.tenant_id, provider="microsoft", grant_type="client_credentials"
            )
            for column in ("client_secret", "private_key", "refresh_token", "access_token"):
                connection.write_secret(column, f"{column} of {domain}")
            db.session.add(connection)
            issued = api_keys.issue(tenant, signed=True)
            api_keys.renew_secret(issued.row, timedelta(days=1))
        account = account_service.add("admin@acme.example", PASSWORD, system_administrator=True)
        assert isinstance(account, Account)
        account.tf_totp_secret = "JBSWY3DPEHPK3PXP"
        kept_forms.keep(account, "/tenants/acme.example/mail-server", [("host", "mail.acme.example")])
        db.session.commit()
    yield Keyring({"new": b"n" * 32} | before.keys)
    app.extensions["keyring"] = before


def key_ids() -> set[str]:
    """Return the ids of the keys that encrypt the secrets in the database."""
    ids = set()
    for column in key_rotation.encrypted_columns():
        values = sql(f"SELECT {column.name} FROM {column.table.name} WHERE {column.name} IS NOT NULL")
        assert values, column
        ids |= {crypto.key_id_of(value) for (value,) in values}
    return ids


def test_rotation_covers_every_encrypted_column() -> None:
    """Every column of bytes is a hash, by its name, or is marked with `crypto.encrypted`."""
    known = set(key_rotation.encrypted_columns())
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column in known:
                assert len(table.primary_key.columns) == 1, f"{column}: rotation needs a primary key of one column"
            elif isinstance(column.type, LargeBinary):
                assert column.name.endswith(HASH_NAMES), f"rotation does not cover {column}"
            assert column in known or "encrypted" not in column.name, f"rotation does not cover {column}"
    assert len(known) >= 3


def test_every_secret_is_reencrypted_with_the_current_key(app: Flask, filled: Keyring) -> None:
    assert key_ids_of(app) == {"1"}
    app.extensions["keyring"] = filled
    result = app.test_cli_runner().invoke(args=["secrets", "rotate"])
    assert result.exit_code == 0, result.output
    assert "mail_servers.password_encrypted: 3 re-encrypted" in result.output
    assert "oauth_connections.refresh_token_encrypted: 3 re-encrypted" in result.output
    what = "3 passwords, 12 for OAuth, an event, 2 tokens, 6 for signing, a TOTP, a kept form"
    assert "key new: 26 secrets" in result.output, what
    assert key_ids_of(app) == {"new"}
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    with app.app_context(), every_tenant():
        assert {each.password for each in db.session.query(MailServer)} == {"p@ss-mail"}
        tokens = {each.read_secret("access_token") for each in db.session.query(OAuthConnection)}
        assert tokens == {f"access_token of {domain}" for domain in ("acme.example", "globex.example", None)}
        (event,) = db.session.query(RecordedEvent)
        secrets = RecordedEvent.decrypt_secrets(event.secrets_encrypted, event.tenant_id, event.id)
        assert secrets["extension_password"] == "s3cret-sip"


def key_ids_of(app: Flask) -> set[str]:
    with app.app_context():
        return key_ids()


def test_an_interrupted_rotation_continues_and_repeats_nothing(
    context: Flask, filled: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_rotation, "BATCH_SIZE", 1)
    context.extensions["keyring"] = filled
    decrypt, remaining = filled.decrypt, [2]

    def interrupt(self: Keyring, stored: bytes, context: str) -> str:
        if not remaining[0]:
            raise KeyboardInterrupt
        remaining[0] -= 1
        return decrypt(stored, context)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Keyring, "decrypt", interrupt)
        with pytest.raises(KeyboardInterrupt):
            key_rotation.rotate()
    db.session.rollback()
    assert key_ids() == {"1", "new"}
    assert key_rotation.rotate().rotated.total() == 24
    assert key_rotation.rotate().rotated.total() == 0
    assert key_ids() == {"new"}


def test_locked_rows_are_skipped_and_counted(app: Flask, filled: Keyring) -> None:
    app.extensions["keyring"] = filled
    with app.app_context(), every_tenant():
        db.session.execute(text("UPDATE mail_servers SET port = 26 WHERE tenant_id = 1"))
        results: list[Any] = []
        command = threading.Thread(
            target=lambda: results.append(app.test_cli_runner().invoke(args=["secrets", "rotate"]))
        )
        command.start()
        command.join(timeout=60)
        assert results, "rotation waits for a locked row"
        db.session.commit()
    assert results[0].exit_code == 1
    assert "key 1: 1 secrets" in results[0].output
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0


def test_secrets_of_a_removed_key_are_counted_and_kept(app: Flask, filled: Keyring) -> None:
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    result = app.test_cli_runner().invoke(args=["secrets", "rotate"])
    assert result.exit_code == 1
    assert "key 1: 26 secrets" in result.output
    app.extensions["keyring"] = filled
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0


def test_a_repeated_event_is_recognized_as_long_as_its_key_is_kept(
    app: Flask, filled: Keyring, post: Post, peer: SmtpPeer
) -> None:
    app.extensions["keyring"] = filled
    assert app.test_cli_runner().invoke(args=["secrets", "rotate"]).exit_code == 0
    mails = len(peer.messages)
    assert post("user.created", WELCOME, id="welcome").json["duplicate"]
    app.extensions["keyring"] = Keyring({"new": filled.keys["new"]})
    assert post("user.created", WELCOME, id="welcome").status_code == 409
    assert len(peer.messages) == mails


@pytest.mark.parametrize(
    "theft",
    [
        "SELECT password_encrypted FROM mail_servers WHERE tenant_id = 1",
        "SELECT password_encrypted FROM mail_servers WHERE tenant_id IS NULL",
        "SELECT refresh_token_encrypted FROM oauth_connections WHERE tenant_id = 2",
        "SELECT secrets_encrypted FROM events",
        "SELECT sip_account_encrypted FROM provisioning_tokens LIMIT 1",
    ],
    ids=["of another tenant", "of the system", "from a connection", "from events", "from tokens"],
)
def test_a_moved_secret_is_decrypted_neither_there_nor_by_rotation(
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
    assert "key 1: 1 secrets" in result.output, "it is not re-encrypted for its new context"


def test_a_sip_account_that_was_moved_to_another_tenant_is_not_decrypted(context: Flask, filled: Keyring) -> None:
    sql("UPDATE provisioning_tokens SET tenant_id = 2")
    with every_tenant():
        row = db.session.query(ProvisioningToken).first()
        assert row is not None
        assert row.sip_account_encrypted is not None
        with pytest.raises(UnreadableSecret):
            crypto.keyring().decrypt(row.sip_account_encrypted, "provisioning_tokens.sip_account:2")


def test_a_dump_is_decrypted_by_no_other_key(context: Flask, filled: Keyring) -> None:
    thief = Keyring({"1": base64.b64decode("B" * 43 + "=")})
    for (stored,) in sql("SELECT password_encrypted FROM mail_servers WHERE tenant_id = 1"):
        with pytest.raises(UnreadableSecret):
            thief.decrypt(stored, "mail_servers.password:1")
