"""Who may open which view. Every view needs a signed-in account unless it is declared public."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, g
from flask_security import current_user
from werkzeug.exceptions import NotFound

from portal.accounts.models import VIEWER, Account

View = TypeVar("View", bound=Callable[..., Any])

# The pages of Flask-Security that the portal uses, without and with a signed-in account. All others are closed.
SIGN_IN_PAGES = {
    "security.login",
    "security.two_factor_token_validation",
    "security.mf_recovery",
    "security.forgot_password",
    "security.reset_password",
}
ACCOUNT_PAGES = {"security.logout", "security.verify", "security.change_password"}


def public(view: View) -> View:
    """Declare that a view needs no signed-in account."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def for_clients(view: View) -> View:
    """Declare that a view is for programs and not for browsers: it is public and uses no session and no CSRF token."""
    view.is_for_clients = True  # type: ignore[attr-defined]
    return public(view)


def open_to_viewers(view: View) -> View:
    """Declare that viewers of a tenant may open this view. All others do not exist for them, and no POST does."""
    view.is_open_to_viewers = True  # type: ignore[attr-defined]
    return view


def polled(view: View) -> View:
    """Declare that an open page requests this view at intervals, which does not keep a session alive."""
    view.is_polled = True  # type: ignore[attr-defined]
    return view


def kept_as(endpoint: str) -> Callable[[View], View]:
    """Declare that a form sent to this view is kept if its session has ended, and where "Save" then sends it.

    That is the view itself, or the one that saves what this one only shows or tries. Forms of other views are actions,
    such as "Discard": they are repeated on their page, as it is by then.
    """

    def declare(view: View) -> View:
        view.kept_as = endpoint  # type: ignore[attr-defined]
        return view

    return declare


def saving_endpoint(app: Flask, endpoint: str | None) -> str | None:
    """Return the endpoint that saves a form which was sent to this one and kept. None: it is not kept."""
    saving: str | None = getattr(app.view_functions.get(endpoint or ""), "kept_as", None)
    return saving


def is_polled(app: Flask, endpoint: str | None) -> bool:
    """Return whether an open page requests the endpoint at intervals."""
    return getattr(app.view_functions.get(endpoint or ""), "is_polled", False)


def is_public(app: Flask, endpoint: str | None) -> bool:
    """Return whether the endpoint needs no account. A request without an endpoint ends in an error page (404, 405)."""
    if endpoint is None or endpoint == "static" or endpoint.endswith(".static"):
        return True
    return endpoint in SIGN_IN_PAGES or getattr(app.view_functions[endpoint], "is_public", False)


def note_view(app: Flask, endpoint: str | None, method: str) -> None:
    """Remember for `may_open` which view this request is for."""
    is_open = getattr(app.view_functions.get(endpoint or ""), "is_open_to_viewers", False)
    g.is_open_to_viewers = is_open and method in {"GET", "HEAD"}


def may_open(account: Account, tenant_id: int) -> bool:
    """Return whether the account may open this request's view in the tenant's workspace."""
    role = account.role_in(tenant_id)
    return role is not None and (role != VIEWER or g.get("is_open_to_viewers", False))


def is_closed(endpoint: str) -> bool:
    """Return whether the endpoint is a page of Flask-Security that the portal does not use."""
    return endpoint.startswith("security.") and endpoint not in SIGN_IN_PAGES | ACCOUNT_PAGES


def current_account() -> Account:
    """Return the signed-in account. For views that are not public."""
    account: Account = current_user._get_current_object()
    return account


def require_system_administrator() -> Account:
    """Return the signed-in system administrator. Raise NotFound for others: the pages do not exist for them."""
    account = current_account()
    if not account.is_system_administrator:
        raise NotFound
    return account
