"""A connection to a mail server, usable with Flask-Mail: sends messages and returns a reply for each recipient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

import flask_mail

from portal import config
from portal.database.engine import DATABASE_ERRORS
from portal.database.process_locks import ProcessLock
from portal.mail_servers.advice import MICROSOFT, is_host_of
from portal.mail_servers.smtp.concurrency import take_mailbox_session
from portal.mail_servers.smtp.connect import Deadline, Timeouts, connect, resolve, settings_failure, tls_context
from portal.mail_servers.smtp.mime import UnsafeHeader, ascii_address, message_bytes
from portal.mail_servers.smtp.network_policy import PUBLIC_INTERNET, NetworkPolicy
from portal.mail_servers.smtp.outcome import BUSY, ReplyKind, SmtpFailure, SmtpReply, Stage
from portal.mail_servers.smtp.sasl import MECHANISMS, TokenCredentials
from portal.mail_servers.smtp.session import ObservedSession, Observer, SmtpSession
from portal.web.i18n import to_translate


class Encryption(StrEnum):
    """How the connection is encrypted; the chosen encryption is never given up."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class AuthMode(StrEnum):
    """How to sign in; AUTO uses the best mechanism that the mail server offers."""

    NONE = "none"
    AUTO = "auto"
    LOGIN = "login"
    PLAIN = "plain"
    OAUTH = "oauth"  # with an access token instead of a password


class TokenSource(Protocol):
    """Where the access tokens of one OAuth connection come from: two are equal if they are of the same connection.

    `repr` leaves tokens out.
    """

    @property
    def mailbox_provider(self) -> str:
        """The provider that issues the tokens: `microsoft` or `google`."""

    def access_token(self, *, rejected: str | None = None) -> str:
        """Return an access token that is valid now. `rejected` is one that the mail server has just rejected.

        Raises:
            SmtpFailure: at the stage TOKEN. Its kind is SETTINGS if a person has to act, for example sign in again.
        """


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """How to connect to a mail server. `repr` leaves the password out. With OAUTH the username is the mailbox."""

    host: str
    port: int
    encryption: Encryption
    auth_mode: AuthMode
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    # From the portal's configuration:
    network_policy: NetworkPolicy = PUBLIC_INTERNET
    helo_name: str | None = None  # for EHLO, unless the provider expects another. None: our IP address
    ca_file: Path | None = None  # of additionally trusted certificate authorities
    owner: int | None = None  # the tenant; None: the system. Connections and lookups are limited for each owner
    token_source: TokenSource | None = None  # with OAUTH
    limited_mailbox: str | None = field(init=False)  # that signs in, if its provider limits its sessions

    def __post_init__(self) -> None:
        """Find out which mailbox has limited sessions: see `concurrency`."""
        source = self.token_source
        is_microsoft = source.mailbox_provider == "microsoft" if source else is_host_of(MICROSOFT, self.host)
        is_limited = self.username and self.signs_in and is_microsoft
        object.__setattr__(self, "limited_mailbox", self.username.lower() if self.username and is_limited else None)

    def for_owner(self, tenant_id: int | None) -> Self:
        """Return the settings of a tenant's mail server, or of the system's (None), with the portal's configuration."""
        portal = config.current()
        policy = NetworkPolicy(portal.smtp_allowed_networks, unrestricted=tenant_id is None)  # the system's is anywhere
        configured = replace(self, helo_name=self.helo_name or portal.helo_name, ca_file=portal.mail_ca_file)
        return replace(configured, network_policy=policy, owner=tenant_id)

    @property
    def signs_in(self) -> bool:
        """Whether the portal signs in."""
        return self.auth_mode is not AuthMode.NONE


PATIENT_WAIT_FOR_MAILBOX = 3.0  # seconds: longer than other processes keep an unused session
TOKEN_REJECTED = 535  # RFC 4954, section 6
DEFAULT_TIMEOUTS = Timeouts()
# Where nobody waits for the result.
WORKER_TIMEOUTS = Timeouts(connect=30.0, command=60.0, total=100.0, reply=60.0)
PATIENT_TIMEOUTS = Timeouts(connect=60.0, command=300.0, total=600.0, reply=600.0)  # RFC 5321, section 4.5.3.2


