"""What every answer tells a browser about itself: pages, errors, files, and what programs are answered."""

from typing import Final

from flask import Response

STRICT_TRANSPORT: Final = f"max-age={365 * 24 * 3600}; includeSubDomains"


def policy(**directives: str) -> str:
    """Return a Content-Security-Policy; a directive's name stands with underscores."""
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in directives.items())


def of_mail(img_src: str) -> dict[str, str]:
    """Return the headers of a mail's HTML, for a frame in a page of ours: it runs nothing, and asks nobody anything."""
    rules = policy(
        default_src="'none'",
        img_src=img_src,
        style_src="'unsafe-inline'",  # which mails have
        form_action="'none'",
        frame_ancestors="'self'",
        sandbox="allow-popups allow-popups-to-escape-sandbox",
    )
    return {"Content-Security-Policy": rules, "X-Frame-Options": "SAMEORIGIN"}


# The name of no software: a list of holes to try begins with it.
_ALWAYS: Final = {
    "Server": "portal",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE: Final = {
    **_ALWAYS,
    "Content-Security-Policy": policy(
        default_src="'none'",
        script_src="'self'",
        style_src="'self'",
        img_src="'self' data:",  # Bootstrap's own icons and QR codes are data addresses
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
PROGRAM: Final = {
    **_ALWAYS,
    "Content-Security-Policy": policy(default_src="'none'", frame_ancestors="'none'"),
    "Referrer-Policy": "no-referrer",
}


# Of a mail, which is shown in a frame of its own, without scripts.
def add(response: Response, headers: dict[str, str], *, over_tls: bool) -> Response:
    """Return the answer with these headers, where it does not have others of its own."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    if over_tls:
        response.headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT)
    return response
