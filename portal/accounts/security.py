"""Sign-in, sign-out and passwords, by Flask-Security."""

from datetime import timedelta
from typing import Any

from flask import Flask
from flask_security import MailUtil, Security, SQLAlchemyUserDatastore

from portal.accounts.models import Account, Role
from portal.config import Settings
from portal.extensions import db

datastore = SQLAlchemyUserDatastore(db, Account, Role)


def configuration(settings: Settings) -> dict[str, Any]:
    """Return what Flask-Security reads from the application's configuration."""
    secret = settings.secret_key.get_secret_value() if settings.secret_key else None
    return {
        "SECURITY_PASSWORD_SALT": secret,
        "SECURITY_PASSWORD_HASH": "argon2",
        "SECURITY_PASSWORD_LENGTH_MIN": 10,
        "SECURITY_RECOVERABLE": True,
        "SECURITY_CHANGEABLE": True,
        "SECURITY_RETURN_GENERIC_RESPONSES": True,
        "SECURITY_SEND_REGISTER_EMAIL": False,
        "SECURITY_LOGIN_URL": "/sign-in",
        "SECURITY_LOGOUT_URL": "/sign-out",
        "SECURITY_LOGOUT_METHODS": ["POST"],
        "SECURITY_CHANGE_URL": "/account/password",
        "SECURITY_RESET_URL": "/forgotten-password",
        "SECURITY_LOGIN_USER_TEMPLATE": "accounts/sign_in.html",
        "SECURITY_FORGOT_PASSWORD_TEMPLATE": "accounts/forgot_password.html",
        "SECURITY_RESET_PASSWORD_TEMPLATE": "accounts/reset_password.html",
        "SECURITY_CHANGE_PASSWORD_TEMPLATE": "accounts/change_password.html",
        "SECURITY_VERIFY_TEMPLATE": "accounts/verify.html",
        "SECURITY_POST_LOGIN_VIEW": "/",
        "SECURITY_POST_LOGOUT_VIEW": "/sign-in",
        "SECURITY_POST_CHANGE_VIEW": "/",
        "SECURITY_POST_RESET_VIEW": "/",
        "SECURITY_EMAIL_VALIDATOR_ARGS": {"check_deliverability": False, "globally_deliverable": False},
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET": "accounts/email/reset_instructions",
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET_NOTICE": "accounts/email/reset_notice",
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_CHANGE_NOTICE": "accounts/email/change_notice",
        "SECURITY_MSG_GENERIC_AUTHN_FAILED": ("The e-mail address or the password is not right.", "error"),
        "SECURITY_RESET_PASSWORD_WITHIN": timedelta(hours=2),
    }


def init_app(app: Flask, settings: Settings, mail_util: type[MailUtil]) -> None:
    """Bind Flask-Security, which mails through `mail_util`."""
    app.config.update(configuration(settings))
    Security(app, datastore, mail_util_cls=mail_util)
