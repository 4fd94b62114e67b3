"""Places for mails on their way: what a slow mail server may take of them leaves enough for the others.

Each mail on its way holds one of the process's threads, so that a few tenants whose mail servers hang could hold them
all. A mail server may have as many places as the others leave free, and a slow one hardly any.
"""

import time
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock

MOST_REMEMBERED = 10_000  # slow mail servers


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many mails may be on their way at a time; times in seconds."""

    each: int = 4  # with the same settings
    each_slow: int = 2
    in_all: int = 12
    moment: float = 0.25  # to wait for a free place
    patience: float = 0.05  # who has waited that long goes before those who come later
    slow: float = 1.0  # a mail that takes this long has a slow mail server

    @property
    def in_all_slow(self) -> int:
        """How many mails may be on their way to slow mail servers."""
        return (self.in_all + 1) // 2


@dataclass(slots=True, eq=False)
class _Waiting:
    """Somebody who waits for a place, and is called when one is free. `begun` tells that it is theirs already."""

    key: Hashable
    since: float = field(default_factory=time.monotonic)
    called: Event = field(default_factory=Event)
    begun: float | None = None


class Places:
    """The places of one process. Threads may share it.

    A free place goes to whoever asks first: kept for the one who waits longest, it would stay empty until that thread
    runs again, which costs a tenth of all mails. It is kept for who has lost their patience, or else in a burst one in
    a thousand would find it taken until the moment is over.
    """

    def __init__(self, limits: PlaceLimits) -> None:
        self.limits = limits
        self._lock = Lock()
        self._waiting: list[_Waiting] = []  # the first who came, first
        self._begun: defaultdict[Hashable, list[float]] = defaultdict(list)  # for no longer than the mails take
        self._slow: set[int] = set()  # hashes, as a key holds a password

    @contextmanager
    def take(self, key: Hashable) -> Iterator[bool]:
        """Hold a place during the block. Gives False where all stay taken for a moment, or are sure to."""
        begun = self._begin(key)
        try:
            yield begun is not None
        finally:
            if begun is not None:
                self._end(key, begun)

    @contextmanager
    def take_only(self, key: Hashable) -> Iterator[bool]:
        """Hold the one place of the key during the block. Gives False at once where it is taken, or none is left."""
        with self._lock:
            begun = self._take(key) if key not in self._begun and self._left() > 0 else None
        try:
            yield begun is not None
        finally:
            if begun is not None:
                self._end(key, begun)

    def _begin(self, key: Hashable) -> float | None:
        with self._lock:
            if self._is_free(key):
                return self._take(key)
            if self._is_vain(key):
                return None
            waiting = _Waiting(key)
            self._waiting.append(waiting)
        return self._wait(waiting)

    def _wait(self, waiting: _Waiting) -> float | None:
        ends = waiting.since + self.limits.moment
        while True:
            waiting.called.wait(ends - time.monotonic())
            with self._lock:
                if waiting.begun is None and self._is_free(waiting.key):
                    waiting.begun = self._take(waiting.key)
                if waiting.begun is not None or time.monotonic() >= ends:
                    self._waiting.remove(waiting)
                    return waiting.begun
                waiting.called.clear()

    def _call_the_next(self) -> None:
        for waiting in self._waiting:
            if waiting.begun is None and self._is_free(waiting.key):
                if time.monotonic() - waiting.since > self.limits.patience:
                    waiting.begun = self._take(waiting.key)
                waiting.called.set()
                return

    def _take(self, key: Hashable) -> float:
        begun = time.monotonic()
        self._begun[key].append(begun)
        return begun

    def _end(self, key: Hashable, begun: float) -> None:
        with self._lock:
            self._begun[key].remove(begun)
            if not self._begun[key]:
                del self._begun[key]
            if time.monotonic() - begun < self.limits.slow:
                self._slow.discard(hash(key))
            elif len(self._slow) < MOST_REMEMBERED:
                self._slow.add(hash(key))
            self._call_the_next()

    def _is_free(self, key: Hashable) -> bool:
        limits, mine, left = self.limits, len(self._begun.get(key, ())), self._left()
        if not self._is_slow(key):
            return mine < min(limits.each, left)
        slow = sum(len(mails) for other, mails in self._begun.items() if self._is_slow(other))
        return mine < min(limits.each_slow, left) and slow < limits.in_all_slow

    def _is_vain(self, key: Hashable) -> bool:
        """Return whether waiting is in vain: nothing that is on its way now is sure to end in a moment."""
        return self._is_slow(key) or all(
            time.monotonic() - begun > self.limits.moment for mails in self._begun.values() for begun in mails
        )

    def _is_slow(self, key: Hashable) -> bool:
        since = time.monotonic() - self.limits.slow
        return hash(key) in self._slow or any(begun < since for begun in self._begun.get(key, ()))

    def _left(self) -> int:
        return self.limits.in_all - sum(map(len, self._begun.values()))
