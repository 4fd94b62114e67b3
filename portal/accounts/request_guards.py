"""Request guards: authentication, rate limits, mandatory two-factor setup, and sessions that can be ended."""

import inspect
import time
from http import HTTPStatus
from typing import Final, NamedTuple

from flask import Flask, Response, after_this_request, current_app, flash, g, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import user_logged_in, user_logged_out
from flask_security import current_user, password_changed, password_reset, user_authenticated, user_failed_authn
from flask_security.utils import set_request_attr
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from portal import config
from portal.accounts import email_change, kept_forms, known_browsers, rate_limits, sessions
from portal.accounts import service as account_service
from portal.accounts.access import (
    SIGN_IN_PAGES,
    current_account,
    is_closed,
    is_polled,
    is_public,
    note_view,
    saving_endpoint,
)
from portal.accounts.models import Account
from portal.accounts.passwords import HASHING
from portal.accounts.rate_limits import (
    ACCOUNT,
    ACCOUNT_AND_BROWSER,
    ACCOUNT_AND_IP_ADDRESS,
    HOUR,
    IP_ADDRESS,
    MINUTE,
    Limit,
    Rule,
)
from portal.accounts.single_sign_on import identities
from portal.audit.labels import UNKNOWN_ACCOUNT, UNKNOWN_ACTOR
from portal.audit.log import Actor, record, set_actor
from portal.database import clock
from portal.extensions import db
from portal.web.errors import error_page, is_about_origin
from portal.web.forms import MAX_EMAIL_LENGTH
from portal.web.responses import respond

ACCOUNT_SESSION: Final = "account_session"  # in the cookie: the token of the `AccountSession`
PROVEN_IDENTITY: Final = "proven_identity"  # in the cookie: a `ProvenIdentity`, while the code is missing
PROVIDER_TWO_FACTOR: Final = "provider_two_factor"  # in the cookie: the provider has asked for a second factor
FLASK_LOGIN_KEYS: Final = ("_user_id", "_fresh", "_id")  # in the cookie: Flask-Login's own
HASHING_PAGES: Final = {
    *("security.login", "security.reset_password", "security.verify", "security.change_password"),
    "invitation.accept",
}
PASSWORD_PAGES: Final = {"security.verify", "security.change_password"}
CODE_PAGES: Final = ("security.two_factor_token_validation", "security.mf_recovery")

# The limits on an account from one IP address are the smallest, so that someone who guesses a password locks out only
# themselves. The limit of 100 on an account is from NIST SP 800-63B-4, section 3.2.2. If many IP addresses together
# reach it, the owner can still sign in with a browser that has signed in before.
SIGN_IN: Final = Rule(
    "sign-in",
    (
        Limit(100, HOUR, ACCOUNT),
        Limit(60, 15 * MINUTE, IP_ADDRESS),
        Limit(10, 15 * MINUTE, ACCOUNT_AND_IP_ADDRESS),
        Limit(10, 15 * MINUTE, ACCOUNT_AND_BROWSER),
    ),
)
# The client already knows the password. Three codes of a million are right at any time.
SECOND_FACTOR: Final = Rule(
    "second factor",
    (Limit(10, HOUR, ACCOUNT), Limit(60, 15 * MINUTE, IP_ADDRESS), Limit(10, HOUR, ACCOUNT_AND_BROWSER)),
)
FORGOT_PASSWORD: Final = Rule(
    "forgot password",
    (
        Limit(10, HOUR, ACCOUNT),
        Limit(30, HOUR, IP_ADDRESS),
        Limit(3, HOUR, ACCOUNT_AND_IP_ADDRESS),
        Limit(3, HOUR, ACCOUNT_AND_BROWSER),
    ),
)
ONE_TIME_LINK: Final = Rule("one-time link", (Limit(30, HOUR, ACCOUNT), Limit(30, HOUR, IP_ADDRESS)))
# Someone who found a signed-in browser and guesses the password.
CONFIRM_PASSWORD: Final = Rule(
    "confirm password", (Limit(10, 15 * MINUTE, ACCOUNT), Limit(60, 15 * MINUTE, IP_ADDRESS))
)
RATE_LIMITS: Final = {
    "security.login": SIGN_IN,
    **dict.fromkeys(CODE_PAGES, SECOND_FACTOR),
    "security.forgot_password": FORGOT_PASSWORD,
    "security.reset_password": ONE_TIME_LINK,
    "invitation.accept": ONE_TIME_LINK,
    "account.confirm_email": ONE_TIME_LINK,
    "security.verify": CONFIRM_PASSWORD,
    "security.change_password": CONFIRM_PASSWORD,
}
FIRST_FACTOR_AT: Final = "first_factor_at"  # in the cookie: when the password was entered, while the code was missing
SECOND_FACTOR_TIMEOUT: Final = 600  # seconds
FIRST_FACTOR_PAGES: Final = {"security.login", "single_sign_on.finish"}
ALLOWED_BEFORE_TWO_FACTOR: Final = {"account.set_up_two_factor", "security.verify", "security.logout"}


