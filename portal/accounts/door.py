"""The door: what stands before every page. Who is it, may they knock this often, and is there more to do first."""

import time
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, current_app, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import user_logged_in, user_logged_out
from flask_security import current_user, password_changed, password_reset
from werkzeug.exceptions import NotFound, TooManyRequests, UnsupportedMediaType

from portal.accounts import doings, policy, sessions, throttle
from portal.accounts.access import is_closed, is_public, is_without_anybody, signed_in
from portal.accounts.models import Account
from portal.audit.who import Actor, act_as

KEY: Final = "key"  # in the session: the key of its row
SIGNED_IN: Final = ("_user_id", "_fresh", "_id")  # in the session: what Flask-Login notes
CODE_PAGES: Final = ("security.two_factor_token_validation", "security.mf_recovery")
THROTTLED: Final = {
    "security.login": throttle.SIGN_IN,
    **dict.fromkeys(CODE_PAGES, throttle.SECOND_FACTOR),
    "security.forgot_password": throttle.FORGOTTEN,
    "security.reset_password": throttle.RESET,
    "security.verify": throttle.PASSWORD,
    "security.change_password": throttle.PASSWORD,
}
FIRST_FACTOR_AT: Final = "first_factor_at"  # in the session: when the password was right and a code was still missing
CODE_WITHIN: Final = 600  # seconds
BEFORE_TWO_FACTOR: Final = {"account.set_up_two_factor", "security.verify", "security.logout"}


def init_app(app: Flask) -> None:
    """Close every endpoint that is not public, and tie who is signed in to a session that can be ended."""
    doings.init_app(app)
    app.before_request(lambda: act_as(_person))
    manager = app.login_manager  # type: ignore[attr-defined]
    find_account = manager.user_callback
    manager.user_loader(lambda user_id: _of_session(find_account(user_id)))
    app.before_request(_open)
    app.before_request(_forget_first_factor)
    app.after_request(_look_after)
    app.after_request(_note_failed_sign_in)
    user_logged_in.connect(_begin_session, app)
    user_logged_out.connect(_end_session, app)
    password_changed.connect(_end_other_sessions, app)
    password_reset.connect(_end_all_sessions, app)


def _open() -> ResponseReturnValue | None:
    """Return what is answered in place of the page, or None."""
    endpoint = request.endpoint or ""
    if not is_public(current_app, request.endpoint):
        if not current_user.is_authenticated:
            return _ask_to_sign_in()
        if is_closed(endpoint):
            raise NotFound
        if _needs_two_factor(endpoint):
            return redirect(url_for("account.set_up_two_factor"))
    elif endpoint in CODE_PAGES and current_user.is_authenticated:
        return redirect(url_for("tenants.home"))  # here, Flask-Security would sign out
    if request.method == "POST" and endpoint in THROTTLED:
        _count_attempt(endpoint)
    return None


def _ask_to_sign_in() -> ResponseReturnValue:
    if request.htmx:  # type: ignore[attr-defined]
        # A fragment's place is no place for a sign-in form: let the browser load the whole page again.
        return "", 401, {"HX-Refresh": "true"}
    answer: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
    return answer


def _needs_two_factor(endpoint: str) -> bool:
    return endpoint not in BEFORE_TWO_FACTOR and not signed_in().has_two_factor and policy.requires_two_factor()


def _forget_first_factor() -> None:
    """Let the password be asked for again where it was right too long ago."""
    if request.endpoint in CODE_PAGES and time.time() - session.get(FIRST_FACTOR_AT, 0) > CODE_WITHIN:
        session.pop("tf_user_id", None)


def _count_attempt(endpoint: str) -> None:
    if request.is_json:  # Flask-Security would read its forms from it, behind the back of the count
        raise UnsupportedMediaType
    wait = throttle.count(THROTTLED[endpoint], _account_named(endpoint), request.remote_addr or "")
    if wait:
        raise TooManyRequests(retry_after=wait)


def _account_named(endpoint: str) -> str:
    """Return what names the account at which is tried: its address, or what stands for it in a cookie or a link."""
    if endpoint in CODE_PAGES:
        return str(session.get("tf_user_id", ""))
    if request.view_args:
        return str(request.view_args["token"])
    return str(current_user.email if current_user.is_authenticated else request.form.get("email", ""))


def _of_session(account: Account | None) -> Account | None:
    """Return the account if the cookie's session has not been ended."""
    found = sessions.find(session.get(KEY))
    if account is None or found is None or found.account_id != account.id:
        return None
    if not is_without_anybody(current_app, request.endpoint):
        sessions.note(found, request.remote_addr or "")
    return account


def _begin_session(_app: Flask, user: Account, **_: object) -> None:
    """Begin a session anew, and take nothing over from before: neither what a thief knows nor what he planted."""
    remembered = session.get("_remember") == "set"  # "Remember me": without a cookie of its own
    before, signed_in_as = session.get(KEY), {name: session[name] for name in SIGNED_IN}
    address, user_agent = request.remote_addr or "", request.user_agent.string
    began = sessions.begin(user, address, user_agent, remembered=remembered, before=before)
    session.clear()
    session.update(signed_in_as, **{KEY: began.key})
    session.permanent = began.remembered


def _end_session(_app: Flask, **_: object) -> None:
    key = session.get(KEY)
    session.clear()
    if key:
        sessions.sign_out(key)


def _end_other_sessions(_app: Flask, user: Account, **_: object) -> None:
    sessions.end_others(user, session.get(KEY) if request else None)  # a command has no request


def _end_all_sessions(_app: Flask, user: Account, **_: object) -> None:
    sessions.end_others(user, None)


def _look_after(response: Response) -> Response:
    """Keep pages out of the browser's store, so that "back" after signing out shows nothing."""
    if request.endpoint == "security.login" and "tf_user_id" in session:
        session[FIRST_FACTOR_AT] = time.time()
    if request.endpoint and not request.endpoint.endswith("static"):
        response.cache_control.no_store = True
    return response


def _person() -> Actor:
    """Return who acts in this request, for the audit trail."""
    if current_user.is_authenticated:
        return Actor(current_user.email, current_user.id, request.remote_addr)
    return Actor("somebody", None, request.remote_addr)


def _note_failed_sign_in(response: Response) -> Response:
    """Note it here and not where it fails: the answer must take as long for an address without an account."""
    tried = request.method == "POST" and request.endpoint == "security.login" and response.status_code == HTTPStatus.OK
    account = doings.failed()
    if tried or account:
        doings.note_failed_sign_in(account)
    return response
