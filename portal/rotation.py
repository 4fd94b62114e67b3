"""A new key takes over: every encrypted column is encrypted anew, beside a portal that runs.

Which columns are encrypted stands with the columns themselves (`crypto.encrypted`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, LargeBinary, Table, and_, bindparam, func, not_, select, true, update

from portal import crypto
from portal.crypto import PLACE, UnreadableSecret, key_id_of
from portal.database import every_tenant
from portal.extensions import Base, db

BATCH = 1000  # rows that are looked at in one transaction


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many secrets were encrypted anew, by column, and how many there are now, by the id of their key."""

    rotated: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        """How many are not under the first key: somebody had them locked, or their key is not in the ring."""
        return self.by_key.total() - self.by_key[crypto.keyring().first_id]


def columns() -> Sequence[Column[bytes | None]]:
    """Return the encrypted columns of all tables."""
    return [each for table in Base.metadata.sorted_tables for each in table.columns if PLACE in each.info]


def rotate() -> Rotation:
    """Encrypt every secret with the first key. What is so already stays, so that it can be broken off and run again."""
    done = Rotation()
    with every_tenant():
        for column in columns():
            done.rotated[str(column)] = 0
            _rotate(column, done)
    return done


def _rotate(column: Column[bytes | None], done: Rotation) -> None:
    """Go through a column's table along its key. No statement looks at more rows than a batch, however many there are.

    Rows that somebody has locked are passed by: nobody waits for us, and we wait for nobody.
    """
    key = _key(column.table)
    before: Any = None
    while True:
        behind = key > before if before is not None else true()
        last = db.session.scalar(select(key).where(behind).order_by(key).offset(BATCH - 1).limit(1))
        batch = and_(behind, key <= last if last is not None else true(), column.is_not(None))
        done.rotated[str(column)] += _encrypt_anew(column, batch)
        done.by_key.update(key_id_of(each) for each in db.session.scalars(select(column).where(batch)) if each)
        db.session.commit()
        if last is None:
            return
        before = last


def _encrypt_anew(column: Column[bytes | None], batch: ColumnElement[bool]) -> int:
    ring, key = crypto.keyring(), _key(column.table)
    prefix = ring.first_id.encode() + b"\0"
    of_first = func.substring(column, 1, len(prefix), type_=LargeBinary()) == prefix
    found = select(column.table).where(batch, not_(of_first)).order_by(key).with_for_update(skip_locked=True)
    anew = []
    for row in db.session.execute(found).all():
        try:
            place = column.info[PLACE](row)
            value = ring.encrypt(ring.decrypt(row._mapping[column], place), place)
        except UnreadableSecret:
            continue
        anew.append({"row_key": row._mapping[key], "value": value})
    if anew:
        change = update(column.table).where(key == bindparam("row_key")).values({column: bindparam("value")})
        db.session.connection().execute(change, anew)
    return len(anew)


def _key(table: Any) -> Column[Any]:
    assert isinstance(table, Table)
    (key,) = table.primary_key.columns
    return key
