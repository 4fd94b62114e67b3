"""The connection to a mail server: Flask-Mail's, with deadlines, verified TLS and an outcome for each recipient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import flask_mail

from portal.languages import to_translate
from portal.mail_servers.composing import UnsafeHeader, ascii_address, content_of
from portal.mail_servers.dialling import Deadline, dial, resolve, settings_fault, tls_context
from portal.mail_servers.mechanisms import BEST_FIRST
from portal.mail_servers.outcome import Fault, Kind, Outcome, Pause, Stage, longest_pause
from portal.mail_servers.reach import INTERNET, Reach
from portal.mail_servers.smtp import Session
from portal.mail_servers.watching import Observer, WatchedSession


class Encryption(StrEnum):
    """How the wire is protected; what is asked for is never given up."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class AuthMode(StrEnum):
    """How to sign in; AUTO is the best of what the mail server offers."""

    NONE = "none"
    AUTO = "auto"
    LOGIN = "login"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """What has to be known to reach a mail server, and where it may be. The password is kept out of `repr`."""

    host: str
    port: int
    encryption: Encryption
    auth_mode: AuthMode
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    reach: Reach = INTERNET


@dataclass(frozen=True, slots=True)
class Budget:
    """How long things may take, in seconds: the table "Times" of `docs/delivery.md`."""

    connect: float = 5.0  # name and connect together
    command: float = 10.0
    total: float = 10.0  # up to the final dot
    reply: float = 60.0  # to the final dot


STANDARD_BUDGET = Budget()


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a mail for each recipient, and how long the mail server is to be left alone."""

    outcomes: Mapping[str, Outcome]
    pause: Pause


class NotSent(Exception):
    """Raised by Flask-Mail's way of sending where a recipient was not accepted; `outcomes` says for each what came."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        super().__init__(outcomes)
        self.outcomes = outcomes


