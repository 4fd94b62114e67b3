"""The mail servers of tenants and of the system: which one applies, settings, pauses, the reminder, the sender."""

import hashlib
import json
import socket
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from flask_babel import gettext
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from werkzeug.exceptions import NotFound

from portal.accounts.models import Account
from portal.audit.log import record
from portal.config import PRODUCT
from portal.database import clock
from portal.database.scope import current_scope, every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers.models import MailServer, ReminderDismissal
from portal.mail_servers.oauth.access_tokens import token_source
from portal.mail_servers.oauth.identity_providers import GrantType, provider_of_host
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.providers import helo_name_for
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.connect import resolve_numeric
from portal.mail_servers.smtp.mime import Sender
from portal.mail_servers.smtp.network_policy import SMTP_PORTS
from portal.mail_servers.smtp.outcome import Pause, SmtpReply, advice_for
from portal.signals import notify_settings_changed
from portal.tenants.models import Tenant
from portal.web.forms import Edit, compare_edit

BRIEF_PAUSE: Final = timedelta(minutes=1)
ADVISORY_LOCK: Final = 0x5E77  # locks an owner's mail server in Postgres, also while there is no row to lock


# Which mail server applies


def get_server(owner: int | None, *, for_update: bool = False) -> MailServer | None:
    """Return the tenant's own mail server, or the system's for None.

    `for_update` locks it until the transaction ends, also where there is none yet.
    """
    query = select(MailServer).where(MailServer.tenant_id == owner)
    with every_tenant():
        if for_update:
            db.session.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK, owner or 0)))
            query = query.with_for_update().execution_options(populate_existing=True)
        return db.session.scalar(query)


def get_connection(owner: int | None) -> OAuthConnection | None:
    """Return the OAuth connection of the tenant, or of the system for None."""
    with every_tenant():
        return db.session.scalar(select(OAuthConnection).where(OAuthConnection.tenant_id == owner))


class TenantServers(NamedTuple):
    """A tenant's own mail server, and the system's if it is shared with all tenants."""

    own: MailServer | None
    shared: MailServer | None

    @property
    def effective(self) -> MailServer | None:
        """The mail server that sends the tenant's email."""
        return self.own or self.shared


def servers_for(tenant_id: int) -> TenantServers:
    """Return the mail servers that a tenant has."""
    usable = or_(MailServer.tenant_id == tenant_id, and_(MailServer.tenant_id.is_(None), MailServer.shared))
    with every_tenant():
        servers = {server.tenant_id: server for server in db.session.scalars(select(MailServer).where(usable))}
    return TenantServers(servers.get(tenant_id), servers.get(None))


def shared_server() -> MailServer | None:
    """Return the system's mail server if it is shared with all tenants."""
    system = get_server(None)
    return system if system is not None and system.shared else None


def effective_server(tenant_id: int) -> MailServer | None:
    """Return the mail server that sends a tenant's email: its own, else the shared one, else None."""
    query = select(MailServer).where(MailServer.tenant_id == tenant_id)
    own = db.session.scalar(query) if current_scope() == str(tenant_id) else None  # without a change of the scope
    return own or servers_for(tenant_id).effective


@dataclass(frozen=True, slots=True)
class MailServerStatus:
    """Whether a mail server works.

    `state` is `none`, `rejected` (until its settings are saved again), `paused` (until `paused_until`) or `working`;
    `reason` says why it is rejected or paused. `label` is its name in the delivery log. With `uses_oauth` a person may
    have to sign in again.
    """

    state: str
    host: str = ""
    is_system: bool = False
    reason: str = ""
    paused_until: datetime | None = None
    label: str = ""
    uses_oauth: bool = False


def tenant_status(tenant: Tenant) -> MailServerStatus:
    """Return the status of the mail server that sends the tenant's email."""
    return server_status(effective_server(tenant.id))


def server_status(server: MailServer | None) -> MailServerStatus:
    """Return the status of a mail server, or of a missing one."""
    if server is None:
        return MailServerStatus("none")
    until = paused_until(server)
    state = "rejected" if server.rejected_at else "paused" if until else "working"
    reason = gettext(server.pause_reason) if server.pause_reason and state != "working" else ""
    uses_oauth = server.auth_mode == AuthMode.OAUTH
    return MailServerStatus(state, server.host, server.is_system, reason, until, server.label, uses_oauth)


# Settings


@dataclass(frozen=True, slots=True)
class EnteredSettings:
    """The settings that an administrator entered. Without a password, the saved one is meant."""

    provider: str
    host: str
    port: int
    encryption: Encryption
    auth_mode: AuthMode
    username: str | None
    password: str | None = field(repr=False)
    sender_email: str

    @property
    def signs_in(self) -> bool:
        """Whether the portal signs in with these settings."""
        return self.auth_mode is not AuthMode.NONE

    @property
    def needs_password(self) -> bool:
        """Whether it signs in with a password."""
        return self.auth_mode not in (AuthMode.NONE, AuthMode.OAUTH)