class ProvenIdentity(NamedTuple):
    """The person at the provider who has just signed in, and whether with two factors that are trusted."""

    account_id: int
    subject: str
    two_factor: bool


def init_app(app: Flask) -> None:
    """Guard every request, and tie each signed-in browser to a session that can be ended."""
    app.before_request(lambda: set_actor(_request_actor))
    manager = app.login_manager  # type: ignore[attr-defined]
    manager.user_loader(_load_account)
    app.before_request(_guard)
    app.register_error_handler(CSRFError, _csrf_failed)
    app.before_request(_expire_first_factor)
    app.after_request(_remember_first_factor)
    app.after_request(_forbid_caching)
    app.after_request(_forget_answered_form)
    app.after_request(_record_failed_sign_in)
    user_authenticated.connect(_record_sign_in, app)
    user_failed_authn.connect(_note_failed_sign_in, app)
    user_logged_in.connect(_start_session, app)
    user_logged_out.connect(_end_session, app)
    password_changed.connect(_password_changed, app)
    password_reset.connect(_password_reset, app)


def _guard() -> ResponseReturnValue | None:
    """Return a response that replaces the view's, or None."""
    endpoint = request.endpoint or ""
    note_view(current_app, endpoint, request.method)
    if not is_public(current_app, request.endpoint):
        if not current_user.is_authenticated:
            return _ask_to_sign_in()
        if is_closed(endpoint):
            raise NotFound
        if _needs_two_factor(endpoint):
            return redirect(url_for("account.set_up_two_factor"))
        if endpoint in PASSWORD_PAGES and not account_service.has_usable_password(current_account()):
            return _answer_without_password(endpoint)
    elif endpoint in CODE_PAGES and current_user.is_authenticated:
        return redirect(url_for("tenants.home"))  # Flask-Security would sign the account out
    if request.method == "POST" and endpoint in RATE_LIMITS:
        _enforce_rate_limit(endpoint)
    return None