class Connection(flask_mail.Connection):
    """A conversation with one mail server: `open`, any number of `deliver`, `close`.

    Used as a context manager it is a Flask-Mail connection and takes part in its API: `message.send(connection)`.
    """

    host: Session | None

    def __init__(
        self,
        settings: SmtpSettings,
        budget: Budget = STANDARD_BUDGET,
        *,
        helo_name: str | None = None,
        ca_file: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(flask_mail.Mail())  # bound to no application: none of its settings are read
        self.settings = settings
        self.budget = budget
        self.helo_name = helo_name
        self.ca_file = ca_file
        self.observer = observer

    def open(self, deadline: Deadline | None = None) -> None:
        """Connect, agree on encryption and sign in.

        Raises:
            Fault: with the stage that it came to; the connection is closed.
        """
        deadline = deadline or Deadline(self.budget.total)
        deadline.allow(self.budget.connect)
        observer = self.observer
        addresses = resolve(self.settings.host, self.settings.port, deadline)
        sock = dial(addresses, self.settings.reach, deadline, observer.dials if observer else None)
        talk = (sock, self.helo_name, deadline, self.budget.command)
        session = WatchedSession(*talk, observer) if observer else Session(*talk)
        session.hide(self.settings.username, self.settings.password)
        try:
            self._introduce(session)
        except Fault:
            session.leave()
            raise
        self.host = session

    def _introduce(self, session: Session) -> None:
        settings = self.settings
        signs_in = settings.auth_mode is not AuthMode.NONE
        if signs_in and settings.encryption is Encryption.NONE and not settings.reach.trusts(session.peer):
            raise settings_fault(Stage.AUTH, to_translate("No password is sent without encryption."))
        if settings.encryption is Encryption.TLS:
            session.secure(tls_context(self.ca_file), settings.host)
        session.greet()
        if settings.encryption is Encryption.STARTTLS:
            session.start_tls(tls_context(self.ca_file), settings.host)
        if signs_in:
            mechanisms = BEST_FIRST if settings.auth_mode is AuthMode.AUTO else [settings.auth_mode.upper()]
            session.sign_in(mechanisms, settings.username, settings.password)
        # From here on a server repeats words that tenants chose, such as a recipient's address: a word that was hidden
        # there would tell them that it is a piece of the password.
        session.secrets.clear()

    def deliver(
        self,
        message: flask_mail.Message,
        sender_address: str,
        recipients: Sequence[str],
        deadline: Deadline | None = None,
    ) -> dict[str, Outcome]:
        """Send one message over the open connection and return what became of it for each recipient.

        Args:
            message: what to send.
            sender_address: the envelope's sender.
            recipients: the envelope's recipients; the message's own are not looked at.
            deadline: the one that `open` had, where both are to share it; else a new one begins.

        Raises:
            UnsafeHeader: the message or the sender cannot be sent without risk of being read as something else.
        """
        session = self._session()
        session.deadline, session.command_seconds = deadline or Deadline(self.budget.total), self.budget.command
        content, sender = content_of(message), ascii_address(sender_address)
        paths, refused = {}, {}
        for recipient in recipients:
            try:
                paths[recipient] = ascii_address(recipient)
            except UnsafeHeader as problem:
                refused[recipient] = Outcome(Kind.REFUSED, Stage.RCPT, None, None, str(problem))
        unique = list(dict.fromkeys(paths.values()))
        replies = session.transact(sender, unique, content, self.budget.reply) if unique else {}
        return {recipient: refused.get(recipient) or replies[paths[recipient]] for recipient in recipients}

    @property
    def is_reusable(self) -> bool:
        """Whether another mail may be sent: the last one ended well, and the mail server did not close since."""
        return self.host is not None and self.host.reusable and self.host.is_quiet

    def close(self, *, wait: bool = True) -> None:
        """Take leave of the mail server, waiting a moment for its reply; what goes wrong is of no consequence."""
        if self.host is not None:
            self.host.leave(wait=wait)
            self.host = None

    def abandon(self) -> None:
        """Close without a word to the mail server."""
        if self.host is not None:
            self.host.close()
            self.host = None

    def _session(self) -> Session:
        if self.host is None:
            raise RuntimeError("open() comes first")
        return self.host

    # Flask-Mail's own API, on top of the three.

    def configure_host(self) -> Session:
        """Open the connection: Flask-Mail's name for it."""
        self.open()
        return self._session()

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: flask_mail.Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Send a message to everyone that it names.

        Raises:
            NotSent: a recipient was not accepted.
        """
        recipients = [_address(recipient) for recipient in message.send_to]
        outcomes = self.deliver(message, _address(envelope_from or message.sender), recipients)
        self.num_emails += 1
        if any(outcome.kind is not Kind.SENT for outcome in outcomes.values()):
            raise NotSent(outcomes)


def send(
    settings: SmtpSettings,
    message: flask_mail.Message,
    sender_address: str,
    recipients: Sequence[str],
    budget: Budget = STANDARD_BUDGET,
    *,
    helo_name: str | None = None,
    ca_file: Path | None = None,
    observer: Observer | None = None,
) -> SendResult:
    """Send one message over a connection of its own.

    Args:
        settings: the mail server.
        message: what to send, best made by `composing.compose`.
        sender_address: the envelope's sender.
        recipients: the envelope's recipients.
        budget: how long it may take; the connection is left by then, whatever the mail server does.
        helo_name: our name for EHLO; without one, our address.
        ca_file: certificate authorities trusted besides the machine's own.
        observer: who hears of each step of the conversation as it begins.

    Raises:
        UnsafeHeader: the message or the sender cannot be sent without risk of being read as something else.
    """
    connection = Connection(settings, budget, helo_name=helo_name, ca_file=ca_file, observer=observer)
    deadline = Deadline(budget.total)
    try:
        connection.open(deadline)
        outcomes = connection.deliver(message, sender_address, recipients, deadline)
    except Fault as fault:
        outcomes = dict.fromkeys(recipients, fault.outcome)
    finally:
        connection.close()
    return SendResult(outcomes, longest_pause(outcomes.values()))


def _address(mailbox: str | tuple[str, str]) -> str:
    return mailbox if isinstance(mailbox, str) else mailbox[1]
