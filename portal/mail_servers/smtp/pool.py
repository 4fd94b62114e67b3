"""Connections of this process to mail servers, kept open for the next message.

A connection is used only for messages with exactly the settings that it was opened with. If a kept connection fails
before the mail server has the message, or has reached a limit, the message is sent once more over a new one, as far as
its time allows.
"""

import atexit
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final, NamedTuple

from flask import Flask

from portal import config
from portal.config import Settings
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS, SendResult, SmtpConnection, SmtpSettings, Timeouts
from portal.mail_servers.smtp.concurrency import MAX_MAILBOX_SESSIONS, ConcurrencyLimits, ConcurrencySlots
from portal.mail_servers.smtp.connect import Deadline
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

MAX_IDLE_CONNECTIONS: Final = 1024  # for all mail servers together: so many tenants may take turns


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections are kept, and for how long; times in seconds."""

    idle_connections: int = MAX_IDLE_CONNECTIONS
    idle_connections_to_host: int = 64  # mail servers limit the connections of one client
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


class _PooledConnection(SmtpConnection):
    def __init__(self, settings: SmtpSettings) -> None:
        super().__init__(settings)
        self.created_at, self.messages, self.expires_at = time.monotonic(), 0, 0.0


class _IdleConnections:
    """Kept connections, the one that has been idle longest first, which are found by the owner of their settings."""

    def __init__(self) -> None:
        self._all: dict[_PooledConnection, None] = {}
        self._by_owner: dict[int | None, list[_PooledConnection]] = {}
        self._count_by_host = Counter[str]()

    def add(self, pooled: _PooledConnection) -> None:
        self._all[pooled] = None
        self._count_by_host[pooled.settings.host] += 1
        self._by_owner.setdefault(pooled.settings.owner, []).append(pooled)

    def remove(self, pooled: _PooledConnection) -> None:
        owner = pooled.settings.owner
        del self._all[pooled]
        self._count_by_host[pooled.settings.host] -= 1
        self._by_owner[owner].remove(pooled)
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    def take_if(self, condition: Callable[[_PooledConnection], bool]) -> Sequence[_PooledConnection]:
        """Remove the connections for which this is true, and return them."""
        taken = list(filter(condition, self._all))
        for pooled in taken:
            self.remove(pooled)
        return taken

    def surplus(self, host: str, limits: PoolLimits) -> _PooledConnection | None:
        """Return the connection that is idle for longest of too many, to this host or in all, or None."""
        if self._count_by_host[host] > limits.idle_connections_to_host:
            return next(pooled for pooled in self._all if pooled.settings.host == host)
        return next(iter(self._all)) if len(self._all) > limits.idle_connections else None

    def of_owner(self, owner: int | None) -> Sequence[_PooledConnection]:
        return self._by_owner.get(owner, ())

    def __iter__(self) -> Iterator[_PooledConnection]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class Pool:
    """The connections of one process. Threads may share it."""

    def __init__(self, limits: PoolLimits, concurrency: ConcurrencyLimits) -> None:
        self.limits = limits
        self.slots = ConcurrencySlots(concurrency)
        self._idle = _IdleConnections()
        self.reset()

    def reset(self) -> None:
        """Abandon all connections without a command to the mail servers: after a fork they are the parent's."""
        self.slots = ConcurrencySlots(self.slots.limits)
        self._lock = Lock()
        self._closer: Thread | None = None
        self._wake_closer, self._closer_wakes_at = Event(), float("inf")
        for pooled in self._idle:
            pooled.abandon()
        self._idle = _IdleConnections()

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
        at_most = MAX_MAILBOX_SESSIONS if settings.limited_mailbox else None
        with self.slots.acquire(settings.owner, at_most=at_most) as acquired:
            if not acquired:
                return SendResult(dict.fromkeys(recipients, BUSY), Pause.NONE)
            kept = self._take(settings)
            replies = self._send_over(kept, envelope) if kept else {}
            if kept is None or (not envelope.deadline.is_over and _may_try_again(replies)):
                replies = self._send_over(_PooledConnection(settings), envelope)
        return SendResult(replies, longest_pause(replies.values()))

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, _IdleConnections()
        for pooled in idle:
            pooled.close(wait=False)

    def _send_over(self, pooled: _PooledConnection, envelope: _Envelope) -> dict[str, SmtpReply]:
        pooled.timeouts = envelope.timeouts
        try:
            if pooled.host is None:
                pooled.open(envelope.deadline)
            return pooled.deliver(envelope.message, envelope.sender_email, envelope.recipients, envelope.deadline)
        except SmtpFailure as failure:
            return dict.fromkeys(envelope.recipients, failure.reply)
        finally:
            self._put_back(pooled)

    def _take(self, settings: SmtpSettings) -> _PooledConnection | None:
        """Return the most recently used connection with these settings that is still open, or None."""
        while True:
            now = time.monotonic()
            with self._lock:
                usable = (kept for kept in reversed(self._idle.of_owner(settings.owner)) if kept.expires_at > now)
                newest = next((kept for kept in usable if kept.settings == settings), None)
                if newest is not None:
                    self._idle.remove(newest)
            if newest is None:
                self._close_outdated(settings)
                return None
            if newest.is_reusable:
                return newest
            newest.close(wait=False)

    def _close_outdated(self, settings: SmtpSettings) -> None:
        """Close connections to a limited mailbox that were opened with other settings: they count as sessions."""
        if settings.limited_mailbox is None:
            return
        mailbox = (settings.owner, settings.limited_mailbox)
        with self._lock:
            outdated = self._idle.take_if(lambda it: (it.settings.owner, it.settings.limited_mailbox) == mailbox)
        for pooled in outdated:
            pooled.close(wait=False)

    def _put_back(self, pooled: _PooledConnection) -> None:
        limits, is_limited = self.limits, pooled.settings.limited_mailbox is not None
        idle_timeout = limits.idle_timeout_of_limited_mailbox if is_limited else limits.idle_timeout
        pooled.messages += 1
        pooled.expires_at = min(time.monotonic() + idle_timeout, pooled.created_at + limits.max_age)
        to_close: _PooledConnection | None = pooled
        if pooled.may_be_kept and pooled.messages < limits.messages_per_connection:
            with self._lock:
                self._idle.add(pooled)
                to_close = self._idle.surplus(pooled.settings.host, limits)
                if to_close is None:
                    self._start_closer(pooled.expires_at)
                else:
                    self._idle.remove(to_close)
        if to_close is not None:
            to_close.close(wait=False)

    def _start_closer(self, expires_at: float) -> None:
        """Have a thread close the connections that have been idle too long, also the last one, which expires then."""
        if expires_at < self._closer_wakes_at:
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
            expired = self._idle.take_if(lambda pooled: pooled.expires_at <= now)
            if not self._idle:
                self._closer = None
            self._closer_wakes_at = min((pooled.expires_at for pooled in self._idle), default=float("inf"))
            seconds = self._closer_wakes_at - now if self._idle else None
            self._wake_closer.clear()
        for pooled in expired:
            pooled.close(wait=False)
        return seconds


