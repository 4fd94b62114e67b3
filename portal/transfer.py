"""What goes over the line, and how often: text compressed, static files once and then kept by the browser for good."""

import gzip
import hashlib
import re
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from werkzeug.security import safe_join

STATIC_ENDPOINTS = ("static", "bootstrap.static")
HASH_LENGTH = 12
HASHED_NAME = re.compile(rf"(?P<stem>.+)\.(?P<digest>[0-9a-f]{{{HASH_LENGTH}}})(?P<suffix>\.\w+)")
YEAR = 365 * 24 * 3600  # seconds

# Pages may be compressed although they hold a CSRF token (the BREACH attack): its signature changes each second, and
# the cookie does not come along with what another site loads.
COMPRESSED = {"text/html", "text/css", "text/javascript", "image/svg+xml"}
LEVEL = 6  # of 9; the next ones take longer and save nothing to speak of
WORTH_IT = 500  # bytes


def init_app(app: Flask) -> None:
    """Name static files by their content and compress answers. It looks at them last, so it is to be bound first."""
    app.session_interface = _Sessions()
    app.after_request(_compress)
    app.after_request(_keep_for_good)
    app.url_defaults(_name_by_content)
    app.url_value_preprocessor(_find_by_name)


class _Sessions(SecureCookieSessionInterface):
    """Sessions that leave what everybody may keep alone: a cookie, or `Vary: Cookie`, would keep it from being kept."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return super().open_session(app, request) if request.cookies else SecureCookieSession()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if not _is_for_good(response):
            super().save_session(app, session, response)


def _name_by_content(endpoint: str, values: dict[str, Any]) -> None:
    """Put a static file's hash into its name: with another content it has another address."""
    digest = _content_hash(endpoint, values["filename"]) if endpoint in STATIC_ENDPOINTS else None
    if digest:
        stem, _, suffix = values["filename"].rpartition(".")
        values["filename"] = f"{stem}.{digest}.{suffix}"


def _find_by_name(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Take the hash out again. A name of an older or a newer file finds this one, which nobody may keep then."""
    named = HASHED_NAME.fullmatch(values["filename"]) if endpoint in STATIC_ENDPOINTS and values else None
    if named and endpoint and values:
        values["filename"] = named["stem"] + named["suffix"]
        g.is_named_by_content = _content_hash(endpoint, values["filename"]) == named["digest"]


def _content_hash(endpoint: str, filename: str) -> str | None:
    """Return the hash of a file, None where there is no such file. A page asks for it with each of its icons."""
    owner = current_app if endpoint == "static" else current_app.blueprints["bootstrap"]
    path = safe_join(owner.static_folder or "", filename)  # the name may be a stranger's
    try:
        return _hash_of(path, Path(path).stat().st_mtime_ns) if path else None
    except OSError:
        return None


@cache
def _hash_of(path: str, _changed_at: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:HASH_LENGTH]


def _is_for_good(response: Response) -> bool:
    return bool(g.get("is_named_by_content")) and response.status_code in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}


def _keep_for_good(response: Response) -> Response:
    if _is_for_good(response):
        response.cache_control.no_cache = None
        response.cache_control.public = True
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    return response


def _compress(response: Response) -> Response:
    if response.mimetype not in COMPRESSED:
        return response
    response.vary.add("Accept-Encoding")
    is_whole = response.status_code not in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED}
    if not is_whole or not request.accept_encodings["gzip"] or (response.content_length or 0) < WORTH_IT:
        return response
    response.direct_passthrough = False  # a static file is read here, and not by the web server
    response.set_data(gzip.compress(response.get_data(), LEVEL, mtime=0))
    response.content_encoding = "gzip"
    etag, _ = response.get_etag()
    if etag:
        response.set_etag(etag, weak=True)  # the same, though not the same bytes (RFC 9110, section 8.8.1)
    return response