def _answer_without_password(endpoint: str) -> ResponseReturnValue:
    """Return a response for an account that has no password to change or to confirm."""
    if endpoint == "security.change_password":
        return redirect(url_for("account.security"), 303)
    minutes = int(current_app.config["SECURITY_FRESHNESS"].total_seconds() // 60)
    return respond("accounts/sign_in_again.html", minutes=minutes)


def _ask_to_sign_in() -> ResponseReturnValue:
    sender = _form_sender()
    if sender is not None and _is_kept():
        flash(gettext("You were signed out. Sign in again: your changes were kept."), "info")
        return redirect(url_for("security.login", next=_keep_form(sender)), 303)
    if request.htmx:  # type: ignore[attr-defined]
        # A sign-in form does not fit in a fragment's place: make the browser reload the whole page.
        return "", 401, {"HX-Refresh": "true"}
    if request.method == "POST":  # which cannot be where the browser goes after signing in
        flash(gettext("You were signed out, and nothing was changed. Sign in, then try again."), "info")
        return redirect(url_for("security.login"), 303)
    response: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
    return response


def _csrf_failed(error: CSRFError) -> ResponseReturnValue:
    """Keep a form whose session has ended, or that is of another session of the account. Others are rejected."""
    if is_about_origin(error):
        return error_page(error)
    if _can_be_shown_again():
        return _show_again()
    sender = _form_sender()
    if sender is None:
        return error_page(error)
    if not current_user.is_authenticated:
        return _ask_to_sign_in()
    return redirect(_keep_form(sender), 303) if sender == current_account() and _is_kept() else error_page(error)


def _can_be_shown_again() -> bool:
    """Return whether the form is one for signing in, and such as its page sends it: the guards have not checked it."""
    if request.endpoint not in SIGN_IN_PAGES or current_user.is_authenticated:
        return False
    return not request.is_json and len(_typed_email()) <= MAX_EMAIL_LENGTH


def _show_again() -> ResponseReturnValue:
    """Show a form of Flask-Security with the email address that was typed.

    Its view is run without the decorator that rejects the request. The form itself checks the token again, and does
    nothing without a valid one.
    """
    flash(gettext("This page was open for too long. Fill in the form again, then send it."), "error")
    view = inspect.unwrap(current_app.view_functions[request.endpoint or ""])
    response = current_app.make_response(view(**(request.view_args or {})))
    if response.status_code == HTTPStatus.OK:
        response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    return response


def _form_sender() -> Account | None:
    """Return the account on whose page the submitted form was."""
    if request.method != "POST":
        return None
    return kept_forms.account_of_token(request.form.get("csrf_token") or request.headers.get("X-CSRFToken") or "")


def _is_kept() -> bool:
    return saving_endpoint(current_app, request.endpoint) is not None


def _keep_form(sender: Account) -> str:
    """Keep the submitted form, and return the URL at which it is shown to its account."""
    endpoint = saving_endpoint(current_app, request.endpoint) or ""
    path = url_for(endpoint, **(request.view_args or {}))
    form = kept_forms.keep(sender, path, request.form.items(multi=True))
    _forget_kept_form(sender)
    return url_for("account.kept_form", form_id=form.id)


def _forget_answered_form(response: Response) -> Response:
    """Delete a kept form that was sent again. What was not accepted is in the form of the answer."""
    is_answered = response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and response.status_code != BadRequest.code
    if request.method == "POST" and _is_kept() and is_answered and current_user.is_authenticated:
        _forget_kept_form(current_account())
    return response


def _forget_kept_form(account: Account) -> None:
    if form_id := request.form.get(kept_forms.KEPT_FORM):
        kept_forms.forget(account, form_id)


def _needs_two_factor(endpoint: str) -> bool:
    return (
        endpoint not in ALLOWED_BEFORE_TWO_FACTOR
        and not current_account().has_two_factor
        and not session.get(PROVIDER_TWO_FACTOR)
        and account_service.requires_two_factor()
    )


def _expire_first_factor() -> None:
    """Require the first factor again if it was proven too long ago."""
    if request.endpoint == "security.login":
        session.pop(PROVEN_IDENTITY, None)  # another way to sign in has begun
    if request.endpoint in CODE_PAGES and time.time() - session.get(FIRST_FACTOR_AT, 0) > SECOND_FACTOR_TIMEOUT:
        session.pop("tf_user_id", None)


def _remember_first_factor(response: Response) -> Response:
    if request.endpoint in FIRST_FACTOR_PAGES and "tf_user_id" in session:
        session[FIRST_FACTOR_AT] = time.time()
    return response


def _enforce_rate_limit(endpoint: str) -> None:
    if request.is_json:  # Flask-Security would read its form from it, and the account would not be known here
        raise UnsupportedMediaType
    if endpoint in HASHING_PAGES:
        HASHING.check()  # a flood costs little, and does not use up its victims' limits
    account = _named_account(endpoint)
    if len(account) > MAX_EMAIL_LENGTH:  # looking it up would take a second
        raise BadRequest
    browser = known_browsers.find(_known_browser_cookie(), account)
    rate_limits.enforce(RATE_LIMITS[endpoint], account=account, ip_address=request.remote_addr or "", browser=browser)


def _known_browser_cookie() -> str | None:
    return request.cookies.get(known_browsers.cookie_name())


def _named_account(endpoint: str) -> str:
    """Return what identifies the account in the request: an email address, or the token of a link."""
    if endpoint in CODE_PAGES:
        return account_service.email_of(session.get("tf_user_id"))
    if request.view_args:
        return str(request.view_args["token"])
    return str(current_user.email) if current_user.is_authenticated else _typed_email()


def _typed_email() -> str:
    return request.form.get("email", "")


def _load_account(user_id: str) -> Account | None:
    """Return the account of the cookie if its session has not ended. Flask-Security's loader takes three statements."""
    account_session = sessions.find_with_account(session.get(ACCOUNT_SESSION))
    account = account_session.account if account_session else None
    if account_session is None or account is None or account.fs_uniquifier != user_id or not account.active:
        return None
    if account_session.remembered and not account_service.accepts_password(account):
        sessions.end_by_token(session[ACCOUNT_SESSION])  # it began with a password, before they were off
        return None
    if not is_polled(current_app, request.endpoint):
        sessions.touch(account_session, request.remote_addr or "")
    set_request_attr("fs_authn_via", "session")
    set_request_attr("fs_paa", session.get("fs_paa", 0))  # when the password was last confirmed
    return account


def _start_session(_app: Flask, user: Account, **_: object) -> None:
    """Start a new session. Nothing of the cookie before is kept: an attacker may know it or have planted it."""
    token, remembered = sessions.start(
        user,
        request.remote_addr or "",
        request.user_agent.string,
        remembered=session.get("_remember") == "set",  # "Stay signed in", without a cookie of its own
        previous_token=session.get(ACCOUNT_SESSION),
    )
    kept = {name: session[name] for name in FLASK_LOGIN_KEYS}
    identity = ProvenIdentity(*session.get(PROVEN_IDENTITY, (None, "", False)))
    session.clear()
    if identity.account_id == user.id:
        identities.bind(user, identity.subject)
        g.signed_in_through, session[PROVIDER_TWO_FACTOR] = config.current().sso_label, identity.two_factor
    csrf_value = kept_forms.new_csrf_value(user)
    session.update(kept, **{ACCOUNT_SESSION: token, "csrf_token": csrf_value})
    session.permanent = remembered
    email, cookie = user.email, _known_browser_cookie()
    after_this_request(lambda response: known_browsers.remember(response, cookie, email))


def _end_session(_app: Flask, **_: object) -> None:
    record("account.signed_out")
    token = session.get(ACCOUNT_SESSION, "")
    session.clear()
    sessions.end_by_token(token)


def _password_changed(_app: Flask, user: Account, **_: object) -> None:
    record("account.password_changed", user.email)
    sessions.end_others(user, session.get(ACCOUNT_SESSION) if request else None)  # a command has no request
    email_change.cancel(user)  # someone who knew the old password may have asked for it


def _password_reset(_app: Flask, user: Account, **_: object) -> None:
    record("account.password_reset", user.email)
    sessions.end_others(user, None)
    email_change.cancel(user)


def _forbid_caching(response: Response) -> Response:
    """Keep pages out of the browser's cache, so that "back" shows nothing after signing out."""
    if request.endpoint and not request.endpoint.endswith("static"):
        response.cache_control.no_store = True
    return response


def _request_actor() -> Actor:
    """Return who acts in this request, for the audit trail."""
    if current_user.is_authenticated:
        return Actor(current_user.email, current_user.id, request.remote_addr)
    return Actor(UNKNOWN_ACTOR, None, request.remote_addr)


def _record_sign_in(_app: Flask, user: Account, authn_via: list[str] | None, **_: object) -> None:
    if "change" not in (authn_via or ()):  # the new session after a password change is not a sign-in
        user.last_sign_in_at = clock.now()
        through: str | None = g.get("signed_in_through")
        record("account.signed_in_through", through) if through else record("account.signed_in")
        db.session.commit()


def _note_failed_sign_in(_app: Flask, user: Account, **_: object) -> None:
    g.failed_account = user


def _record_failed_sign_in(response: Response) -> Response:
    """Record it for an address without an account too, so that both responses take the same time."""
    account: Account | None = g.get("failed_account")
    is_sign_in = request.method == "POST" and request.endpoint == "security.login"
    if account or (is_sign_in and response.status_code == HTTPStatus.OK):
        # Never what was typed: people type passwords into this field.
        action = "account.sign_in_failed" if request.endpoint in SIGN_IN_PAGES else "account.confirmation_failed"
        record(action, account.email if account else UNKNOWN_ACCOUNT)
        db.session.commit()
    return response
