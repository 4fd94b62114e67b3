"""Closed by default: who is not signed in reaches only what is declared public."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from flask_security import current_user
from werkzeug.exceptions import NotFound

from portal.accounts.models import Account

View = TypeVar("View", bound=Callable[..., Any])

# Flask-Security's pages that the portal has: for strangers, and for who is signed in. All others are closed.
SIGN_IN_PAGES = {
    "security.login",
    "security.two_factor_token_validation",
    "security.mf_recovery",
    "security.forgot_password",
    "security.reset_password",
}
ACCOUNT_PAGES = {"security.logout", "security.verify", "security.change_password"}


def public(view: View) -> View:
    """Declare that a view answers strangers: it asks for no account, or for proof of another kind."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def for_programs(view: View) -> View:
    """Declare that a view answers programs, which show a key or ask for nothing secret: it is public, and no page."""
    view.is_for_programs = True  # type: ignore[attr-defined]
    return public(view)


def without_anybody(view: View) -> View:
    """Declare that a page asks for a view by itself: that keeps no session alive that nobody uses any more."""
    view.is_without_anybody = True  # type: ignore[attr-defined]
    return view


def is_without_anybody(app: Flask, endpoint: str | None) -> bool:
    """Return whether a page asks for the endpoint by itself."""
    return getattr(app.view_functions.get(endpoint or ""), "is_without_anybody", False)


def is_public(app: Flask, endpoint: str | None) -> bool:
    """Return whether the endpoint answers strangers. No endpoint (404, 405) has nothing to protect."""
    if endpoint is None or endpoint == "static" or endpoint.endswith(".static"):
        return True
    return endpoint in SIGN_IN_PAGES or getattr(app.view_functions[endpoint], "is_public", False)


def is_closed(endpoint: str) -> bool:
    """Return whether the endpoint is one that Flask-Security brings along and the portal does not use."""
    return endpoint.startswith("security.") and endpoint not in SIGN_IN_PAGES | ACCOUNT_PAGES


def signed_in() -> Account:
    """Return the account of this request, behind a view that is not public."""
    account: Account = current_user._get_current_object()
    return account


def system_administrator() -> Account:
    """Return the signed-in system administrator. For everybody else the system's pages do not exist: 404."""
    account = signed_in()
    if not account.is_system_administrator:
        raise NotFound
    return account
