"""Checks of what is reached over the network: the portal's public URL, the mail server, the provider of sign-in."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from portal import config
from portal.accounts.single_sign_on.problems import find_problems
from portal.crypto import UnreadableSecret
from portal.doctor import echo
from portal.doctor.diagnoses import Diagnosis, State, Topic
from portal.doctor.echo import FORGED_CLIENT, FORGED_HOST, NoEcho
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.deliverability import Finding as DnsFinding
from portal.mail_servers.deliverability import check_sender
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp.client import Encryption, SmtpConnection
from portal.mail_servers.smtp.connect import HOST_MISMATCH, tls_context
from portal.mail_servers.smtp.outcome import SmtpFailure, advice_for, reply_text
from portal.mail_servers.smtp.test_email import TIMEOUTS
from portal.setting_formats import is_loopback

CONNECT_TIMEOUT: Final = 5.0  # seconds
MIN_DAYS_LEFT: Final = 14
NO_MAIL_SERVER: Final = "The system has no mail server: nobody gets invitations, reset links and alerts."
SET_MAIL_SERVER: Final = "Set it on the system's page Mail Server, or with `pbx-portal mail-server set --system`."


def _name() -> Iterator[Diagnosis]:
    name, host = "portal's name", config.current().host
    try:
        found = sorted({str(result[4][0]) for result in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)})
    except (socket.gaierror, UnicodeError):
        seen = f"The name {host} in PORTAL_URL is not found."
        yield Diagnosis(name, State.FAILED, seen, "Add A and AAAA records for it to the DNS, or correct PORTAL_URL.")
        return
    if not is_loopback(host) and all(map(is_loopback, found)):
        seen = f"{host} leads to {', '.join(found)}, which is this machine alone."
        yield Diagnosis(
            name, State.WARNING, seen, "Check that it leads other machines to the proxy (see /etc/hosts here)."
        )
        return
    yield Diagnosis(name, State.OK, f"{host} leads to {', '.join(found)}.")


def _certificate() -> Iterator[Diagnosis]:
    name, parts = "certificate", urlsplit(config.current().portal_url or "")
    host, port = parts.hostname or "", parts.port or 443
    if parts.scheme != "https":
        yield Diagnosis(name, State.SKIPPED, "PORTAL_URL begins with http://.")
        return
    context = tls_context()
    try:
        with (
            socket.create_connection((host, port), CONNECT_TIMEOUT) as sock,
            context.wrap_socket(sock, server_hostname=host) as encrypted,
        ):
            certificate = encrypted.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        yield _bad_certificate(name, host, error)
    except ssl.SSLError:
        seen = f"TLS could not be negotiated with {host}, port {port}."
        yield Diagnosis(
            name, State.FAILED, seen, "Let the proxy speak TLS 1.2 or newer at this port, or correct PORTAL_URL."
        )
    except OSError as error:
        seen = f"{host}, port {port}, was not reached: {error.strerror or 'no answer in time'}."
        yield Diagnosis(
            name, State.FAILED, seen, "Start the proxy, open the port in the firewall, or correct PORTAL_URL."
        )
    else:
        yield _valid_certificate(name, certificate)


def _bad_certificate(name: str, host: str, error: ssl.SSLCertVerificationError) -> Diagnosis:
    if error.verify_code in HOST_MISMATCH:
        seen = f"The certificate is not for {host}."
        return Diagnosis(name, State.FAILED, seen, "Get one with this name, or correct PORTAL_URL.")
    seen = f"The certificate is not accepted: {error.verify_message}."
    advice = "Renew it, let the proxy send the whole chain, or add a private authority to this machine's certificates."
    return Diagnosis(name, State.FAILED, seen, advice)


def _valid_certificate(name: str, certificate: Any) -> Diagnosis:
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    days = (end - datetime.now(UTC)).days
    seen = f"The certificate is valid for {days} more days, until {end:%Y-%m-%d}."
    if days < MIN_DAYS_LEFT:
        return Diagnosis(name, State.WARNING, seen, "Renew it, and check why that did not happen automatically.")
    return Diagnosis(name, State.OK, seen)


def _proxy() -> Iterator[Diagnosis]:
    name, settings = "reverse proxy", config.current()
    url = settings.portal_url or ""
    try:
        received = echo.fetch(url)
    except NoEcho as problem:
        advice = "Start web and proxy, let the proxy pass on all paths, and use the same SECRET_KEY in all processes."
        yield Diagnosis(name, State.FAILED, f"{url} does not reach this portal. {problem}", advice)
        return
    yield _judge(name, url, received)


def _judge(name: str, url: str, received: Any) -> Diagnosis:
    """Return the diagnosis about a request that had a forged client and host."""
    parts, trusted = urlsplit(url), received["trusted_proxies"]
    forwarded = [part.strip() for part in received["forwarded_for"].split(",") if part.strip()]
    proxies = len(forwarded) - (FORGED_CLIENT in forwarded[:1])
    if FORGED_CLIENT in received["client"]:
        seen = "Clients can choose the IP address that the portal takes for theirs: it is part of all rate limits."
        return Diagnosis(name, State.FAILED, seen, _trust(proxies))
    if proxies > trusted:
        seen = f"The number of proxies is {proxies}, and TRUSTED_PROXIES is {trusted}: clients share an IP address."
        return Diagnosis(name, State.FAILED, seen, _trust(proxies))
    if received["scheme"] != parts.scheme:
        seen = f"The portal takes the request for {received['scheme']}, and PORTAL_URL begins with {parts.scheme}."
        return Diagnosis(name, State.FAILED, seen, "Let the proxy set X-Forwarded-Proto, and TRUSTED_PROXIES count it.")
    if received["host"] == FORGED_HOST:
        seen = "The proxy passes on the X-Forwarded-Host of clients."
        return Diagnosis(name, State.WARNING, seen, "Let the proxy set X-Forwarded-Host to the requested host.")
    if received["host"] != parts.netloc:
        seen = f"The portal takes {received['host']} for the requested host, so pages are rejected."
        return Diagnosis(name, State.FAILED, seen, "Let the proxy pass on the Host header and set X-Forwarded-Host.")
    behind = f"through {trusted} {'proxy' if trusted == 1 else 'proxies'}" if trusted else "without a proxy"
    return Diagnosis(name, State.OK, f"{url} reaches the portal {behind}, with the right headers.")


def _trust(proxies: int) -> str:
    if proxies < 1:
        return "Set TRUSTED_PROXIES=0, or let the proxy set X-Forwarded-For instead of passing on the client's."
    return f"Set TRUSTED_PROXIES={proxies} for web, if that is the number of your proxies."


def _mail() -> Iterator[Diagnosis]:
    server = mail_server_service.get_server(None)
    if server is None:
        yield Diagnosis("mail server", State.WARNING, NO_MAIL_SERVER, SET_MAIL_SERVER)
        return
    yield _mail_server("mail server", server)
    yield _sender("sender's domain", server)


def _mail_server(name: str, server: MailServer) -> Diagnosis:
    """Connect and sign in, without sending an email."""
    where = f"{server.host}, port {server.port}"
    try:
        settings = server.smtp_settings
    except UnreadableSecret:
        advice = "Enter it again, or put its key into ENCRYPTION_KEYS."
        return Diagnosis(name, State.FAILED, "The password of the mail server cannot be decrypted.", advice)
    connection = SmtpConnection(settings, TIMEOUTS)
    try:
        connection.open()
    except SmtpFailure as failure:
        reply = failure.reply
        seen = f"{where}: {reply_text(reply.code, reply.enhanced_code, reply.text)}"
        return Diagnosis(name, State.FAILED, seen, advice_for(reply, server.port, host=server.host, will_retry=False))
    finally:
        connection.close(wait=False)
    done = ["connected", *(["encrypted"] if settings.encryption is not Encryption.NONE else [])]
    done += ["signed in"] if settings.signs_in else []
    if server.rejected_at:
        seen = f"{where}: {', '.join(done)}. But it rejected an email at {server.rejected_at:%Y-%m-%d %H:%M} UTC."
        return Diagnosis(
            name, State.WARNING, seen, "Send a test email on the system's page Mail Server, and save it again."
        )
    return Diagnosis(name, State.OK, f"{where}: {', '.join(done)}. No email was sent.")


def _sender(name: str, server: MailServer) -> Diagnosis:
    try:
        checks = check_sender(server.smtp_settings, server.sender_email)
    except UnreadableSecret:
        return Diagnosis(name, State.SKIPPED, "The password of the mail server cannot be decrypted.")
    if not checks:
        return Diagnosis(name, State.SKIPPED, f"The domain of {server.sender_email} is not on the internet.")
    advice = [check for check in checks if check.finding is DnsFinding.ADVICE]
    if advice:
        labels = ", ".join(check.label for check in advice)
        return Diagnosis(name, State.WARNING, f"{labels} of {advice[0].name} can be better.", advice[0].advice)
    facts = " ".join(f"{check.label}: {check.fact}" for check in checks if check.fact)
    if not any(check.finding is DnsFinding.GOOD for check in checks):
        return Diagnosis(name, State.SKIPPED, facts)
    return Diagnosis(name, State.OK, f"The DNS of {server.sender_email} fits. {facts}")


def _single_sign_on() -> Iterator[Diagnosis]:
    name, settings = "single sign-on", config.current()
    if settings.sso_issuer is None:
        yield Diagnosis(name, State.SKIPPED, "SSO_ISSUER is not set.")
    elif found := find_problems():
        yield Diagnosis(name, State.FAILED, " ".join(found), "Correct it, and run `pbx-portal single-sign-on check`.")
    else:
        yield Diagnosis(name, State.OK, f"The provider {settings.sso_issuer} responds.")


TOPICS: Final = (
    Topic(("portal's name",), _name),
    Topic(("certificate",), _certificate),
    Topic(("reverse proxy",), _proxy),
    Topic(("mail server", "sender's domain"), _mail),
    Topic(("single sign-on",), _single_sign_on),
)
