"""Connections of this process to mail servers, kept open for the next message.

A connection is used only for messages with exactly the settings that it was opened with. If a kept connection fails
before the mail server has the message, or has reached a limit, the message is sent once more over a new one, as far as
its time allows.
"""

import atexit
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import NamedTuple

from flask import Flask, current_app

from portal.config import Settings
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS, SendResult, SmtpConnection, SmtpSettings, Timeouts
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits, ConcurrencySlots
from portal.mail_servers.smtp.connect import Deadline
from portal.mail_servers.smtp.mailbox_limit import MAX_SESSIONS
from portal.mail_servers.smtp.mime import MimeMessage
from portal.mail_servers.smtp.outcome import (
    BUSY,
    Pause,
    ReplyKind,
    SmtpFailure,
    SmtpReply,
    longest_pause,
    may_succeed_in_new_session,
)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections are kept, and for how long; times in seconds."""

    idle_connections: int = 64  # for all mail servers together
    idle_timeout: float = 30.0  # shorter than what servers and firewalls allow, so that no NOOP is needed
    idle_timeout_of_limited_mailbox: float = 2.0  # other processes may be waiting for the session
    max_age: float = 600.0
    messages_per_connection: int = 100


class _Envelope(NamedTuple):
    message: MimeMessage
    sender_email: str
    recipients: Sequence[str]
    timeouts: Timeouts
    deadline: Deadline


@dataclass(slots=True, eq=False)
class _PooledConnection:
    connection: SmtpConnection
    created_at: float = field(default_factory=time.monotonic)
    messages: int = 0
    expires_at: float = 0.0


class Pool:
    """The connections of one process. Threads may share it."""

    def __init__(self, limits: PoolLimits, concurrency: ConcurrencyLimits) -> None:
        self.limits = limits
        self.slots = ConcurrencySlots(concurrency)
        self._idle: list[_PooledConnection] = []  # the one that has been idle longest first
        self.reset()

    def reset(self) -> None:
        """Abandon all connections without a command to the mail servers: after a fork they are the parent's."""
        self.slots = ConcurrencySlots(self.slots.limits)
        self._lock = Lock()
        self._closer: Thread | None = None
        self._wake_closer, self._closer_wakes_at = Event(), float("inf")
        for pooled in self._idle:
            pooled.connection.abandon()
        self._idle = []

    def send(
        self,
        settings: SmtpSettings,
        message: MimeMessage,
        sender_email: str,
        recipients: Sequence[str],
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> SendResult:
        """Send one message as `client.send` does, over a kept connection if there is one.

        Returns `BUSY` for each recipient where its owner has no free slot: that is no reason to pause the mail server.
        """
        envelope = _Envelope(message, sender_email, recipients, timeouts, Deadline(timeouts.total))
        at_most = MAX_SESSIONS if settings.limited_mailbox else None
        with self.slots.acquire(settings.owner, at_most=at_most) as acquired:
            if not acquired:
                return SendResult(dict.fromkeys(recipients, BUSY), Pause.NONE)
            replies = self._send(settings, envelope)
        return SendResult(replies, longest_pause(replies.values()))

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for pooled in idle:
            pooled.connection.close(wait=False)

    def _send(self, settings: SmtpSettings, envelope: _Envelope) -> dict[str, SmtpReply]:
        kept = self._take(settings)
        if kept is not None:
            replies = self._send_over(kept, envelope)
            if envelope.deadline.is_over or not _may_try_again(replies):
                return replies
        return self._send_over(_PooledConnection(SmtpConnection(settings)), envelope)

    def _send_over(self, pooled: _PooledConnection, envelope: _Envelope) -> dict[str, SmtpReply]:
        connection, deadline = pooled.connection, envelope.deadline
        connection.timeouts = envelope.timeouts
        try:
            if connection.host is None:
                connection.open(deadline)
            return connection.deliver(envelope.message, envelope.sender_email, envelope.recipients, deadline)
        except SmtpFailure as failure:
            return dict.fromkeys(envelope.recipients, failure.reply)
        finally:
            self._put_back(pooled)

    def _take(self, settings: SmtpSettings) -> _PooledConnection | None:
        """Return the most recently used connection with these settings that is still open, or None."""
        while True:
            now = time.monotonic()
            with self._lock:
                usable = (kept for kept in reversed(self._idle) if kept.expires_at > now)
                newest = next((kept for kept in usable if kept.connection.settings == settings), None)
                if newest is not None:
                    self._idle.remove(newest)
            if newest is None:
                self._close_outdated(settings)
                return None
            if newest.connection.is_reusable:
                return newest
            newest.connection.close(wait=False)

    def _close_outdated(self, settings: SmtpSettings) -> None:
        """Close connections to a limited mailbox that were opened with other settings: they count as sessions."""
        if settings.limited_mailbox is None:
            return
        with self._lock:
            outdated = [pooled for pooled in self._idle if _is_same_mailbox(pooled.connection.settings, settings)]
            self._idle = [pooled for pooled in self._idle if pooled not in outdated]
        for pooled in outdated:
            pooled.connection.close(wait=False)

    def _put_back(self, pooled: _PooledConnection) -> None:
        limits, is_limited = self.limits, pooled.connection.settings.limited_mailbox is not None
        idle_timeout = limits.idle_timeout_of_limited_mailbox if is_limited else limits.idle_timeout
        pooled.messages += 1
        pooled.expires_at = min(time.monotonic() + idle_timeout, pooled.created_at + limits.max_age)
        surplus = pooled
        if pooled.connection.is_reusable and pooled.messages < self.limits.messages_per_connection:
            with self._lock:
                self._idle.append(pooled)
                if len(self._idle) <= self.limits.idle_connections:
                    self._start_closer()
                    return
                surplus = self._idle.pop(0)
        surplus.connection.close(wait=False)

    def _start_closer(self) -> None:
        """Have a thread close the connections that have been idle too long, the last one too."""
        if self._idle[-1].expires_at < self._closer_wakes_at:
            self._wake_closer.set()
        if self._closer is None:
            closer = Thread(target=self._close_in_time, name="smtp-pool", daemon=True)
            with suppress(RuntimeError):  # no thread can be started: the next message tries again
                closer.start()
                self._closer = closer

    def _close_in_time(self) -> None:
        while (seconds := self._close_expired()) is not None:
            self._wake_closer.wait(seconds)

    def _close_expired(self) -> float | None:
        """Close expired connections. Returns the seconds until the next one expires, None without connections."""
        now = time.monotonic()
        with self._lock:
            expired = [pooled for pooled in self._idle if pooled.expires_at <= now]
            self._idle = [pooled for pooled in self._idle if pooled.expires_at > now]
            if not self._idle:
                self._closer = None
            self._closer_wakes_at = min((pooled.expires_at for pooled in self._idle), default=float("inf"))
            seconds = self._closer_wakes_at - now if self._idle else None
            self._wake_closer.clear()
        for pooled in expired:
            pooled.connection.close(wait=False)
        return seconds


def _is_same_mailbox(one: SmtpSettings, other: SmtpSettings) -> bool:
    return (one.owner, one.limited_mailbox) == (other.owner, other.limited_mailbox)


def _may_try_again(replies: Mapping[str, SmtpReply]) -> bool:
    """Return whether a kept connection was dead, expired or used up, and the mail server surely has no message yet."""
    may_be_sent = any(reply.kind in (ReplyKind.ACCEPTED, ReplyKind.UNKNOWN) for reply in replies.values())
    return not may_be_sent and any(map(may_succeed_in_new_session, replies.values()))


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its pool. It is closed with the process, and a forked process starts with an empty one."""
    concurrency = ConcurrencyLimits(per_server=settings.concurrent_emails_per_server, total=settings.concurrent_emails)
    app.extensions["smtp_pool"] = pool = Pool(PoolLimits(), concurrency)
    atexit.register(pool.close)
    os.register_at_fork(after_in_child=pool.reset)


def current() -> Pool:
    """Return the application's pool."""
    pool: Pool = current_app.extensions["smtp_pool"]
    return pool
