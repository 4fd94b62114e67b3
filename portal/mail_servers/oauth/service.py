"""Connecting the mailbox of a tenant or of the system, and the state of its connection."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from flask_babel import gettext

from portal.crypto import UnreadableSecret
from portal.database import clock
from portal.database.scope import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import consent, token_requests
from portal.mail_servers.oauth.identity_providers import (
    AppCredentials,
    GrantType,
    IdentityProvider,
    operator_app,
    provider_of_host,
)
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.oauth.token_errors import NOT_CONNECTED
from portal.mail_servers.oauth.token_requests import GrantedTokens, TokenRequest
from portal.mail_servers.smtp.client import AuthMode
from portal.mail_servers.smtp.connect import settings_failure
from portal.mail_servers.smtp.outcome import SmtpFailure, Stage, advice_for
from portal.web.i18n import to_translate

EXPIRY_WARNING: Final = timedelta(days=30)
EXPIRES_SOON: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class EnteredApp:
    """The app of a tenant's own that an administrator entered. Without a secret, the saved one of the app is meant."""

    client_id: str
    directory: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    certificate: str | None = None
    mailbox: str | None = None
    credential_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """The state of the connection of a mail server that is signed in to with OAuth 2.0.

    `state` is `missing` (nobody has signed in yet), `lapsed` or `connected`; `reason` says why it has lapsed and what
    to do. `days_left` until the secret or the certificate expires is None while that is far off, then negative.
    """

    provider: IdentityProvider
    state: str
    mailbox: str = ""
    connected_at: datetime | None = None
    grant_type: GrantType | None = None
    reason: str = ""
    days_left: int | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether the secret or the certificate has expired, or will within a week."""
        return self.days_left is not None and self.days_left <= EXPIRES_SOON.days

    @property
    def problem(self) -> str:
        """Why no email is sent, or an empty text."""
        if self.state == "missing":
            return str(gettext("No mailbox is connected yet, so no email is sent."))
        if self.state == "lapsed":
            text = gettext("The connection to %(mailbox)s has ended, so no email is sent.", mailbox=self.mailbox)
            return str(text)
        return ""

    @property
    def warning(self) -> str:
        """When the secret or the certificate expires if that is soon, or an empty text."""
        if self.days_left is None:
            return ""
        if self.days_left < 0:
            sentence = to_translate("The secret or the certificate for %(mailbox)s has expired.")
        elif self.days_left == 0:
            sentence = to_translate("The secret or the certificate for %(mailbox)s expires today.")
        elif self.days_left == 1:
            sentence = to_translate("The secret or the certificate for %(mailbox)s expires tomorrow.")
        else:
            sentence = to_translate("The secret or the certificate for %(mailbox)s expires in %(days)s days.")
        return str(gettext(sentence, mailbox=self.mailbox, days=self.days_left))


def provider_of(server: MailServer | None) -> IdentityProvider | None:
    """Return the provider that a mail server's access tokens come from. None: it is not signed in to with OAuth 2.0."""
    if server is None or server.auth_mode != AuthMode.OAUTH:
        return None
    return provider_of_host(server.host)


def status(server: MailServer | None, connection: OAuthConnection | None = None) -> MailboxStatus | None:
    """Return the state of the server's connection. None: it is not signed in to with OAuth 2.0."""
    if server is None or provider_of(server) is None:
        return None
    return status_of(server, connection or mail_server_service.get_connection(server.tenant_id))


def status_of(server: MailServer, connection: OAuthConnection | None) -> MailboxStatus | None:
    """Return the state of this connection, where the server's owner has one."""
    provider = provider_of(server)
    if provider is None:
        return None
    if connection is None or connection.connected_at is None or connection.provider != provider.key:
        return MailboxStatus(provider, "missing")
    lapse = settings_failure(Stage.TOKEN, connection.lapse_reason or NOT_CONNECTED)
    return MailboxStatus(
        provider,
        "lapsed" if connection.lapsed_at else "connected",
        connection.mailbox or server.username or "",
        connection.connected_at,
        GrantType(connection.grant_type),
        explain(lapse) if connection.lapsed_at else "",
        _days_left(connection),
    )