class RecipientsNotAccepted(Exception):
    """Raised by Flask-Mail's `send`; `replies` has the reply for each recipient."""

    def __init__(self, replies: Mapping[str, SmtpReply]) -> None:
        super().__init__(replies)
        self.replies = replies


class SmtpConnection(flask_mail.Connection):
    """A connection to one mail server: `open`, `deliver` any number of times, `close`.

    As a context manager it is a Flask-Mail connection: `message.send(connection)`.
    """

    host: SmtpSession | None  # Flask-Mail's name for the session

    def __init__(
        self, settings: SmtpSettings, timeouts: Timeouts = DEFAULT_TIMEOUTS, observer: Observer | None = None
    ) -> None:
        super().__init__(flask_mail.Mail())  # bound to no application: none of its settings are read
        self.settings = settings
        self.timeouts = timeouts
        self.observer = observer
        self._mailbox_session: ProcessLock | None = None

    def open(self, deadline: Deadline | None = None) -> None:
        """Connect, negotiate encryption and sign in. SmtpFailure: with the stage; the connection is closed.

        An access token is fetched first: without one there is no point in connecting. If the mail server rejects one
        that was kept, a new one is tried once.
        """
        deadline, settings = deadline or Deadline(self.timeouts), self.settings
        credentials = self._token_credentials() if settings.auth_mode is AuthMode.OAUTH else None
        if settings.limited_mailbox:
            max_wait = deadline.timeouts.mailbox
            self._mailbox_session = take_mailbox_session(settings.owner, settings.limited_mailbox, max_wait)
        try:
            self._open_session(deadline, credentials)
        except SmtpFailure as failure:
            is_rejected = failure.reply.stage is Stage.AUTH and failure.reply.code == TOKEN_REJECTED
            if credentials is None or not is_rejected:
                raise
            renewed = self._token_credentials(rejected=credentials.token)
            if renewed == credentials:
                raise
            # In a new session: a mail server may end one after a failed sign-in.
            self._open_session(deadline, renewed, rejected=credentials)
        finally:
            if self.host is None:
                self._end_mailbox_session()

    def _open_session(
        self, deadline: Deadline, credentials: TokenCredentials | None, rejected: TokenCredentials | None = None
    ) -> None:
        settings, observer = self.settings, self.observer
        deadline.start_step(deadline.timeouts.connect)
        if observer:
            observer.on_stage(Stage.NAME)
        addresses = resolve(settings.host, settings.port, deadline, settings.owner)
        sock = connect(addresses, settings.network_policy, deadline, observer.on_connecting if observer else None)
        arguments = (sock, settings.helo_name, deadline)
        session = ObservedSession(*arguments, observer) if observer else SmtpSession(*arguments)
        session.hide_password(settings.username, settings.password)
        for secret in filter(None, (credentials, rejected)):
            session.hide_token(secret)
        try:
            self._begin_session(session, credentials)
            self.host = session
        finally:
            if self.host is None:
                session.quit_and_close()

    def _begin_session(self, session: SmtpSession, credentials: TokenCredentials | None) -> None:
        settings = self.settings
        in_clear = settings.signs_in and settings.encryption is Encryption.NONE
        if in_clear and not settings.network_policy.trusts(session.peer_ip_address):
            raise settings_failure(Stage.AUTH, to_translate("No password is sent without encryption."))
        if settings.encryption is Encryption.TLS:
            session.begin_tls(tls_context(settings.ca_file), settings.host)
        # Without EHLO there is neither STARTTLS nor sign-in.
        session.greet(helo_is_enough=settings.encryption is not Encryption.STARTTLS and not settings.signs_in)
        if settings.encryption is Encryption.STARTTLS:
            session.start_tls(tls_context(settings.ca_file), settings.host)
        if credentials:
            session.sign_in_with_token(credentials)
        elif settings.signs_in:
            mechanisms = list(MECHANISMS) if settings.auth_mode is AuthMode.AUTO else [settings.auth_mode.upper()]
            session.sign_in(mechanisms, settings.username, settings.password)
        session.secrets.end_sign_in()

    def _token_credentials(self, *, rejected: str | None = None) -> TokenCredentials:
        mailbox, source = self.settings.username, self.settings.token_source
        if not mailbox or source is None:
            raise settings_failure(Stage.TOKEN, to_translate("No mailbox is connected."))
        try:
            token = source.access_token(rejected=rejected)
        except DATABASE_ERRORS:  # the mail server was not asked
            raise SmtpFailure(BUSY) from None
        return TokenCredentials(mailbox, token, self.settings.host, self.settings.port)

    def deliver(
        self,
        message: flask_mail.Message,
        sender_email: str,
        recipients: Sequence[str],
        deadline: Deadline | None = None,
    ) -> dict[str, SmtpReply]:
        """Send one message over the open connection and return the reply for each of these envelope recipients.

        The message's own recipients are ignored. `deadline` is the one given to `open`, if both share it.

        Raises:
            UnsafeHeader: the message or the sender cannot be sent safely.
        """
        session = self._session()
        session.deadline = deadline or Deadline(self.timeouts)
        content, sender = message_bytes(message), ascii_address(sender_email)
        ascii_recipients, rejected = {}, {}
        for recipient in recipients:
            try:
                ascii_recipients[recipient] = ascii_address(recipient)
            except UnsafeHeader as error:
                rejected[recipient] = SmtpReply(ReplyKind.REJECTED, Stage.RCPT, text=str(error))
        unique = list(dict.fromkeys(ascii_recipients.values()))
        replies = session.transact(sender, unique, content) if unique else {}
        return {recipient: rejected.get(recipient) or replies[ascii_recipients[recipient]] for recipient in recipients}

    @property
    def is_reusable(self) -> bool:
        """Whether another message may be sent: the last one ended well, and the mail server has not closed since."""
        return self.may_be_kept and self._session().is_quiet

    @property
    def may_be_kept(self) -> bool:
        """Whether the last message ended well."""
        return self.host is not None and self.host.is_reusable

    def close(self, *, wait: bool = True) -> None:
        """Quit and close, waiting briefly for the mail server's reply; errors are ignored."""
        if self.host is not None:
            self.host.quit_and_close(wait=wait)
        self.abandon()

    def abandon(self) -> None:
        """Close without a command to the mail server."""
        if self.host is not None:
            self.host.close()
            self.host = None
        self._end_mailbox_session()

    def _end_mailbox_session(self) -> None:
        if self._mailbox_session is not None:
            self._mailbox_session.release()
            self._mailbox_session = None

    def _session(self) -> SmtpSession:
        if self.host is None:
            raise RuntimeError("open() comes first")
        return self.host

    # Flask-Mail's own interface

    def configure_host(self) -> SmtpSession:
        """Open the connection, for Flask-Mail."""
        self.open()
        return self._session()

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: flask_mail.Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Send a message to all recipients that it names, or raise RecipientsNotAccepted if one was not accepted."""
        recipients = [_email(recipient) for recipient in message.send_to]
        replies = self.deliver(message, _email(envelope_from or message.sender), recipients)
        self.num_emails += 1
        if any(reply.kind is not ReplyKind.ACCEPTED for reply in replies.values()):
            raise RecipientsNotAccepted(replies)


def send(
    settings: SmtpSettings,
    message: flask_mail.Message,
    sender_email: str,
    recipients: Sequence[str],
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    observer: Observer | None = None,
) -> dict[str, SmtpReply]:
    """Send one message over a connection of its own, and return the reply for each envelope recipient.

    Raises:
        UnsafeHeader: the message or the sender cannot be sent safely.
    """
    deadline = Deadline(replace(timeouts, mailbox=PATIENT_WAIT_FOR_MAILBOX))
    connection = SmtpConnection(settings, timeouts, observer)
    try:
        connection.open(deadline)
        return connection.deliver(message, sender_email, recipients, deadline)
    except SmtpFailure as failure:
        return dict.fromkeys(recipients, failure.reply)
    finally:
        connection.close()


def _email(mailbox: str | tuple[str, str]) -> str:
    return mailbox if isinstance(mailbox, str) else mailbox[1]
