"""The door: strangers are asked to sign in. The pages behind it are Flask-Security's, in our templates.

Here the audit trail learns who acts in a request, and what happened at the door.
"""

from http import HTTPStatus

from flask import Flask, Response, current_app, request
from flask.typing import ResponseReturnValue
from flask_security import current_user

from portal.accounts import doings
from portal.accounts.access import is_public
from portal.audit.who import Actor, act_as


def init_app(app: Flask) -> None:
    """Close every endpoint that is not public."""
    doings.init_app(app)
    app.before_request(lambda: act_as(_person))
    app.before_request(_ask_to_sign_in)
    app.after_request(_note_failed_sign_in)


def _ask_to_sign_in() -> ResponseReturnValue | None:
    if is_public(current_app, request.endpoint) or current_user.is_authenticated:
        return None
    if request.htmx:  # type: ignore[attr-defined]
        # A fragment's place is no place for a sign-in form: let the browser load the whole page again.
        return "", 401, {"HX-Refresh": "true"}
    answer: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
    return answer


def _person() -> Actor:
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
