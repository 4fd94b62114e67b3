"""Flask-Security, which signs accounts in and out, and changes and resets passwords."""

from datetime import timedelta
from typing import Any

from flask import Flask
from flask_security import MailUtil, Security, SQLAlchemyUserDatastore
from flask_security.babel import FsDomain

from portal.accounts import emails
from portal.accounts.forms import GenericForgotPasswordForm, NewPasswordForm, PasswordSignInForm, RescueForm
from portal.accounts.models import Account, Role
from portal.accounts.passwords import PASSWORD_HELP, PasswordContext, PasswordRules, SecretKeyHash
from portal.accounts.two_factor import CLOCK_TOLERANCE, RecoveryCodes, Totp
from portal.audit.labels import ROLE_LABELS
from portal.config import PRODUCT, Settings
from portal.extensions import db
from portal.web.library_texts import library_text

datastore = SQLAlchemyUserDatastore(db, Account, Role)
CONFIRMED_FOR = timedelta(minutes=15)  # how long a typed password is valid for what weakens an account


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Flask-Security's part of the application's configuration."""
    return {
        "SECURITY_PASSWORD_HASH": "argon2",
        "SECURITY_PASSWORD_SINGLE_HASH": True,  # no HMAC with a key: passwords outlive every key
        "SECURITY_PASSWORD_SCHEMES": ["argon2", SecretKeyHash(settings.secret_keys)],
        "SECURITY_HASHING_SCHEMES": ["hex_sha256"],  # of the password hash in a link, which need not be slow
        "SECURITY_API_ENABLED_METHODS": ["session"],
        "SECURITY_STATIC_FOLDER": None,
        "SECURITY_CLI_USERS_NAME": None,  # `pbx-portal accounts` is the portal's command
        "SECURITY_CLI_ROLES_NAME": None,
        "SECURITY_RECOVERABLE": True,
        "SECURITY_CHANGEABLE": True,
        "SECURITY_RETURN_GENERIC_RESPONSES": True,
        "SECURITY_SEND_REGISTER_EMAIL": False,
        "SECURITY_TWO_FACTOR": True,
        "SECURITY_TWO_FACTOR_ENABLED_METHODS": ["authenticator"],
        "SECURITY_TWO_FACTOR_AUTHENTICATOR_VALIDITY": CLOCK_TOLERANCE,
        "SECURITY_TWO_FACTOR_RESCUE_EMAIL": False,
        "SECURITY_MULTI_FACTOR_RECOVERY_CODES": True,
        "SECURITY_TOTP_SECRETS": {"1": "not used"},  # but required: see `two_factor.Totp`
        "SECURITY_TOTP_ISSUER": PRODUCT,
        "SECURITY_FRESHNESS": CONFIRMED_FOR,
        "SECURITY_FRESHNESS_GRACE_PERIOD": CONFIRMED_FOR,
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
        # No account has an address with other letters, and Postgres would take some of them for Latin ones.
        "SECURITY_EMAIL_VALIDATOR_ARGS": {
            "check_deliverability": False,
            "globally_deliverable": False,
            "allow_smtputf8": False,
        },
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET": emails.RESET_INSTRUCTIONS,
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_RESET_NOTICE": emails.PASSWORD_CHANGED,
        "SECURITY_EMAIL_TEMPLATE_PASSWORD_CHANGE_NOTICE": emails.PASSWORD_CHANGED,
        "SECURITY_EMAIL_PLAINTEXT": False,  # see `emails.render`
        "SECURITY_EMAIL_HTML": False,
        "SECURITY_RESET_PASSWORD_WITHIN": timedelta(hours=2),
    }


class SecurityTexts(FsDomain):
    """Flask-Security's texts, in the portal's words."""

    def gettext(self, string: str, **variables: object) -> str:
        """Return the text in the language of this request."""
        return library_text(string, **variables)


def init_app(app: Flask, settings: Settings, mail_util: type[MailUtil]) -> None:
    """Set up Flask-Security, which sends emails with `mail_util`. It serves only pages: no JSON and no tokens."""
    app.config.update(configuration(settings))
    security = Security(
        app,
        datastore,
        mail_util_cls=mail_util,
        password_util_cls=PasswordRules,
        totp_cls=Totp,
        mf_recovery_codes_util_cls=RecoveryCodes,
        login_form=PasswordSignInForm,
        reset_password_form=NewPasswordForm,
        forgot_password_form=GenericForgotPasswordForm,
        two_factor_rescue_form=RescueForm,
    )
    security.pwd_context = PasswordContext(**security.pwd_context.to_dict(resolve=True))
    security.i18n_domain = SecurityTexts(app)  # type: ignore[no-untyped-call]
    app.jinja_env.globals.update(password_help=PASSWORD_HELP, role_labels=ROLE_LABELS)
    security.want_json(lambda _request: False)
    security.login_manager.request_loader(None)
