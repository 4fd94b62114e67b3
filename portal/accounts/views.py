"""The door: strangers are asked to sign in. The pages behind it are Flask-Security's, in our templates."""

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue
from flask_security import current_user

from portal.accounts.access import is_public


def init_app(app: Flask) -> None:
    """Close every endpoint that is not public."""
    app.before_request(_ask_to_sign_in)


def _ask_to_sign_in() -> ResponseReturnValue | None:
    if is_public(current_app, request.endpoint) or current_user.is_authenticated:
        return None
    if request.htmx:  # type: ignore[attr-defined]
        # A fragment's place is no place for a sign-in form: let the browser load the whole page again.
        return "", 401, {"HX-Refresh": "true"}
    answer: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
    return answer
