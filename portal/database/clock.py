"""The database's clock: the time to compare with times in rows. The clocks of hosts can differ from it, by hours too.

Each transaction reads it when it begins, in a statement that is sent anyway. Until the next reading, the host's
monotonic clock measures how much later it is.
"""

import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from portal.database.engine import DATABASE_ERRORS
from portal.extensions import db

MAX_AGE: Final = 60.0  # seconds of a reading
MONOTONIC_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first counts a suspension too


class _Reading(NamedTuple):
    moment: datetime
    taken_at: float


_readings: list[_Reading] = []  # the last one of this process


def now() -> datetime:
    """Return the database's time, or an estimate while it does not answer. Raise a DATABASE_ERROR if it never did."""
    if not _readings or time.clock_gettime(MONOTONIC_CLOCK) - _readings[0].taken_at > MAX_AGE:
        _read()
    last = _readings[0]
    return last.moment + timedelta(seconds=time.clock_gettime(MONOTONIC_CLOCK) - last.taken_at)


def note(moment: datetime) -> None:
    """Take note of the time that the database has just returned."""
    _readings[:] = [_Reading(moment, time.clock_gettime(MONOTONIC_CLOCK))]


def _read() -> None:
    try:
        with db.engine.connect() as connection:
            note(connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one())
    except DATABASE_ERRORS:
        if not _readings:
            raise
