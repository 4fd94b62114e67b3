"""Two-factor authentication: codes of an authenticator app (TOTP, RFC 6238), and recovery codes if it is lost."""

import base64
import binascii
import secrets
from typing import Any, Final

from flask import current_app
from flask_babel import gettext
from flask_security import MfRecoveryCodesUtil
from flask_security import Totp as FlaskSecurityTotp
from passlib.exc import TokenError, UsedTokenError
from passlib.totp import TotpMatch
from sqlalchemy import CursorResult, any_, func, literal, or_, update

from portal import crypto
from portal.accounts import emails
from portal.accounts.models import Account
from portal.accounts.service import requires_two_factor
from portal.audit.log import record
from portal.crypto import hash_token
from portal.errors import Refusal
from portal.extensions import db

CLOCK_TOLERANCE: Final = 30  # seconds by which a clock may be wrong: one time step (RFC 6238, section 5.2)
RECOVERY_CODE_COUNT: Final = 10
RECOVERY_CODE_BYTES: Final = 10  # 80 bits: a stored hash cannot be guessed


class Totp(FlaskSecurityTotp):
    """Codes that are accepted only once. Secrets are encrypted by the model, not here."""

    def generate_totp_secret(self) -> str:
        """Return a new secret."""
        return str(self._totp.new().to_json(encrypt=False))

    def match(self, code: str, secret: str) -> int | None:
        """Return the time step that the code belongs to, or None if it is wrong."""
        try:
            return int(self._totp.verify(code, secret, window=CLOCK_TOLERANCE).counter)
        except TokenError:
            return None

    def get_last_counter(self, user: Any) -> int | None:
        """Return the time step of the account's last code."""
        counter: int | None = user.totp_counter
        return counter

    def set_last_counter(self, user: Any, tmatch: TotpMatch) -> None:
        """Mark the code as used. Raise UsedTokenError if another request has used it."""
        use_code = (
            update(Account)
            .where(Account.id == user.id, or_(Account.totp_counter.is_(None), Account.totp_counter < tmatch.counter))
            .values(totp_counter=tmatch.counter)
        )
        if not _updates_a_row(use_code):
            raise UsedTokenError


class RecoveryCodes(MfRecoveryCodesUtil):
    """Recovery codes. Only their hashes are stored."""

    def check_recovery_code(self, user: Any, code: str) -> bool:
        """Use up the code, and return whether it was valid."""
        hashed = _hash(code)
        codes = Account.mf_recovery_codes
        use_code = update(Account).where(Account.id == user.id, literal(hashed) == any_(codes))
        return _updates_a_row(use_code.values(mf_recovery_codes=func.array_remove(codes, hashed)))

    def delete_recovery_code(self, user: Any, code: str) -> bool:  # noqa: ARG002 (Flask-Security's signature)
        """Return True: checking the code used it up."""
        return True


def propose_secret(account: Account) -> tuple[str, str]:
    """Return a new secret for the account, and the same encrypted for the session cookie until it is confirmed."""
    secret = _totp().generate_totp_secret()
    encrypted = crypto.keyring().encrypt(secret, _proposed_secret_place(account))
    return secret, base64.urlsafe_b64encode(encrypted).decode()


def open_proposed_secret(account: Account, encrypted: str | None) -> str | None:
    """Return the secret that `propose_secret` encrypted for this account, or None if it did not."""
    try:
        return crypto.keyring().decrypt(base64.urlsafe_b64decode(encrypted or ""), _proposed_secret_place(account))
    except (crypto.UnreadableSecret, binascii.Error):
        return None


def authenticator_setup(account: Account, secret: str) -> tuple[str, str]:
    """Return what sets up the account's authenticator app: the `otpauth:` URI, or the secret as a key to type."""
    return _totp().get_totp_uri(account.email, secret), _totp().get_totp_pretty_key(secret)


def turn_on(account: Account, secret: str, code: str) -> list[str] | Refusal:
    """Turn two-factor authentication on if the code proves that the app has the secret. Return recovery codes."""
    counter = _totp().match(code, secret)
    if counter is None:
        return Refusal(
            "code", gettext("This code is incorrect. Wait for the next one, and check the clock of your phone.")
        )
    account.tf_totp_secret, account.totp_counter = secret, counter
    record("account.two_factor_on", account.email)
    codes = _new_recovery_codes(account)
    emails.send(emails.TWO_FACTOR_ON, account)
    return codes


def renew_recovery_codes(account: Account) -> list[str]:
    """Return new recovery codes. The old ones stop working."""
    record("account.new_recovery_codes", account.email)
    codes = _new_recovery_codes(account)
    emails.send(emails.NEW_RECOVERY_CODES, account)
    return codes


def _new_recovery_codes(account: Account) -> list[str]:
    texts = (base64.b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode() for _ in range(RECOVERY_CODE_COUNT))
    codes = ["-".join(text.lower()[start : start + 4] for start in range(0, len(text), 4)) for text in texts]
    account.mf_recovery_codes = [_hash(code) for code in codes]
    db.session.commit()
    return codes


def turn_off(account: Account) -> Refusal | None:
    """Turn two-factor authentication off, unless it is required."""
    if requires_two_factor():
        return Refusal("", gettext("Your system administrator requires two-factor authentication."))
    _remove(account)
    record("account.two_factor_off", account.email)
    db.session.commit()
    emails.send(emails.TWO_FACTOR_OFF, account)
    return None


def reset(account: Account, tenant_id: int | None = None) -> None:
    """Turn two-factor authentication off for someone who lost the app and the recovery codes.

    `tenant_id` is the tenant whose audit trail shows it.
    """
    _remove(account)
    record("account.two_factor_reset", account.email, tenant_id=tenant_id)
    db.session.commit()
    emails.send(emails.TWO_FACTOR_RESET, account)


def _remove(account: Account) -> None:
    account.tf_totp_secret, account.mf_recovery_codes = None, []


def _totp() -> Totp:
    factory: Totp = current_app.extensions["security"].totp_factory
    return factory


def _updates_a_row(statement: Any) -> bool:
    result: CursorResult[Any] = db.session.execute(statement.execution_options(synchronize_session=False))  # type: ignore[assignment]
    return result.rowcount == 1


def _hash(code: str) -> bytes:
    return hash_token("".join(filter(str.isalnum, code)).lower())


def _proposed_secret_place(account: Account) -> str:
    return f"accounts.proposed_totp_secret:{account.id}"