def connection_settings(owner: int | None, entered: EnteredSettings) -> SmtpSettings | Refusal:
    """Return the settings to connect with, completed with the saved password if none was entered.

    The saved password is used only for the server and username that it was saved for. Otherwise anyone who can change
    the host could have the password sent to a server of their own.
    """
    return _complete(owner, entered, get_server(owner))


def _complete(owner: int | None, entered: EnteredSettings, saved: MailServer | None) -> SmtpSettings | Refusal:
    password = entered.password if entered.needs_password else None
    if entered.needs_password and not password:
        if saved is None or saved.password_encrypted is None:
            return Refusal("password", gettext("Enter the password."))
        if _destination(saved) != _destination(entered):
            return Refusal("password", gettext("Enter the password again, because the server or the username changed."))
        password = saved.password
    username = entered.username if entered.signs_in else None
    tokens = None
    if entered.auth_mode is AuthMode.OAUTH:
        tokens = token_source(owner, entered.host, saved.saved_at if saved else None)
        if tokens is None:
            text = gettext("OAuth 2.0 works with the mail servers of Microsoft 365 and Gmail only. Use their own host.")
            return Refusal("host", text)
    settings = SmtpSettings(
        *(entered.host, entered.port, entered.encryption, entered.auth_mode, username, password),
        helo_name=helo_name_for(entered.host, entered.sender_email),
        token_source=tokens,
    ).for_owner(owner)
    return _policy_violation(settings) or settings


def _destination(server: MailServer | EnteredSettings) -> tuple[str, int, str, str | None]:
    return server.host, server.port, str(server.encryption), server.username


def _policy_violation(settings: SmtpSettings) -> Refusal | None:
    """Return what the network policy forbids about these settings. A host name is checked only when connecting."""
    policy = settings.network_policy
    try:
        ip_addresses = [address.ip_address for address in resolve_numeric(settings.host, settings.port)]
    except (socket.gaierror, UnicodeError):
        ip_addresses = []
    may_be_trusted = all(map(policy.trusts, ip_addresses)) if ip_addresses else bool(policy.trusted_networks)
    if settings.port not in SMTP_PORTS and not may_be_trusted and not policy.unrestricted:
        return Refusal("port", gettext("Use port 25, 465, 587 or 2525."))
    if not all(policy.allows(ip_address, settings.port) for ip_address in ip_addresses):
        text = gettext("This address is not on the internet. The portal's operator has to allow its network.")
        return Refusal("host", text)
    if settings.signs_in and settings.encryption is Encryption.NONE and not may_be_trusted:
        return Refusal("encryption", gettext("Choose STARTTLS or TLS: no password is sent without encryption."))
    return None


def version(server: MailServer | None) -> str:
    """Return what tells a server's settings from others, except the password. Empty: there is no mail server."""
    return _version(server, shared=server.shared) if server else ""


def _version(server: MailServer | EnteredSettings, *, shared: bool) -> str:
    values = [server.provider, *_destination(server), server.auth_mode, server.sender_email, shared]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def save(
    owner: int | None, entered: EnteredSettings, *, shared: bool | None = None, based_on: str | None = None
) -> MailServer | Refusal:
    """Save the mail server of the tenant, or of the system for None, and return it. Saving ends a pause.

    `shared` also sets whether the system's is shared. `based_on` is the version that the author started from. If the
    settings are others by now, nothing is saved, and what the author changed is refused.
    """
    with every_tenant():
        saved = get_server(owner, for_update=True)  # before its password is compared with what was entered, and kept
        shared = bool(saved and saved.shared) if shared is None else shared
        entered_version = _version(entered, shared=shared) + ("*" if entered.password else "")
        edit = compare_edit(based_on, version(saved), entered_version)
        if edit is not Edit.SAVE:
            db.session.commit()  # ends the lock
            return saved if saved and edit is Edit.IGNORE else _conflict(saved)
        settings = _complete(owner, entered, saved)
        if isinstance(settings, Refusal):
            db.session.rollback()
            return settings
        server = saved or MailServer(tenant_id=owner)
        server.provider, server.host, server.port = entered.provider, settings.host, settings.port
        server.encryption, server.auth_mode = settings.encryption, settings.auth_mode
        server.username = settings.username
        if entered.password or not entered.needs_password:  # else the saved password stays as it is
            server.password = settings.password
        server.sender_email, server.shared = entered.sender_email, shared
        _keep_connection(server)
        db.session.add(server)
        use_again(server)
        db.session.commit()
    return server


def use_again(server: MailServer) -> None:
    """End every pause and release held email, in the caller's transaction: the settings or the sign-in are new."""
    server.paused_until = server.pause_reason = server.rejected_at = None
    note_success(server)
    server.saved_at = clock.now()
    notify_settings_changed(server.tenant_id, server_changed=True)


def _keep_connection(server: MailServer) -> None:
    """Keep the owner's OAuth connection if the server still uses it. One without a person is for any mailbox."""
    connection = get_connection(server.tenant_id)
    if connection is None:
        return
    provider = provider_of_host(server.host) if server.auth_mode == AuthMode.OAUTH else None
    if provider is None or provider.key != connection.provider:
        db.session.delete(connection)
        return
    server.username = server.username or connection.mailbox
    if connection.grant_type != GrantType.AUTHORIZATION_CODE and server.username != connection.mailbox:
        connection.mailbox = server.username
        connection.access_token_encrypted = None


