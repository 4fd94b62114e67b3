"""Saving and removing the settings of a mail server."""

import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime

from flask_babel import gettext

from portal.database import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers.connection import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.dialling import numeric
from portal.mail_servers.models import MailServer
from portal.mail_servers.reach import PORTS, Reach, reach_of
from portal.mail_servers.selection import of_owner
from portal.signals import mend


@dataclass(frozen=True, slots=True)
class Entered:
    """What an administrator entered. No password means: the saved one."""

    provider: str
    host: str
    port: int
    encryption: Encryption
    auth_mode: AuthMode
    username: str | None
    password: str | None = field(repr=False)
    sender_email: str

    @property
    def needs_password(self) -> bool:
        """Whether these settings sign in."""
        return self.auth_mode is not AuthMode.NONE


def complete(owner: int | None, entered: Entered) -> SmtpSettings | Refusal:
    """Return the settings to connect with: a password that was not typed is the saved one.

    The saved one serves only the server and user that it was saved for. Otherwise whoever changes the address could
    have it sent to a server of their own.
    """
    return _complete(owner, entered, of_owner(owner))


def _complete(owner: int | None, entered: Entered, saved: MailServer | None) -> SmtpSettings | Refusal:
    password = entered.password if entered.needs_password else None
    if entered.needs_password and not password:
        if saved is None or saved.password_encrypted is None:
            return Refusal("password", gettext("Enter the password."))
        if _destination(saved) != _destination(entered):
            return Refusal("password", gettext("Enter the password again, because the server or the username changed."))
        password = saved.password
    reach = reach_of(owner)
    return _unreachable(entered, reach) or SmtpSettings(
        host=entered.host,
        port=entered.port,
        encryption=entered.encryption,
        auth_mode=entered.auth_mode,
        username=entered.username if entered.needs_password else None,
        password=password,
        reach=reach,
    )


def save(owner: int | None, entered: Entered) -> MailServer | Refusal:
    """Return the saved mail server of the tenant, or of the system for None. Saving ends a pause."""
    with every_tenant():
        saved = of_owner(owner, to_change=True)  # before its password is compared with what is entered, and kept
        settings = _complete(owner, entered, saved)
        if isinstance(settings, Refusal):
            db.session.rollback()
            return settings
        server = saved or MailServer(tenant_id=owner, shared=False)
        server.provider, server.host, server.port = entered.provider, settings.host, settings.port
        server.encryption, server.auth_mode = settings.encryption, settings.auth_mode
        server.username = settings.username
        if entered.password or not entered.needs_password:  # else the saved one stays as it is
            server.password = settings.password
        server.sender_email = entered.sender_email
        server.paused_until = server.pause_text = server.rejected_at = None
        server.saved_at = datetime.now(UTC)
        db.session.add(server)
        mend(owner, server_changed=True)
        db.session.commit()
    return server


def remove(tenant_id: int) -> None:
    """Forget the tenant's own mail server, so that the shared one applies where there is one."""
    with every_tenant():
        server = of_owner(tenant_id, to_change=True)
        if server is not None:
            db.session.delete(server)
            mend(tenant_id, server_changed=True)
        db.session.commit()


def share(on: bool) -> MailServer | Refusal:
    """Let all tenants use the system's mail server, or none of them."""
    with every_tenant():
        server = of_owner(None, to_change=True)
        if server is None:
            return Refusal("host", gettext("Set the system's mail server first."))
        server.shared = on
        mend(None)
        db.session.commit()
    return server


def _unreachable(entered: Entered, reach: Reach) -> Refusal | None:
    """Return what can be said against these settings before the name is looked up, which is done when it is dialled."""
    try:
        hosts = [address.host for address in numeric(entered.host, entered.port)]
    except (socket.gaierror, UnicodeError):
        hosts = []
    trusted = all(map(reach.trusts, hosts)) if hosts else bool(reach.networks)
    if entered.port not in PORTS and not trusted and not reach.everywhere:
        return Refusal("port", gettext("Use port 25, 465, 587 or 2525."))
    if not all(reach.admits(host, entered.port) for host in hosts):
        return Refusal(
            "host", gettext("This address is not on the internet. The portal's operator has to allow its network.")
        )
    if entered.needs_password and entered.encryption is Encryption.NONE and not trusted:
        return Refusal("encryption", gettext("Choose STARTTLS or TLS: no password is sent without encryption."))
    return None


def _destination(server: MailServer | Entered) -> tuple[str, int, str, str | None]:
    return server.host, server.port, str(server.encryption), server.username
