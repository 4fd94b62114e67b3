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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final

from flask import Flask

from portal import config
from portal.config import Settings
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS, SmtpConnection, SmtpSettings
from portal.mail_servers.smtp.concurrency import MAX_MAILBOX_SESSIONS, ConcurrencyLimits, ConcurrencySlots
from portal.mail_servers.smtp.connect import Deadline, Timeouts
from portal.mail_servers.smtp.mime import MimeMessage
from portal.mail_servers.smtp.outcome import BUSY, ReplyKind, SmtpFailure, SmtpReply, may_succeed_in_new_session

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


class _PooledConnection(SmtpConnection):
    def __init__(self, settings: SmtpSettings) -> None:
        super().__init__(settings)
        self.created_at, self.messages, self.expires_at = time.monotonic(), 0, 0.0


class _IdleConnections(dict[_PooledConnection, None]):
    """Kept connections, the one that has been idle longest first, which are found by the owner of their settings."""

    def __init__(self) -> None:
        super().__init__()
        self.by_owner: dict[int | None, list[_PooledConnection]] = {}
        self._count_by_host = Counter[str]()

    def add(self, pooled: _PooledConnection) -> None:
        self[pooled] = None
        self._count_by_host[pooled.settings.host] += 1
        self.by_owner.setdefault(pooled.settings.owner, []).append(pooled)

    def remove(self, pooled: _PooledConnection) -> None:
        owner = pooled.settings.owner
        del self[pooled]
        self._count_by_host[pooled.settings.host] -= 1
        self.by_owner[owner].remove(pooled)
        if not self.by_owner[owner]:
            del self.by_owner[owner]

    def take_if(self, condition: Callable[[_PooledConnection], bool]) -> Sequence[_PooledConnection]:
        """Remove the connections for which this is true, and return them."""
        taken = list(filter(condition, self))
        for pooled in taken:
            self.remove(pooled)
        return taken

    def surplus(self, host: str, limits: PoolLimits) -> _PooledConnection | None:
        """Return the connection that is idle for longest of too many, to this host or in all, or None."""
        if self._count_by_host[host] > limits.idle_connections_to_host:
            return next(pooled for pooled in self if pooled.settings.host == host)
        return next(iter(self)) if len(self) > limits.idle_connections else None


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
    ) -> dict[str, SmtpReply]:
        """Send one message as `client.send` does, over a kept connection if there is one.

        Returns `BUSY` for each recipient where its owner has no free slot.
        """
        deadline = Deadline(timeouts)
        arguments = (message, sender_email, recipients, deadline)
        at_most = MAX_MAILBOX_SESSIONS if settings.limited_mailbox else None
        with self.slots.acquire(settings.owner, at_most=at_most) as acquired:
            if not acquired:
                return dict.fromkeys(recipients, BUSY)
            kept = self._take(settings)
            replies = self._send_over(kept, *arguments) if kept else {}
            if kept is None or (not deadline.is_over and _may_try_again(replies)):
                replies = self._send_over(_PooledConnection(settings), *arguments)
        return replies

    def close(self) -> None:
        """Close all idle connections."""
        self._close_if(lambda _: True)

    def _close_if(self, condition: Callable[[_PooledConnection], bool]) -> None:
        with self._lock:
            taken = self._idle.take_if(condition)
        for pooled in taken:
            pooled.close(wait=False)

    def _send_over(
        self, pooled: _PooledConnection, message: MimeMessage, sender: str, to: Sequence[str], deadline: Deadline
    ) -> dict[str, SmtpReply]:
        try:
            if pooled.host is None:
                pooled.open(deadline)
            return pooled.deliver(message, sender, to, deadline)
        except SmtpFailure as failure:
            return dict.fromkeys(to, failure.reply)
        finally:
            self._put_back(pooled)

    def _take(self, settings: SmtpSettings) -> _PooledConnection | None:
        """Return the most recently used connection with these settings that is still open, or None."""
        while True:
            now = time.monotonic()
            with self._lock:
                of_owner = reversed(self._idle.by_owner.get(settings.owner, ()))
                newest = next((kept for kept in of_owner if kept.expires_at > now and kept.settings == settings), None)
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
        if settings.limited_mailbox is not None:
            mailbox = (settings.owner, settings.limited_mailbox)
            self._close_if(lambda it: (it.settings.owner, it.settings.limited_mailbox) == mailbox)

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
        self._close_if(lambda pooled: pooled.expires_at <= now)
        with self._lock:
            if not self._idle:
                self._closer = None
            self._closer_wakes_at = min((pooled.expires_at for pooled in self._idle), default=float("inf"))
            self._wake_closer.clear()
            return self._closer_wakes_at - time.monotonic() if self._idle else None


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