def _may_try_again(replies: Mapping[str, SmtpReply]) -> bool:
    """Return whether a kept connection was dead, expired or used up, and the mail server surely has no message yet."""
    may_be_sent = any(reply.kind in (ReplyKind.ACCEPTED, ReplyKind.UNKNOWN) for reply in replies.values())
    return not may_be_sent and any(map(may_succeed_in_new_session, replies.values()))


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its pool. It is closed with the process, and a forked process starts with an empty one."""
    concurrency = ConcurrencyLimits(per_server=settings.concurrent_emails_per_server, total=settings.concurrent_emails)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_IDLE_CONNECTIONS if files == resource.RLIM_INFINITY else files // 4
    limits = PoolLimits(idle_connections=min(MAX_IDLE_CONNECTIONS, most))
    app.extensions["smtp_pool"] = pool = Pool(limits, concurrency)
    atexit.register(pool.close)
    os.register_at_fork(after_in_child=pool.reset)


def slots_in_use(app: Flask) -> tuple[int, int]:
    """Return how many slots for emails this process has, and how many are in use."""
    slots = app.extensions["smtp_pool"].slots
    return slots.limits.total, slots.in_use


def current() -> Pool:
    """Return the application's pool."""
    pool: Pool = config.extension("smtp_pool")
    return pool