def _days_left(connection: OAuthConnection) -> int | None:
    if connection.credential_expires_at is None:
        return None
    left = connection.credential_expires_at - clock.now()
    return left.days if left <= EXPIRY_WARNING else None


def sign_in_app(provider: IdentityProvider, connection: OAuthConnection | None) -> AppCredentials | None:
    """Return the app with which a person signs in: the owner's own, else the operator's, else None."""
    if connection is not None and _has_own_app(provider, connection):
        return AppCredentials(connection.client_id or "", _readable(connection, "client_secret") or "")
    return operator_app(provider)


def can_sign_in(server: MailServer | None) -> bool:
    """Return whether there is an app with which a person can sign in for this mail server."""
    provider = provider_of(server)
    if server is None or provider is None:
        return False
    return sign_in_app(provider, mail_server_service.get_connection(server.tenant_id)) is not None


def _readable(connection: OAuthConnection, column: str) -> str | None:
    """Return a secret, or None if there is none or its encryption key was removed: the page stays usable."""
    try:
        return connection.read_secret(column)
    except UnreadableSecret:
        return None


def sign_in_directory(provider: IdentityProvider, connection: OAuthConnection | None) -> str | None:
    """Return the Microsoft directory of the owner's own app. The operator's app is for any organisation."""
    return connection.directory if connection is not None and _has_own_app(provider, connection) else None


def _has_own_app(provider: IdentityProvider, connection: OAuthConnection | None) -> bool:
    return (
        connection is not None
        and connection.provider == provider.key
        and connection.grant_type == GrantType.AUTHORIZATION_CODE
        and connection.client_id is not None
    )


def register_app(owner: int | None, entered: EnteredApp) -> OAuthConnection | Refusal:
    """Save the owner's own app, with which a person signs in next. A mailbox that is connected is disconnected."""
    with every_tenant():
        server = mail_server_service.get_server(owner, for_update=True)
        provider = provider_of(server)
        if provider is None:
            return _not_chosen()
        saved = mail_server_service.get_connection(owner)
        kept = _readable(saved, "client_secret") if saved and _is_of_app(saved, entered) else None
        if not (entered.client_secret or kept):
            db.session.rollback()
            return Refusal("client_secret", gettext("Enter the client secret."))
        connection = _replaced(owner, provider, GrantType.AUTHORIZATION_CODE)
        connection.client_id, connection.directory = entered.client_id, entered.directory
        connection.write_secret("client_secret", entered.client_secret or kept)
        connection.credential_expires_at = entered.credential_expires_at
        db.session.commit()
    return connection


def _is_of_app(saved: OAuthConnection, entered: EnteredApp) -> bool:
    return (saved.client_id, saved.directory) == (entered.client_id, entered.directory)


def complete_sign_in(
    owner: int | None, provider: IdentityProvider, code: str, code_verifier: str
) -> Refusal | SmtpFailure | None:
    """Connect the mailbox of the person whose browser came back with this code, and release held email."""
    connection = mail_server_service.get_connection(owner)
    app, directory = sign_in_app(provider, connection), sign_in_directory(provider, connection)
    db.session.commit()  # no transaction waits for a token server
    if app is None:
        return _not_chosen()
    try:
        granted = consent.redeem(provider, app, directory, code, code_verifier)
    except SmtpFailure as failure:
        return failure
    return connect_signed_in(owner, provider, granted)


def connect_signed_in(owner: int | None, provider: IdentityProvider, granted: GrantedTokens) -> Refusal | None:
    """Connect the mailbox that these tokens are for, and release held email."""
    if granted.refresh_token is None:
        text = gettext(
            "%(provider)s allowed access for an hour only. Remove the portal's access in the account, then sign in.",
            provider=provider.label,
        )
        return Refusal("sign_in", text)
    with every_tenant():
        server = mail_server_service.get_server(owner, for_update=True)
        if server is None or provider_of(server) != provider:
            return _not_chosen()
        saved = mail_server_service.get_connection(owner)
        follows_account = server.username in (None, saved.mailbox if saved else None)
        if not (server.username or granted.account):
            db.session.rollback()
            return Refusal("sign_in", gettext("Enter the mailbox as the username, save, and sign in again."))
        keeps_app = _has_own_app(provider, saved)
        connection = _replaced(owner, provider, GrantType.AUTHORIZATION_CODE, keeps_app=keeps_app)
        connection.mailbox = granted.account or server.username
        if granted.account and follows_account:
            server.username = granted.account
        _finish(server, connection, granted)
    return None


