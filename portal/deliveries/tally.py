"""How many mails came each day and what became of them: counted by a worker, so that no page has to.

A mail counts on the day on which it was recorded. What becomes of it may change until it expires, so the last days are
counted anew each time. A tenant's days are those of its time zone, and its newest ones are counted when one looks; the
days of all tenants together are UTC's. A day that nobody has counted yet says so, and is not taken for a quiet one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Date, Select, cast, delete, func, select, text

from portal import config
from portal.database import every_tenant, first_key
from portal.deliveries.models import Delivery, TalliedDay, Tally
from portal.deliveries.states import Status
from portal.extensions import db
from portal.notifications.digest import EVERY_KIND
from portal.tenants.models import Tenant

DAYS: Final = 30
DAY: Final = timedelta(days=1)
# What becomes of a mail changes no more.
SETTLED_AFTER: Final = max(kind.expiry for kind in EVERY_KIND.values()) + timedelta(hours=1)
# Only what is another number is written, as most of a day does not change.
COUNT = """
    WITH counted AS MATERIALIZED (
        SELECT mail.tenant_id, (mail.created_at AT TIME ZONE tenants.time_zone)::date AS day, mail.status,
            count(*)::int AS count
        FROM deliveries AS mail JOIN tenants ON tenants.id = mail.tenant_id
        WHERE mail.id >= :first AND mail.id < :next
        GROUP BY 1, 2, 3
    ), gone AS (
        DELETE FROM tallies WHERE tallied_day = :day AND NOT EXISTS (
            SELECT FROM counted
            WHERE (counted.tenant_id, counted.day, counted.status) = (tallies.tenant_id, tallies.day, tallies.status)
        )
    ), written AS (
        INSERT INTO tallies (tenant_id, day, tallied_day, status, count)
        SELECT tenant_id, day, :day, status, count FROM counted
        ON CONFLICT ON CONSTRAINT pk_tallies DO UPDATE SET count = excluded.count
        WHERE tallies.count <> excluded.count
    ), summed AS (
        SELECT status, sum(count)::int AS count FROM counted GROUP BY status
    )
    INSERT INTO tallied_days (day, counted_at, counts)
    SELECT :day, now(), coalesce(jsonb_object_agg(status, count), '{}') FROM summed
    ON CONFLICT ON CONSTRAINT pk_tallied_days DO UPDATE SET counted_at = excluded.counted_at, counts = excluded.counts
"""

Counts = Mapping[Status, int]


@dataclass(frozen=True, slots=True)
class Day:
    """How many mails of a day have which status; nothing is known of one that is not counted yet."""

    day: date
    counts: Counts
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Tallied:
    """The last days, the oldest first. `counted_at` is when today was counted, None where nobody has."""

    days: Sequence[Day]
    counted_at: datetime | None


def count() -> int:
    """Count the days that are new or may have changed, each in a transaction of its own, and return how many."""
    today = datetime.now(UTC).date()
    with every_tenant():
        counted_at = _counted_at(today - DAYS * DAY)
        due = [day for day in _last_days(today, DAYS + 1) if not _is_settled(day, counted_at.get(day))]
        db.session.rollback()
        for day in due:
            first, following = (first_key(_start(each, UTC)) for each in (day, day + DAY))
            db.session.execute(text(COUNT), {"day": day, "first": first, "next": following})
            db.session.commit()
    return len(due)


def forget(before: datetime) -> None:
    """Delete what was counted of the days before."""
    with every_tenant():
        db.session.execute(delete(Tally).where(Tally.tallied_day < before.date()))
        db.session.execute(delete(TalliedDay).where(TalliedDay.day < before.date()))
        db.session.commit()


def of_tenant(tenant: Tenant) -> Tallied:
    """Return the last days of the tenant in scope: today is counted now, and so is yesterday while no worker has."""
    now, zone = datetime.now(UTC), ZoneInfo(tenant.time_zone)
    days = _shown_days(now.astimezone(zone).date())
    counted_at = _counted_at(days[0] - DAY)
    complete = {
        day for day in days[:-1] if _start(day + DAY, zone) <= tenant.created_at or _is_complete(day, zone, counted_at)
    }
    live_from = days[-1] if days[-2] in complete else days[-2]
    counts = _stored(days[0], live_from) | _live(live_from, zone)
    told = [Day(day, counts.get(day, {}), day >= live_from or day in complete) for day in days]
    return Tallied(told, now)


def of_all() -> Tallied:
    """Return the last days of all tenants together, as a worker has counted them."""
    days = _shown_days(datetime.now(UTC).date())
    rows = {row.day: row for row in db.session.scalars(select(TalliedDay).where(TalliedDay.day >= days[0]))}
    counted_at = {day: row.counted_at for day, row in rows.items()}
    told = [
        Day(day, _by_status(rows[day].counts) if day in rows else {}, _is_complete(day, UTC, counted_at))
        for day in days[:-1]
    ]
    today = rows.get(days[-1])
    told.append(Day(days[-1], _by_status(today.counts) if today else {}, today is not None))
    return Tallied(told, today.counted_at if today else None)


def _stored(since: date, before: date) -> dict[date, Counts]:
    query = select(Tally.day, Tally.status, func.sum(Tally.count)).where(Tally.day >= since, Tally.day < before)
    return _by_day(query.group_by(Tally.day, Tally.status))


def _live(since: date, zone: ZoneInfo) -> dict[date, Counts]:
    day = cast(func.timezone(str(zone), Delivery.created_at), Date).label("day")
    query = select(day, Delivery.status, func.count()).where(Delivery.id >= first_key(_start(since, zone)))
    return _by_day(query.group_by(day, Delivery.status))


def _by_day(query: Select[date, str, int]) -> dict[date, Counts]:
    found: dict[date, dict[Status, int]] = defaultdict(dict)
    for day, status, number in db.session.execute(query):
        found[day][Status(status)] = int(number)
    return dict(found)


def _by_status(counts: Mapping[str, int]) -> Counts:
    return {Status(status): number for status, number in counts.items()}


def _counted_at(since: date) -> dict[date, datetime]:
    """Return when days of UTC were counted."""
    query = select(TalliedDay.day, TalliedDay.counted_at).where(TalliedDay.day >= since)
    return dict(db.session.execute(query).all())


def _is_complete(day: date, zone: tzinfo, counted_at: Mapping[date, datetime]) -> bool:
    """Return whether all of a day was counted since it ended: it may be part of two days of UTC."""
    start, end = _start(day, zone), _start(day + DAY, zone)
    parts = {start.date(), (end - timedelta(microseconds=1)).date()}
    return all(part in counted_at and counted_at[part] >= end for part in parts)


def _is_settled(day: date, counted_at: datetime | None) -> bool:
    return counted_at is not None and counted_at >= _start(day + DAY, UTC) + SETTLED_AFTER


def _start(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def _shown_days(today: date) -> Sequence[date]:
    """Return the days that are told of: no more than are kept, and yesterday at the least."""
    return _last_days(today, max(2, min(DAYS, config.current().retention_days)))


def _last_days(today: date, number: int) -> Sequence[date]:
    return [today - ago * DAY for ago in reversed(range(number))]
