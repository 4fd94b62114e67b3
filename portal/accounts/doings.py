"""What the audit trail is told about signing in, signing out and passwords, which Flask-Security does."""

from flask import Flask, g
from flask_login import user_logged_out
from flask_security import password_changed, password_reset, user_authenticated, user_failed_authn

from portal.accounts.models import Account
from portal.audit.entries import note
from portal.extensions import db

UNKNOWN = "an address that has no account"  # never what was typed: people type passwords there


def init_app(app: Flask) -> None:
    """Listen to Flask-Security."""
    user_authenticated.connect(_signed_in, app)
    user_logged_out.connect(_signed_out, app)
    user_failed_authn.connect(_failed, app)
    password_changed.connect(_password_changed, app)
    password_reset.connect(_password_reset, app)


def failed() -> Account | None:
    """Return the account as which somebody failed to sign in during this request."""
    account: Account | None = g.get("failed_account")
    return account


def note_failed_sign_in(account: Account | None) -> None:
    """Tell that somebody failed to sign in, as nobody that is known for None."""
    note("account.sign_in_failed", account.email if account else UNKNOWN)
    db.session.commit()


# Flask-Security commits after these.


def _signed_in(_app: Flask, authn_via: list[str] | None, **_: object) -> None:
    if "change" not in (authn_via or ()):  # a new session with a new password is no sign-in
        note("account.signed_in")


def _password_changed(_app: Flask, user: Account, **_: object) -> None:
    note("account.password_changed", user.email)


def _password_reset(_app: Flask, user: Account, **_: object) -> None:
    note("account.password_reset", user.email)


def _failed(_app: Flask, user: Account, **_: object) -> None:
    g.failed_account = user


def _signed_out(_app: Flask, **_: object) -> None:
    note("account.signed_out")
    db.session.commit()
