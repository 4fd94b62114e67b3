"""The second factor: the code of an authenticator (TOTP, RFC 6238), and recovery codes for who lost it."""

import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import Any, Final

from flask import current_app
from flask_babel import gettext
from flask_security import MfRecoveryCodesUtil
from flask_security import Totp as FlaskSecurityTotp
from passlib.exc import TokenError, UsedTokenError
from passlib.totp import TotpMatch
from sqlalchemy import CursorResult, any_, func, literal, or_, select, update

from portal import crypto
from portal.accounts.models import Account
from portal.accounts.policy import requires_two_factor
from portal.crypto import hash_token
from portal.errors import Refusal
from portal.extensions import db

WINDOW: Final = 30  # seconds that a clock may be wrong: one step (RFC 6238, section 5.2)
RECOVERY_CODES: Final = 10
RECOVERY_CODE_BYTES: Final = 10  # 80 bits: a stored hash cannot be guessed


class Totp(FlaskSecurityTotp):
    """Codes that are accepted once. Secrets are encrypted where they are stored, and not here."""

    def generate_totp_secret(self) -> str:
        """Return a new secret."""
        return str(self._totp.new().to_json(encrypt=False))

    def match(self, code: str, secret: str) -> int | None:
        """Return the time step to which the code belongs, None where it is wrong."""
        try:
            return int(self._totp.verify(code, secret, window=WINDOW).counter)
        except TokenError:
            return None

    def get_last_counter(self, user: Any) -> int | None:
        """Return the time step of the account's last code."""
        counter: int | None = user.totp_counter
        return counter

    def set_last_counter(self, user: Any, tmatch: TotpMatch) -> None:
        """Spend the code, whoever else is about to.

        Raises:
            UsedTokenError: another request spent it.
        """
        spend = (
            update(Account)
            .where(Account.id == user.id, or_(Account.totp_counter.is_(None), Account.totp_counter < tmatch.counter))
            .values(totp_counter=tmatch.counter)
        )
        if not _changes(spend):
            raise UsedTokenError


class RecoveryCodes(MfRecoveryCodesUtil):
    """Recovery codes, of which only hashes are stored."""

    def check_recovery_code(self, user: Any, code: str) -> bool:
        """Spend the code, and return whether there was one to spend."""
        hashed = _hash(code)
        codes = Account.mf_recovery_codes
        spend = update(Account).where(Account.id == user.id, literal(hashed) == any_(codes))
        return _changes(spend.values(mf_recovery_codes=func.array_remove(codes, hashed)))

    def delete_recovery_code(self, user: Any, code: str) -> bool:  # noqa: ARG002 (Flask-Security's signature)
        """Return True: the code is spent already."""
        return True


def propose(account: Account) -> tuple[str, str]:
    """Return a new secret for the account, also sealed, so that the cookie can carry it until it is confirmed."""
    secret = _totp().generate_totp_secret()
    sealed = crypto.keyring().encrypt(secret, _place(account))
    return secret, base64.urlsafe_b64encode(sealed).decode()


def open_proposal(account: Account, sealed: str | None) -> str | None:
    """Return the secret that `propose` sealed for this account, None where it did not."""
    try:
        return crypto.keyring().decrypt(base64.urlsafe_b64decode(sealed or ""), _place(account))
    except (crypto.UnreadableSecret, binascii.Error):
        return None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an authenticator is given: the `otpauth:` address, or the secret alone, to type."""

    address: str
    key: str


def describe(account: Account, secret: str) -> Proposal:
    """Return what the account's authenticator is given."""
    return Proposal(_totp().get_totp_uri(account.email, secret), _totp().get_totp_pretty_key(secret))


def turn_on(account: Account, secret: str, code: str) -> list[str] | Refusal:
    """Return recovery codes if the code shows that the authenticator has the secret. From now on it is asked for."""
    counter = _totp().match(code, secret)
    if counter is None:
        return Refusal(
            "code", gettext("This code is not right. Wait for the next one, and check the clock of your phone.")
        )
    account.tf_totp_secret, account.totp_counter = secret, counter
    return renew_recovery_codes(account)


def renew_recovery_codes(account: Account) -> list[str]:
    """Return new recovery codes. The older ones are worth nothing any more."""
    codes = [_readable(secrets.token_bytes(RECOVERY_CODE_BYTES)) for _ in range(RECOVERY_CODES)]
    account.mf_recovery_codes = [_hash(code) for code in codes]
    db.session.commit()
    return codes


def turn_off(account: Account) -> Refusal | None:
    """Let the account sign in with its password alone."""
    if requires_two_factor():
        return Refusal("", gettext("Your system administrator requires two-factor authentication."))
    _forget(account)
    return None


def reset(email: str) -> Account | Refusal:
    """Return the account, without its second factor: for somebody who lost it, and the recovery codes too."""
    account = db.session.scalar(select(Account).where(Account.email == email.strip().lower()))
    if account is None:
        return Refusal("email", f"There is no account {email}.")
    _forget(account)
    return account


def _forget(account: Account) -> None:
    account.tf_totp_secret, account.mf_recovery_codes = None, []
    db.session.commit()


def _totp() -> Totp:
    factory: Totp = current_app.extensions["security"].totp_factory
    return factory


def _changes(statement: Any) -> bool:
    result: CursorResult[Any] = db.session.execute(statement.execution_options(synchronize_session=False))  # type: ignore[assignment]
    return result.rowcount == 1


def _readable(code: bytes) -> str:
    text = base64.b32encode(code).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash(code: str) -> bytes:
    return hash_token("".join(filter(str.isalnum, code)).lower())


def _place(account: Account) -> str:
    return f"accounts.proposed_totp_secret:{account.id}"
