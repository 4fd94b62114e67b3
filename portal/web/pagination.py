"""Keyset pagination: a page begins after a key, and says after which key the next one begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

from portal.database.uuid7 import lowest_uuid7

Row = TypeVar("Row")
Key = TypeVar("Key")

PAGE_SIZE: Final = 50
NEWEST: Final = UUID(int=2**128 - 1)
OLDEST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row, Key]):
    """A page of rows. `next_key` is the key after which the next page begins, None on the last page."""

    rows: Sequence[Row]
    next_key: Key | None = None

    @classmethod
    def of(cls, rows: Sequence[Row], size: int, key: Callable[[Row], Key]) -> "Page[Row, Key]":
        """Return the first `size` of these rows as a page. A query finds one more than that, if there are more."""
        shown = rows[:size]
        return cls(shown, key(shown[-1]) if len(rows) > size else None)


def key_range(since: datetime | None, until: datetime | None, before: UUID | None = None) -> tuple[UUID, UUID]:
    """Return the first key of a time span's rows before the one with a key, and the key that ends them."""
    end = lowest_uuid7(until) if until else NEWEST
    return lowest_uuid7(since) if since else OLDEST, min(before or NEWEST, end)
