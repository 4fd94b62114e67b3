"""Closed by default: who is not signed in reaches only what is declared public."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from flask import Flask, current_app, request
from flask_security import current_user
from werkzeug.exceptions import NotFound

from portal.accounts.models import Account

View = TypeVar("View", bound=Callable[..., Any])


def public(view: View) -> View:
    """Declare that a view answers strangers: it asks for no account, or for proof of another kind."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def is_public(app: Flask, endpoint: str | None) -> bool:
    """Return whether the endpoint answers strangers. No endpoint (404, 405) has nothing to protect."""
    if endpoint is None or endpoint == "static" or endpoint.endswith(".static"):
        return True
    return endpoint.startswith("security.") or getattr(app.view_functions[endpoint], "is_public", False)


@contextmanager
def for_people_only(app: Flask) -> Iterator[None]:
    """Keep what the block does before each request from being done where a view answers strangers.

    An event has no use for it, and it takes a tenth of its time.
    """
    hooks = app.before_request_funcs.setdefault(None, [])
    earlier = len(hooks)
    yield
    hooks[earlier:] = map(_for_people, hooks[earlier:])


def _for_people(hook: Callable[[], Any]) -> Callable[[], Any]:
    @wraps(hook)
    def for_people() -> Any:
        view = current_app.view_functions.get(request.endpoint or "")
        return None if getattr(view, "is_public", False) else hook()

    return for_people


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
