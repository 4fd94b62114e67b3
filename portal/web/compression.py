"""Gzip compression of text responses."""

import gzip
from http import HTTPStatus

from flask import Flask, Response, request

# Pages can be compressed although they contain a CSRF token (BREACH attack): its signature changes every second, and
# browsers send no cookie with requests of other sites.
# How well, of 9: higher levels take longer and save little. A file is loaded once, a page is made for each visit.
LEVELS = {"text/html": 4, "text/css": 6, "text/javascript": 6, "image/svg+xml": 6}
MIN_BYTES = 500


def init_app(app: Flask) -> None:
    """Compress responses. Call this before other extensions: `after_request` functions run in reverse order."""
    app.after_request(_compress)


def _compress(response: Response) -> Response:
    level = LEVELS.get(response.mimetype or "")
    if level is None:
        return response
    response.vary.add("Accept-Encoding")
    is_complete = response.status_code not in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED}
    if not is_complete or not request.accept_encodings["gzip"] or (response.content_length or 0) < MIN_BYTES:
        return response
    response.direct_passthrough = False  # read a static file here, not in the web server
    response.set_data(gzip.compress(response.get_data(), level, mtime=0))
    response.content_encoding = "gzip"
    etag, _ = response.get_etag()
    if etag:
        response.set_etag(etag, weak=True)  # equal content, other bytes (RFC 9110, section 8.8.1)
    return response
