"""How the portal is reached: its host names, the client's IP address, and settings that do not fit the deployment."""

import ipaddress
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Flask, current_app, request
from werkzeug.exceptions import BadRequest
from werkzeug.middleware.proxy_fix import ProxyFix

from portal import config
from portal.config import Settings
from portal.setting_formats import is_loopback

FORWARDED_HEADERS: Final = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}
REPORTED: Final = "reported_deployment_problems"
IPV6_PREFIX_LENGTH: Final = 64  # one customer has all addresses of such a network (RFC 6177)


class UntrustedHost(BadRequest):
    """A page was requested by a host name that is not the portal's."""


class AmbiguousLength(BadRequest):
    """A request has two lengths: a proxy and this server could disagree where the next one begins (RFC 9112, 6.1)."""


class CleanAddress:
    """A WSGI middleware that corrects what some proxies do to addresses.

    The client's IP address loses its port. The portal's own host name gets the port of `PORTAL_URL`: forms are accepted
    only from pages at the same host and port.
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app = app
        self.host, self.netloc = settings.host, urlsplit(settings.portal_url or "").netloc
        self.sets_port = settings.is_https

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Handle a request."""
        environ["REMOTE_ADDR"] = without_port(environ.get("REMOTE_ADDR") or "")
        if self.sets_port and host_name(environ.get("HTTP_HOST", "")) == self.host:
            environ["HTTP_HOST"] = self.netloc
        return self.app(environ, start_response)


def init_app(app: Flask, settings: Settings) -> None:
    """Trust the headers of as many reverse proxies as the settings say."""
    app.extensions[REPORTED] = set()
    app.wsgi_app = CleanAddress(app.wsgi_app, settings)  # type: ignore[method-assign]
    if hops := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]


def check_request() -> None:
    """Reject a request with two lengths (AmbiguousLength), and report what does not fit the deployment."""
    if "HTTP_TRANSFER_ENCODING" in request.environ and request.environ.get("CONTENT_LENGTH"):
        raise AmbiguousLength
    report_deployment({name.lower(): value for name, value in request.headers})


def report_deployment(headers: Mapping[str, str]) -> None:
    """Report what does not fit the deployment about a request with these headers, whose names are in lower case."""
    settings = config.current()
    if not settings.trusted_proxies and not FORWARDED_HEADERS.isdisjoint(headers):
        _report_once(
            "A reverse proxy adds X-Forwarded-* headers, but TRUSTED_PROXIES is 0: all clients share the IP address of "
            "the proxy, and with it their rate limits. Set TRUSTED_PROXIES to the number of proxies."
        )
    if settings.portal_env == "production" and not settings.is_https and not settings.is_loopback:
        _report_once(
            "PORTAL_URL begins with http://: passwords, cookies and API keys are sent without encryption. "
            "Use a reverse proxy with TLS and an https:// URL."
        )


def report_other_origin() -> None:
    """Report that a form was rejected because it names another page than one of the portal as its origin."""
    _report_once(
        "A form was rejected because its Referer header is missing or names another host than the request. Make the "
        "reverse proxy pass on the Host and Referer headers, and set PORTAL_URL to the URL that people open."
    )


def check_host() -> None:
    """Reject a page requested by another host name than the portal's, such as one that an attacker rebinds."""
    settings, host = config.current(), host_name(request.environ.get("HTTP_HOST", ""))
    if host in {settings.host, *settings.trusted_hosts} or (settings.is_loopback and is_loopback(host)):
        return
    _report_once(
        "A page was requested by another host name than that of PORTAL_URL, and rejected. If people cannot open the "
        "portal, make the reverse proxy pass on the Host header, or add the name to TRUSTED_HOSTS."
    )
    raise UntrustedHost


def host_name(host: str) -> str:
    """Return the host name in a Host header, in lower case and without port and brackets."""
    return without_port(host.strip().lower())


def without_port(address: str) -> str:
    """Return a host name or an IP address without a port and brackets."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def client_address(peer: str, forwarded_for: str | None, proxies: int) -> str:
    """Return the client's IP address: the peer's, or behind trusted proxies what they added, as `ProxyFix` finds it."""
    forwarded = [part.strip() for part in forwarded_for.split(",")] if forwarded_for and proxies else []
    return without_port(forwarded[-proxies] if 0 < proxies <= len(forwarded) else peer)


def network(ip_address: str) -> str:
    """Return what limits on a client's IP address count: the IPv4 address or the IPv6 network; "" for neither."""
    try:
        parsed = ipaddress.ip_address(ip_address)
    except ValueError:
        return ""
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX_LENGTH), strict=False)) if parsed.version == 6 else str(parsed)


def _report_once(problem: str) -> None:
    reported: set[str] = current_app.extensions[REPORTED]
    if problem not in reported:
        reported.add(problem)
        current_app.logger.warning(problem)