def connect_without_person(
    owner: int | None, grant_type: GrantType, entered: EnteredApp
) -> MailboxStatus | Refusal | SmtpFailure:
    """Connect a mailbox with the rights of an app or of a service account, if the provider grants a token for it."""
    provider = provider_of(mail_server_service.get_server(owner))
    if provider is None or grant_type not in provider.grant_types:
        return _not_chosen()
    saved = mail_server_service.get_connection(owner)
    is_same = saved is not None and saved.grant_type == grant_type and _is_of_app(saved, entered)
    secret, key, certificate = entered.client_secret, entered.private_key, entered.certificate
    if not (secret or key) and saved is not None and is_same:
        secret, key = _readable(saved, "client_secret"), _readable(saved, "private_key")
        certificate = saved.certificate
    if not (secret or key):
        return Refusal("client_secret", gettext("Enter the client secret or the certificate."))
    request = TokenRequest(
        *(provider, grant_type, entered.client_id, secret or "", key, certificate, entered.directory, entered.mailbox)
    )
    db.session.commit()  # no transaction waits for a token server
    try:
        granted = token_requests.fetch(request)
    except SmtpFailure as failure:
        return failure
    with every_tenant():
        server = mail_server_service.get_server(owner, for_update=True)
        if server is None or provider_of(server) != provider:
            return _not_chosen()
        connection = _replaced(owner, provider, grant_type)
        connection.client_id, connection.directory = entered.client_id, entered.directory
        connection.mailbox = server.username = entered.mailbox
        connection.certificate, connection.credential_expires_at = certificate, entered.credential_expires_at
        connection.write_secret("client_secret", secret)
        connection.write_secret("private_key", key)
        _finish(server, connection, granted)
        connected = status(server, connection)
    assert connected is not None
    return connected


def disconnect(owner: int | None) -> None:
    """Forget the connection with all its secrets. The mail server's settings stay."""
    with every_tenant():
        mail_server_service.get_server(owner, for_update=True)
        if (connection := mail_server_service.get_connection(owner)) is not None:
            db.session.delete(connection)
        db.session.commit()


def explain(failure: SmtpFailure) -> str:
    """Return the provider's error and what to do about it, translated."""
    advice = gettext(advice_for(failure.reply, will_retry=False))
    return f"{failure.reply.line} {advice}"


def _replaced(
    owner: int | None, provider: IdentityProvider, grant_type: GrantType, *, keeps_app: bool = False
) -> OAuthConnection:
    """Return the owner's connection without anything of an earlier one, except its app if so wished, or a new one."""
    connection = mail_server_service.get_connection(owner) or OAuthConnection(tenant_id=owner)
    connection.provider, connection.grant_type = provider.key, grant_type
    if not keeps_app:
        connection.client_id = connection.directory = connection.credential_expires_at = None
        connection.write_secret("client_secret", None)
    connection.mailbox = connection.certificate = None
    for column in ("private_key", "refresh_token", "access_token"):
        connection.write_secret(column, None)
    connection.access_token_expires_at = connection.refreshing_until = None
    connection.connected_at = connection.lapsed_at = connection.lapse_reason = None
    db.session.add(connection)
    return connection


def _finish(server: MailServer, connection: OAuthConnection, granted: GrantedTokens) -> None:
    """Store the tokens, let the mail server be used again, and commit."""
    now = clock.now()
    connection.write_secret("access_token", granted.access_token)
    connection.write_secret("refresh_token", granted.refresh_token)
    connection.access_token_expires_at = now + timedelta(seconds=granted.lifetime)
    connection.connected_at = now
    mail_server_service.use_again(server)
    db.session.commit()


def _not_chosen() -> Refusal:
    db.session.rollback()
    return Refusal("sign_in", gettext("Choose OAuth 2.0 and the provider's mail server first, and save."))
