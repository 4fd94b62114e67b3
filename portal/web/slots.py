"""Work of which a process does only a little at a time, for one account and in all: its other threads stay free."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final, NamedTuple

from werkzeug.exceptions import TooManyRequests

from portal.extensions import db
from portal.web.i18n import to_translate

RETRY_AFTER: Final = 5  # seconds


class Busy(TooManyRequests):
    """The account, or everybody together, has too much of this work done at once."""

    page = (
        to_translate("The portal is busy"),
        to_translate("Too many requests of this kind arrived at once. Wait a few seconds, then try again."),
    )


class Bound(NamedTuple):
    """How many requests there may be at once: of one account, and in all."""

    per_account: int
    total: int

    def admits(self, counts: Counter[int | None], account_id: int | None) -> bool:
        """Return whether there may be one more of the account."""
        return counts[account_id] < self.per_account and counts.total() < self.total


class Slots:
    """The slots of one process for a kind of work. Threads share it.

    Requests that find no free slot wait for one, at most `max_wait` seconds, and not more of them than `waiting` says.
    All others are rejected at once with `error`.
    """

    def __init__(
        self,
        running: Bound,
        waiting: Bound = Bound(0, 0),  # noqa: B008 (immutable)
        max_wait: float = 0,
        error: type[TooManyRequests] = Busy,
    ) -> None:
        self.max_wait = max_wait
        self._running_bound, self._waiting_bound, self._error = running, waiting, error
        self._running, self._waiting = Counter[int | None](), Counter[int | None]()
        self._changed = Condition()

    @contextmanager
    def hold(self, account_id: int | None = None) -> Iterator[None]:
        """Hold a slot during the block, for an account or for a stranger.

        The session's transaction is committed first: during the wait it would keep a connection busy.
        """
        db.session.commit()
        with self._changed:
            self.check(account_id)
            if not self._is_free(account_id):
                self._wait(account_id)
            self._running[account_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= Counter([account_id])
                self._changed.notify_all()

    def check(self, account_id: int | None = None) -> None:
        """Raise the error if a request could not even wait for a slot: before it costs anything else."""
        if not (self._is_free(account_id) or self._waiting_bound.admits(self._waiting, account_id)):
            raise self._error(retry_after=RETRY_AFTER)

    def _is_free(self, account_id: int | None) -> bool:
        return self._running_bound.admits(self._running, account_id)

    def _wait(self, account_id: int | None) -> None:
        self._waiting[account_id] += 1
        try:
            if not self._changed.wait_for(lambda: self._is_free(account_id), self.max_wait):
                raise self._error(retry_after=RETRY_AFTER)
        finally:
            self._waiting -= Counter([account_id])
