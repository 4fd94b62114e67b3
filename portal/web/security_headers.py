"""The security headers of every response: pages, errors, files, and answers to machine clients."""

from functools import cache
from typing import Final

from flask import Response

STRICT_TRANSPORT: Final = f"max-age={365 * 24 * 3600}; includeSubDomains"


def content_security_policy(**directives: str) -> str:
    """Return a Content-Security-Policy; the names of its directives have underscores for hyphens."""
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in directives.items())


def email_headers(img_src: str) -> dict[str, str]:
    """Return the headers of an email's HTML in a frame of a page: it runs no script and sends no request."""
    policy = content_security_policy(
        default_src="'none'",
        img_src=img_src,
        style_src="'unsafe-inline'",  # as emails have it
        form_action="'none'",
        frame_ancestors="'self'",
        sandbox="allow-popups allow-popups-to-escape-sandbox",
    )
    return {"Content-Security-Policy": policy, "X-Frame-Options": "SAMEORIGIN"}


_ALWAYS: Final = {
    "Server": "portal",  # a software's name would help to look up its vulnerabilities
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE: Final = {
    **_ALWAYS,
    "Content-Security-Policy": content_security_policy(
        default_src="'none'",
        script_src="'self'",
        style_src="'self'",
        img_src="'self' data:",  # Bootstrap's own icons and QR codes are data URLs
        font_src="'self'",
        connect_src="'self'",
        frame_src="'self'",
        manifest_src="'self'",
        base_uri="'none'",
        form_action="'self'",
        frame_ancestors="'none'",
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "browsing-topics=(), camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
API: Final = {
    **_ALWAYS,
    "Content-Security-Policy": content_security_policy(default_src="'none'", frame_ancestors="'none'"),
    "Referrer-Policy": "no-referrer",
}


@cache
def for_clients(*, over_tls: bool) -> tuple[tuple[str, str], ...]:
    """Return the headers of every response to a machine client, with names in lower case."""
    headers = API | ({"Strict-Transport-Security": STRICT_TRANSPORT} if over_tls else {})
    return tuple((name.lower(), value) for name, value in headers.items())


def add(response: Response, headers: dict[str, str], *, over_tls: bool) -> Response:
    """Add those of these headers that the response does not have yet, and return it."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    if over_tls:
        response.headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT)
    return response
