"""Limits on the messages that are being sent at once, so that slow mail servers leave room for the others.

Each message being sent holds one of the process's threads, so a few mail servers that hang could hold all of them. A
mail server may use as many slots as are left free, and a slow mail server only a few.

A Microsoft mailbox has at most three sessions at a time, over all processes. Microsoft rejects a fourth one
(`432 4.3.2`) and counts those that are kept for the next message.
"""

import time
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Event, Lock
from typing import Final, NamedTuple

from portal.database import process_locks
from portal.database.engine import DATABASE_ERRORS
from portal.database.process_locks import ProcessLock
from portal.mail_servers.smtp.outcome import BUSY, SmtpFailure

# learn.microsoft.com, "Message storage and concurrent connection throttling for SMTP Authenticated Submission"
MAX_MAILBOX_SESSIONS: Final = 3
POLL_INTERVAL: Final = 0.1  # seconds
MAX_REMEMBERED_SLOW_SERVERS = 10_000


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """How many messages may be sent at once; times in seconds."""

    per_server: int = 4
    per_slow_server: int = 2
    total: int = 12
    max_wait: float = 0.25  # for a free slot
    priority_after: float = 0.05  # after waiting this long, a thread goes before those that come later
    slow_after: float = 1.0  # a message that takes this long makes its mail server a slow one


@dataclass(slots=True, eq=False)
class _Waiter:
    """A thread that waits for a slot and is woken when one is free. With `acquired_at` the slot is already its own."""

    key: Hashable
    at_most: int | None
    since: float = field(default_factory=time.monotonic)
    woken: Event = field(default_factory=Event)
    acquired_at: float | None = None


class ConcurrencySlots:
    """The slots of one process. Threads may share it. A key identifies the owner of a mail server.

    It is not the mail server with its settings: an owner who saves other settings again and again gets no more slots,
    and stays slow.

    A free slot goes to the first thread that asks: reserved for the longest waiter, it would stay empty until that
    thread runs again, which costs a tenth of the throughput. It is reserved only for a thread that has waited for
    `priority_after`; otherwise, in a burst, one thread in a thousand would find no slot within `max_wait`.
    """

    def __init__(self, limits: ConcurrencyLimits) -> None:
        self.limits = limits
        self._lock = Lock()
        self._waiters: list[_Waiter] = []  # in order of arrival
        self._in_use: defaultdict[Hashable, list[float]] = defaultdict(list)  # start times by key
        self._slow: set[Hashable] = set()

    def acquire(self, key: Hashable, *, exclusive: bool = False, at_most: int | None = None) -> "_HeldSlot":
        """Hold a slot during a `with` block, which gets False where none is free within `max_wait`, or surely never.

        `at_most` is a lower limit on the key's slots. An `exclusive` one is its only slot, and is not waited for.
        """
        if not exclusive:
            return _HeldSlot(self, key, self._wait_for_slot(key, at_most))
        with self._lock:
            return _HeldSlot(self, key, self._take(key) if key not in self._in_use and self._free() > 0 else None)

    @property
    def in_use(self) -> int:
        """How many slots are held at the moment."""
        with self._lock:
            return self.limits.total - self._free()

    def _wait_for_slot(self, key: Hashable, at_most: int | None) -> float | None:
        with self._lock:
            if self._may_take(key, at_most):
                return self._take(key)
            if self._is_hopeless(key):
                return None
            waiter = _Waiter(key, at_most)
            self._waiters.append(waiter)
        ends = waiter.since + self.limits.max_wait
        while True:
            waiter.woken.wait(ends - time.monotonic())
            with self._lock:
                if waiter.acquired_at is None and self._may_take(key, at_most):
                    waiter.acquired_at = self._take(key)
                if waiter.acquired_at is not None or time.monotonic() >= ends:
                    self._waiters.remove(waiter)
                    return waiter.acquired_at
                waiter.woken.clear()

    def _wake_next(self) -> None:
        for waiter in self._waiters:
            if waiter.acquired_at is None and self._may_take(waiter.key, waiter.at_most):
                if time.monotonic() - waiter.since > self.limits.priority_after:
                    waiter.acquired_at = self._take(waiter.key)
                waiter.woken.set()
                return

    def _take(self, key: Hashable) -> float:
        acquired_at = time.monotonic()
        self._in_use[key].append(acquired_at)
        return acquired_at

    def _release(self, key: Hashable, acquired_at: float) -> None:
        with self._lock:
            self._in_use[key].remove(acquired_at)
            if not self._in_use[key]:
                del self._in_use[key]
            if time.monotonic() - acquired_at < self.limits.slow_after:
                self._slow.discard(key)
            elif len(self._slow) < MAX_REMEMBERED_SLOW_SERVERS:
                self._slow.add(key)
            self._wake_next()

    def _may_take(self, key: Hashable, at_most: int | None) -> bool:
        limits, own, free = self.limits, len(self._in_use.get(key, ())), self._free()
        if at_most is not None and own >= at_most:
            return False
        if not self._is_slow(key):
            return own < min(limits.per_server, free)
        all_slow = sum(len(slots) for other, slots in self._in_use.items() if self._is_slow(other))
        return own < min(limits.per_slow_server, free) and all_slow < (limits.total + 1) // 2

    def _is_hopeless(self, key: Hashable) -> bool:
        """Return whether waiting is pointless: no slot in use is likely to be released within `max_wait`."""
        return self._is_slow(key) or all(
            time.monotonic() - acquired_at > self.limits.max_wait
            for slots in self._in_use.values()
            for acquired_at in slots
        )

    def _is_slow(self, key: Hashable) -> bool:
        since = time.monotonic() - self.limits.slow_after
        return key in self._slow or any(acquired_at < since for acquired_at in self._in_use.get(key, ()))

    def _free(self) -> int:
        return self.limits.total - sum(map(len, self._in_use.values()))


class _HeldSlot(NamedTuple):
    """A slot that is released at the end of a `with` block."""

    slots: ConcurrencySlots
    key: Hashable
    acquired_at: float | None

    def __enter__(self) -> bool:
        return self.acquired_at is not None

    def __exit__(self, *_: object) -> None:
        if self.acquired_at is not None:
            self.slots._release(self.key, self.acquired_at)


def take_mailbox_session(owner: int | None, mailbox: str, max_wait: float) -> ProcessLock:
    """Return the right to one session with a limited mailbox, to release when it has ended.

    Another owner's sessions do not count: anyone can enter any mailbox, and would hold up those that it belongs to.

    Raises:
        SmtpFailure: BUSY if no session ends within `max_wait` seconds, or Postgres does not answer.
    """
    digest = sha256(f"{owner}\0{mailbox}".encode()).digest()
    first = int.from_bytes(digest[:8], signed=True) & ~0b11
    keys = [first | number for number in range(MAX_MAILBOX_SESSIONS)]
    ends = time.monotonic() + max_wait
    while True:
        try:
            lock = process_locks.take_any(keys)
        except DATABASE_ERRORS:
            raise SmtpFailure(BUSY) from None
        if lock is not None:
            return lock
        if time.monotonic() + POLL_INTERVAL > ends:
            raise SmtpFailure(BUSY)
        time.sleep(POLL_INTERVAL)
