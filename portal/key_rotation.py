"""Key rotation: re-encrypts every encrypted column with the current key while the portal runs. And what is stored.

A column is encrypted if `crypto.encrypted` is its `info`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, LargeBinary, Table, and_, bindparam, func, not_, select, true, update

from portal import crypto
from portal.crypto import CONTEXT, UnreadableSecret, key_id_of
from portal.database.scope import every_tenant
from portal.extensions import Base, db

BATCH_SIZE = 1000  # rows per transaction


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many secrets were re-encrypted, by column, and how many are stored now, by the id of their key."""

    rotated: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)

    @property
    def remaining(self) -> int:
        """How many secrets the current key does not encrypt: their row was locked, or their key is not in the ring."""
        return self.stored.total() - self.stored[crypto.keyring().current_key_id]


def encrypted_columns() -> Sequence[Column[bytes | None]]:
    """Return the encrypted columns of all tables."""
    return [column for table in Base.metadata.sorted_tables for column in table.columns if CONTEXT in column.info]


def rotate() -> Rotation:
    """Encrypt every secret with the current key. It can be interrupted and run again, and skips what is done."""
    rotation = Rotation()
    with every_tenant():
        for column in encrypted_columns():
            rotation.rotated[str(column)] = 0
            _rotate(column, rotation)
    return rotation


def read_stored(limit: int | None = None) -> tuple[Counter[str], Counter[str]]:
    """Decrypt the stored secrets, or the last ones of each column up to a limit.

    Return how many there are by the id of their key, and how many of them cannot be decrypted, by column.
    """
    stored: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    with every_tenant():
        for column in encrypted_columns():
            newest_first = select(column.table).where(column.is_not(None)).order_by(_primary_key(column.table).desc())
            rows = db.session.execute(newest_first.limit(limit).execution_options(yield_per=BATCH_SIZE))
            for row in rows:
                value = row._mapping[column]
                stored[key_id_of(value)] += 1
                try:
                    crypto.keyring().decrypt(value, column.info[CONTEXT](row))
                except UnreadableSecret:
                    unreadable[str(column)] += 1
        db.session.rollback()
    return stored, unreadable


def _rotate(column: Column[bytes | None], rotation: Rotation) -> None:
    """Process a column in batches, in the order of the table's key.

    Rows that are locked are skipped, so that rotation waits for nobody and nobody waits for it.
    """
    key = _primary_key(column.table)
    last_key: Any = None
    while True:
        after = key > last_key if last_key is not None else true()
        end = db.session.scalar(select(key).where(after).order_by(key).offset(BATCH_SIZE - 1).limit(1))
        batch = and_(after, key <= end if end is not None else true(), column.is_not(None))
        rotation.rotated[str(column)] += _reencrypt(column, batch)
        values = db.session.scalars(select(column).where(batch))
        rotation.stored.update(key_id_of(value) for value in values if value)
        db.session.commit()
        if end is None:
            return
        last_key = end


def _reencrypt(column: Column[bytes | None], batch: ColumnElement[bool]) -> int:
    keyring, key = crypto.keyring(), _primary_key(column.table)
    prefix = keyring.current_key_id.encode() + b"\0"
    is_current = func.substring(column, 1, len(prefix), type_=LargeBinary()) == prefix
    outdated = select(column.table).where(batch, not_(is_current)).order_by(key).with_for_update(skip_locked=True)
    changes = []
    for row in db.session.execute(outdated).all():
        context = column.info[CONTEXT](row)
        try:
            value = keyring.encrypt(keyring.decrypt(row._mapping[column], context), context)
        except UnreadableSecret:
            continue
        changes.append({"row_key": row._mapping[key], "value": value})
    if changes:
        statement = update(column.table).where(key == bindparam("row_key")).values({column: bindparam("value")})
        db.session.connection().execute(statement, changes)
    return len(changes)


def _primary_key(table: Any) -> Column[Any]:
    assert isinstance(table, Table)
    (key,) = table.primary_key.columns
    return key
