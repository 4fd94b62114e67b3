"""Static files with a content hash in their names, which browsers cache for a year."""

import hashlib
import re
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response, current_app, g, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from werkzeug.security import safe_join

STATIC_ENDPOINTS = ("static", "bootstrap.static")
HASH_LENGTH = 12
HASHED_NAME = re.compile(rf"(?P<stem>.+)\.(?P<digest>[0-9a-f]{{{HASH_LENGTH}}})(?P<suffix>\.\w+)")
YEAR = 365 * 24 * 3600  # seconds


def init_app(app: Flask) -> None:
    """Add content hashes to the URLs of static files, and cache headers to their responses."""
    app.session_interface = _SessionInterface()
    app.after_request(_add_cache_headers)
    app.url_defaults(_add_hash_to_name)
    app.url_value_preprocessor(_remove_hash_from_name)
    app.jinja_env.globals["icons_url"] = _icons_url


class _SessionInterface(SecureCookieSessionInterface):
    """Sessions that leave immutable files alone: a cookie, or `Vary: Cookie`, would keep them out of shared caches."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return super().open_session(app, request) if request.cookies else SecureCookieSession()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if not _is_immutable(response):
            super().save_session(app, session, response)


def _add_hash_to_name(endpoint: str, values: dict[str, Any]) -> None:
    """Put the hash of a static file's content into its name, so that changed content has another URL."""
    digest = _content_hash(endpoint, values["filename"]) if endpoint in STATIC_ENDPOINTS else None
    if digest:
        stem, _, suffix = values["filename"].rpartition(".")
        values["filename"] = f"{stem}.{digest}.{suffix}"


def _remove_hash_from_name(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Remove the hash from a file's name. With the hash of another version the file is served, but not cached."""
    match = HASHED_NAME.fullmatch(values["filename"]) if endpoint in STATIC_ENDPOINTS and values else None
    if match and endpoint and values:
        values["filename"] = match["stem"] + match["suffix"]
        g.has_current_hash = _content_hash(endpoint, values["filename"]) == match["digest"]


def _content_hash(endpoint: str, filename: str) -> str | None:
    """Return the hash of a file, or None if it does not exist. It is cached: a page needs it for each of its icons."""
    owner = current_app if endpoint == "static" else current_app.blueprints["bootstrap"]
    path = safe_join(owner.static_folder or "", filename)  # the name comes from the request
    try:
        return _hash_of(path, Path(path).stat().st_mtime_ns) if path else None
    except OSError:
        return None


def _icons_url() -> str:
    """Return the URL of the icons, built once for all icons of a page."""
    if "icons_url" not in g:
        g.icons_url = url_for("static", filename="icons.svg")
    return str(g.icons_url)


@cache
def _hash_of(path: str, _changed_at: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:HASH_LENGTH]


def _is_immutable(response: Response) -> bool:
    return bool(g.get("has_current_hash")) and response.status_code in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}


def _add_cache_headers(response: Response) -> Response:
    if _is_immutable(response):
        response.cache_control.no_cache = None
        response.cache_control.public = True
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    return response
