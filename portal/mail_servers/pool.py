"""Sessions of this process at its mail servers, kept for the next mail.

A session carries only mails with the very settings that it was opened with. A mail that a kept session does not begin
to take is offered to a new one before anybody hears of it, as far as its time allows.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from portal.languages import to_translate
from portal.mail_servers.composing import MimeMessage
from portal.mail_servers.connection import STANDARD_BUDGET, Budget, Connection, SendResult, SmtpSettings
from portal.mail_servers.dialling import Deadline
from portal.mail_servers.outcome import Fault, Kind, Outcome, Pause, Stage, longest_pause
from portal.mail_servers.places import PlaceLimits, Places

BUSY = Outcome(
    Kind.TEMPORARY, Stage.CONNECT, None, None, to_translate("The mail server is busy with other mails of this portal.")
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions are kept, and for how long; times in seconds."""

    kept: int = 64  # sessions without a mail, of all mail servers together
    idle: float = 30.0  # without a mail: shorter than what servers and firewalls allow, so that no NOOP is needed
    age: float = 600.0
    mails: int = 100  # through one session


class _Key(NamedTuple):
    """What two mails must have in common to go through the same session."""

    settings: SmtpSettings
    helo_name: str | None
    ca_file: Path | None


class _Mail(NamedTuple):
    message: MimeMessage
    sender: str
    recipients: Sequence[str]


@dataclass(slots=True, eq=False)
class _Session:
    key: _Key
    connection: Connection
    born: float = field(default_factory=time.monotonic)
    mails: int = 0
    until: float = 0.0  # when it will have waited long enough for a mail


class Pool:
    """The sessions of one process. Threads may share it."""

    def __init__(self, limits: Limits, places: PlaceLimits) -> None:
        self.limits = limits
        self.places = Places(places)
        self._waiting: list[_Session] = []  # for a mail, the one that waits longest first
        self.start_anew()

    def start_anew(self) -> None:
        """Forget all sessions without a word to the mail servers: in a forked process they are its parent's."""
        self.places = Places(self.places.limits)
        self._lock = Lock()
        self._closer: Thread | None = None
        for session in self._waiting:
            session.connection.abandon()
        self._waiting = []

    def send(
        self,
        settings: SmtpSettings,
        message: MimeMessage,
        sender_address: str,
        recipients: Sequence[str],
        budget: Budget = STANDARD_BUDGET,
        *,
        helo_name: str | None = None,
        ca_file: Path | None = None,
    ) -> SendResult:
        """Send one message as `connection.send` does, over a kept session where there is one.

        Returns `BUSY` for each recipient where all places stay taken for a moment: that is no reason to pause the
        mail server.

        Raises:
            UnsafeHeader: the message or the sender cannot be sent without risk of being read as something else.
        """
        deadline = Deadline(budget.total)
        key = _Key(settings, helo_name, ca_file)
        with self.places.take(key) as free:
            if not free:
                return SendResult(dict.fromkeys(recipients, BUSY), Pause.NONE)
            outcomes = self._send(key, _Mail(message, sender_address, recipients), budget, deadline)
        return SendResult(outcomes, longest_pause(outcomes.values()))

    def close(self) -> None:
        """Take leave of every mail server that no mail is sent to right now."""
        with self._lock:
            sessions, self._waiting = self._waiting, []
        for session in sessions:
            session.connection.close(wait=False)

    def _send(self, key: _Key, mail: _Mail, budget: Budget, deadline: Deadline) -> dict[str, Outcome]:
        kept = self._take(key)
        if kept is not None:
            outcomes = self._try(kept, mail, budget, deadline)
            # A session can die, expire or be full: nothing was sent yet, so that a new one may be asked the same.
            if deadline.is_over or all(outcome.stage is not Stage.MAIL for outcome in outcomes.values()):
                return outcomes
        connection = Connection(key.settings, helo_name=key.helo_name, ca_file=key.ca_file)
        return self._try(_Session(key, connection), mail, budget, deadline)

    def _try(self, session: _Session, mail: _Mail, budget: Budget, deadline: Deadline) -> dict[str, Outcome]:
        connection = session.connection
        connection.budget = budget
        try:
            if connection.host is None:
                connection.open(deadline)
            return connection.deliver(mail.message, mail.sender, mail.recipients, deadline)
        except Fault as fault:
            return dict.fromkeys(mail.recipients, fault.outcome)
        finally:
            self._put_back(session)

    def _take(self, key: _Key) -> _Session | None:
        """Return the session that was used last, None where none is left that is alive."""
        while True:
            now = time.monotonic()
            with self._lock:
                fitting = [session for session in self._waiting if session.key == key and session.until > now]
                if not fitting:
                    return None
                self._waiting.remove(fitting[-1])
            if fitting[-1].connection.is_reusable:
                return fitting[-1]
            fitting[-1].connection.close(wait=False)

    def _put_back(self, session: _Session) -> None:
        session.mails += 1
        session.until = min(time.monotonic() + self.limits.idle, session.born + self.limits.age)
        too_many = session
        if session.connection.is_reusable and session.mails < self.limits.mails:
            with self._lock:
                self._waiting.append(session)
                if len(self._waiting) <= self.limits.kept:
                    self._have_closed()
                    return
                too_many = self._waiting.pop(0)
        too_many.connection.close(wait=False)

    def _have_closed(self) -> None:
        """Have somebody close the sessions that wait too long."""
        if self._closer is None:
            closer = Thread(target=self._close_in_time, name="mail-sessions", daemon=True)
            with suppress(RuntimeError):  # no thread is to be had: the next mail asks again
                closer.start()
                self._closer = closer

    def _close_in_time(self) -> None:
        while (seconds := self._close_expired()) is not None:
            time.sleep(seconds)

    def _close_expired(self) -> float | None:
        """Close what waited long enough. Returns the seconds until there is more to close, None where nothing waits."""
        now = time.monotonic()
        with self._lock:
            expired = [session for session in self._waiting if session.until <= now]
            self._waiting = [session for session in self._waiting if session.until > now]
            if not self._waiting:
                self._closer = None
            seconds = min((session.until - now for session in self._waiting), default=None)
        for session in expired:
            session.connection.close(wait=False)
        return seconds
