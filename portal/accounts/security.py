"""Sign-in, sign-out, passwords and the second factor, by Flask-Security."""

from datetime import timedelta
from typing import Any

from flask import Flask
from flask_security import MailUtil, Security, SQLAlchemyUserDatastore

from portal.accounts.forms import ForgottenPasswordForm, RescueForm
from portal.accounts.models import Account, Role
from portal.accounts.passwords import HELP, Passwords
from portal.accounts.two_factor import WINDOW, RecoveryCodes, Totp
from portal.config import Settings
from portal.extensions import db
from portal.languages import to_translate
from portal.ui import PRODUCT

datastore = SQLAlchemyUserDatastore(db, Account, Role)
WRONG_PASSWORD = to_translate("The e-mail address or the password is not right.")
WRONG_CODE = to_translate("This code is not right, or was used already.")
FRESH = timedelta(minutes=15)  # after typing the password, for what weakens an account


def configuration(settings: Settings) -> dict[str, Any]:
    """Return what Flask-Security reads from the application's configuration."""
    secret = settings.secret_key.get_secret_value() if settings.secret_key else None
    return {
        "SECURITY_PASSWORD_SALT": secret,
        "SECURITY_PASSWORD_HASH": "argon2",
        "SECURITY_HASHING_SCHEMES": ["hex_sha256"],  # of a password's hash, in a link: nothing that must be slow
        "SECURITY_API_ENABLED_METHODS": ["session"],
        "SECURITY_STATIC_FOLDER": None,
        "SECURITY_RECOVERABLE": True,
        "SECURITY_CHANGEABLE": True,
        "SECURITY_RETURN_GENERIC_RESPONSES": True,
        "SECURITY_SEND_REGISTER_EMAIL": False,
        "SECURITY_TWO_FACTOR": True,
        "SECURITY_TWO_FACTOR_ENABLED_METHODS": ["authenticator"],
        "SECURITY_TWO_FACTOR_AUTHENTICATOR_VALIDITY": WINDOW,
        "SECURITY_TWO_FACTOR_RESCUE_EMAIL": False,
        "SECURITY_MULTI_FACTOR_RECOVERY_CODES": True,
        "SECURITY_TOTP_SECRETS": {"1": secret},  # asked for, and not used: see `two_factor.Totp`
        "SECURITY_TOTP_ISSUER": PRODUCT,
        "SECURITY_FRESHNESS": FRESH,
        "SECURITY_FRESHNESS_GRACE_PERIOD": FRESH,
        "SECURITY_LOGIN_URL": "/sign-in",
        "SECURITY_LOGOUT_URL": "/sign-out",
        "SECURITY_LOGOUT_METHODS": ["POST"],
        "SECURITY_CHANGE_URL": "/account/password",
        "SECURITY_RESET_URL": "/forgotten-password",
        "SECURITY_VERIFY_URL": "/account/confirm",
        "SECURITY_TWO_FACTOR_TOKEN_VALIDATION_URL": "/sign-in/code",
        "SECURITY_MULTI_FACTOR_RECOVERY_URL": "/sign-in/recovery-code",
        "SECURITY_LOGIN_USER_TEMPLATE": "accounts/sign_in.html",
        "SECURITY_FORGOT_PASSWORD_TEMPLATE": "accounts/forgot_password.html",
        "SECURITY_RESET_PASSWORD_TEMPLATE": "accounts/reset_password.html",
        "SECURITY_CHANGE_PASSWORD_TEMPLATE": "accounts/change_password.html",
        "SECURITY_VERIFY_TEMPLATE": "accounts/confirm.html",
        "SECURITY_TWO_FACTOR_VERIFY_CODE_TEMPLATE": "accounts/code.html",
        "SECURITY_MULTI_FACTOR_RECOVERY_TEMPLATE": "accounts/recovery_code.html",
        "SECURITY_POST_LOGIN_VIEW": "/",
        "SECURITY_POST_LOGOUT_VIEW": "/sign-in",
        "SECURITY_POST_CHANGE_VIEW": "/account",
        "SECURITY_POST_RESET_VIEW": "/",
        # An address with other letters is nobody's; Postgres would take some of them for Latin ones.
        "SECURITY_EMAIL_VALIDATOR_ARGS": {
            "check_deliverability": False,
            "globally_deliverable": False,
            "allow_smtputf8": False,
        },
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET": "accounts/email/reset_instructions",
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET_NOTICE": "accounts/email/reset_notice",
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_CHANGE_NOTICE": "accounts/email/change_notice",
        "SECURITY_MSG_GENERIC_AUTHN_FAILED": (WRONG_PASSWORD, "error"),
        "SECURITY_MSG_TWO_FACTOR_INVALID_TOKEN": (WRONG_CODE, "error"),
        "SECURITY_MSG_INVALID_RECOVERY_CODE": (WRONG_CODE, "error"),
        "SECURITY_MSG_TWO_FACTOR_PERMISSION_DENIED": (to_translate("Sign in with your password first."), "error"),
        "SECURITY_MSG_TWO_FACTOR_LOGIN_SUCCESSFUL": (to_translate("You are signed in."), "success"),
        "SECURITY_MSG_REAUTHENTICATION_SUCCESSFUL": (to_translate("Thank you. Go on."), "success"),
        "SECURITY_RESET_PASSWORD_WITHIN": timedelta(hours=2),
    }


def init_app(app: Flask, settings: Settings, mail_util: type[MailUtil]) -> None:
    """Bind Flask-Security, which mails through `mail_util`. It answers people, in pages, and knows no tokens."""
    app.config.update(configuration(settings))
    security = Security(
        app,
        datastore,
        mail_util_cls=mail_util,
        password_util_cls=Passwords,
        totp_cls=Totp,
        mf_recovery_codes_util_cls=RecoveryCodes,
        forgot_password_form=ForgottenPasswordForm,
        two_factor_rescue_form=RescueForm,
    )
    app.jinja_env.globals["password_help"] = HELP
    security.want_json(lambda _request: False)
    security.login_manager.request_loader(None)