def _conflict(saved: MailServer | None) -> Refusal:
    now = f"{saved.host}:{saved.port}" if saved else gettext("None")
    text = gettext("The mail server has changed since you opened this page. Now saved: %(server)s.", server=now)
    return Refusal("server_based_on", text)


def remove(tenant_id: int) -> None:
    """Delete the tenant's own mail server, so that the shared one applies if there is one."""
    with every_tenant():
        server = get_server(tenant_id, for_update=True)
        if server is not None:
            if (connection := get_connection(tenant_id)) is not None:
                db.session.delete(connection)
            db.session.delete(server)
            notify_settings_changed(tenant_id, server_changed=True)
        db.session.commit()


def share(enabled: bool) -> MailServer | Refusal:
    """Share the system's mail server with all tenants, or with none."""
    with every_tenant():
        server = get_server(None, for_update=True)
        if server is None:
            return Refusal("host", gettext("Set up the system's mail server first."))
        server.shared = enabled
        notify_settings_changed(None)
        db.session.commit()
    return server


# Pauses


def pause(server_id: int, seen_saved_at: datetime, pause: Pause, reason: str) -> None:
    """Store a pause, without a commit, unless the settings were saved after the attempt began or are rejected."""
    if pause is Pause.NONE:
        return
    now = clock.now()
    values: dict[str, Any] = {"failing_since": func.coalesce(MailServer.failing_since, now), "last_failed_at": now}
    values |= {"rejected_at": now} if pause is Pause.UNTIL_SAVED else {"paused_until": now + BRIEF_PAUSE}
    is_unchanged = (MailServer.id == server_id, MailServer.saved_at == seen_saved_at, MailServer.rejected_at.is_(None))
    statement = update(MailServer).where(*is_unchanged).values(**values, pause_reason=reason)
    with every_tenant():
        db.session.execute(statement.execution_options(synchronize_session=False))


def note_success(server: MailServer) -> None:
    """Note, without a commit, that a mail server works. What deliveries show is noted by `alerts.conditions`."""
    with every_tenant():
        server.failing_since = server.last_failed_at = None
        db.session.flush()


def advice_on_pause(server: MailServer, reply: SmtpReply) -> str:
    """Return what to do about the reply that pauses a mail server.

    Every tenant without a mail server of its own reads it about the system's: it does not reveal whose server that is.
    """
    return advice_for(reply.redacted()) if server.is_system else advice_for(reply, server.port, host=server.host)


def end_pause(owner: int | None) -> Refusal | None:
    """End the pause of a tenant's own mail server, or of the system's for None.

    A refusal says that the settings are rejected until they are saved again. Without a mail server it raises NotFound.
    """
    with every_tenant():
        server = get_server(owner, for_update=True)
        if server is None:
            raise NotFound
        if server.rejected_at is not None:
            db.session.rollback()
            return Refusal("host", gettext("The mail server rejects these settings. Check and save them again."))
        server.paused_until = server.pause_reason = None
        notify_settings_changed(owner, server_changed=True)
        record("mail_server.tried_now", tenant_id=owner)
        db.session.commit()
    return None


def paused_until(server: MailServer) -> datetime | None:
    """Return until when the server is paused, or None."""
    return server.paused_until if server.paused_until and server.paused_until > clock.now() else None


# The reminder to set up a mail server


def is_reminder_due(tenant: Tenant, account: Account) -> bool:
    """Return whether the tenant has no mail server to use and the account has not dismissed the reminder."""
    return effective_server(tenant.id) is None and db.session.get(ReminderDismissal, (tenant.id, account.id)) is None


def dismiss_reminder(tenant: Tenant, account: Account) -> None:
    """Never show the reminder to this account in this tenant's workspace again."""
    row = {"tenant_id": tenant.id, "account_id": account.id}
    db.session.execute(insert(ReminderDismissal).values(row).on_conflict_do_nothing())
    db.session.commit()


# The sender of a tenant's email


def sender_for(tenant: Tenant | None, sender_email: str) -> Sender:
    """Return the sender of a tenant's email, or of the portal's own (None), with a mail server's sender email."""
    if tenant is None:
        return Sender(sender_email, PRODUCT)
    return Sender(sender_email, tenant.display_name, tenant.reply_to)


def save_sender(tenant: Tenant, reply_to: str, based_on: str | None = None) -> Refusal | None:
    """Save the tenant's Reply-To address; empty: replies go to the sender email.

    `based_on` is the address that the author started from. If it is another one by now, nothing is saved, and what the
    author changed is refused.
    """
    edit = compare_edit(based_on, tenant.reply_to or "", reply_to)
    if edit is Edit.CONFLICT:
        text = gettext("Reply-To has changed since you opened this page. Now saved: %(email)s.", email=tenant.reply_to)
        return Refusal("reply_to_based_on", text)
    if edit is Edit.SAVE:
        tenant.reply_to = reply_to or None
        db.session.commit()
    return None
