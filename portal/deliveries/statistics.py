"""The number of emails of each day, by status. A worker counts them, so that no page has to.

An email counts on the day on which it was recorded. Its status may change until it expires, so each run counts the last
days again. A tenant's days are in its time zone, and its page counts the newest emails itself. The days of all tenants
together are in UTC. A day that is not counted yet is marked as such.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Date, Select, cast, delete, func, select, text

from portal import config
from portal.database import clock
from portal.database.scope import every_tenant
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries.models import DailyStats, DailyTotal, Delivery
from portal.deliveries.status import Status
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.extensions import db
from portal.tenants.models import Tenant

MAX_DAYS: Final = 30
MAX_LIVE: Final = 200  # emails of yesterday and today that a page counts
ONE_DAY: Final = timedelta(days=1)
# After that, no email of a day changes its status any more.
FINAL_AFTER: Final = max(event_type.expiry for event_type in ALL_EVENT_TYPES.values()) + timedelta(hours=1)
# A transaction may still be recording an email whose id is that much older.
RECORDING_TIME: Final = timedelta(seconds=10)
# The numbers of tenants end before `settled`: their pages count the rest. Only numbers that differ are written, because
# most numbers of a day stay the same. A tenant may be deleted meanwhile: its lock keeps it, or shows that it is gone.
COUNT_DAY: Final = """
    WITH counted AS MATERIALIZED (
        SELECT delivery.tenant_id, (delivery.created_at AT TIME ZONE tenants.time_zone)::date AS day, delivery.status,
            count(*)::int AS all_count, count(*) FILTER (WHERE delivery.id < :settled)::int AS count
        FROM deliveries AS delivery JOIN tenants ON tenants.id = delivery.tenant_id
        WHERE delivery.id >= :first AND delivery.id < :end
        GROUP BY 1, 2, 3
    ), deleted AS (
        DELETE FROM daily_stats WHERE utc_day = :day AND NOT EXISTS (
            SELECT FROM counted
            WHERE count > 0 AND (counted.tenant_id, counted.day, counted.status)
                = (daily_stats.tenant_id, daily_stats.day, daily_stats.status)
        )
    ), changed AS MATERIALIZED (
        SELECT tenant_id, day, status, count FROM counted WHERE count > 0
        EXCEPT SELECT tenant_id, day, status, count FROM daily_stats WHERE utc_day = :day
    ), written AS (
        INSERT INTO daily_stats (tenant_id, day, utc_day, status, count)
        SELECT tenant_id, day, :day, status, count FROM changed
        WHERE EXISTS (SELECT FROM tenants WHERE tenants.id = changed.tenant_id FOR KEY SHARE)
        ON CONFLICT ON CONSTRAINT pk_daily_stats DO UPDATE SET count = excluded.count
    ), summed AS (
        SELECT status, sum(all_count)::int AS count FROM counted GROUP BY status
    )
    INSERT INTO daily_totals (utc_day, counted_at, counts)
    SELECT :day, :now, coalesce(jsonb_object_agg(status, count), '{}') FROM summed
    ON CONFLICT ON CONSTRAINT pk_daily_totals DO UPDATE SET counted_at = excluded.counted_at, counts = excluded.counts
"""

Counts = Mapping[Status, int]


@dataclass(frozen=True, slots=True)
class Day:
    """The number of emails of a day, by status. A day that is not counted yet has none."""

    day: date
    counts: Counts
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """The last days, oldest first. `counted_at` is when today was counted, None if it is not counted yet."""

    days: Sequence[Day]
    counted_at: datetime | None


def update() -> int:
    """Count the days that are new or may have changed, each in its own transaction, and return how many they are."""
    now = clock.now()
    today, settled = now.date(), lowest_uuid7(now - RECORDING_TIME)
    with every_tenant():
        counted_at = _counted_at(today - MAX_DAYS * ONE_DAY)
        due = [
            day
            for day in _last_days(today, MAX_DAYS + 1)
            if day not in counted_at or counted_at[day] < _start_of_day(day + ONE_DAY, UTC) + FINAL_AFTER
        ]
        db.session.rollback()
        for day in due:
            first, end = lowest_uuid7(_start_of_day(day, UTC)), lowest_uuid7(_start_of_day(day + ONE_DAY, UTC))
            values = {"day": day, "first": first, "end": end, "settled": settled, "now": now}
            db.session.execute(text(COUNT_DAY), values)
            db.session.commit()
    return len(due)


def delete_before(time: datetime) -> None:
    """Delete the statistics of the days before."""
    with every_tenant():
        db.session.execute(delete(DailyStats).where(DailyStats.utc_day < time.date()))
        db.session.execute(delete(DailyTotal).where(DailyTotal.utc_day < time.date()))
        db.session.commit()


def tenant_statistics(tenant: Tenant) -> Statistics:
    """Return the last days of the tenant in scope.

    Yesterday's and today's emails are counted now. Of very many, only those since the last run of a worker are.
    """
    now, zone = clock.now(), ZoneInfo(tenant.time_zone)
    days = _shown_days(now.astimezone(zone).date())
    newest, counted_at = days[-2:], _counted_at(days[0] - ONE_DAY)
    live_from = _start_of_day(newest[0], zone)
    stored = select(DailyStats.day, DailyStats.status, func.sum(DailyStats.count)).where(DailyStats.day >= days[0])
    counts = _counts_by_day(stored.group_by(DailyStats.day, DailyStats.status))
    if sum(counts[day].total() for day in newest) <= MAX_LIVE:
        for day in newest:
            counts[day].clear()
    else:
        live_from = max(live_from, _settled_until(counted_at))
    local_day = cast(func.timezone(str(zone), Delivery.created_at), Date).label("day")
    live = select(local_day, Delivery.status, func.count()).where(Delivery.id >= lowest_uuid7(live_from))
    for day, count in _counts_by_day(live.group_by(local_day, Delivery.status)).items():
        counts[day] += count

    def is_known(day: date) -> bool:
        end = _start_of_day(day + ONE_DAY, zone)
        return end > live_from or end <= tenant.created_at or _is_complete(day, zone, counted_at)

    return Statistics([Day(day, counts[day], is_known(day)) for day in days], now)


def system_statistics() -> Statistics:
    """Return the last days of all tenants together, as a worker has counted them."""
    days = _shown_days(clock.now().date())
    rows = {row.utc_day: row for row in db.session.scalars(select(DailyTotal).where(DailyTotal.utc_day >= days[0]))}
    counted_at = {day: row.counted_at for day, row in rows.items()}
    counts = {day: {Status(status): count for status, count in row.counts.items()} for day, row in rows.items()}
    today = days[-1]
    shown = [
        Day(day, counts.get(day, {}), day in rows if day == today else _is_complete(day, UTC, counted_at))
        for day in days
    ]
    return Statistics(shown, counted_at.get(today))


def _settled_until(counted_at: Mapping[date, datetime]) -> datetime:
    """Return the time until which the numbers of tenants include all emails."""
    if not counted_at:
        return datetime.min.replace(tzinfo=UTC)
    last = max(counted_at)
    return min(counted_at[last] - RECORDING_TIME, _start_of_day(last + ONE_DAY, UTC))


def _counts_by_day(query: Select[date, str, int]) -> defaultdict[date, Counter[Status]]:
    counts: defaultdict[date, Counter[Status]] = defaultdict(Counter)
    for day, status, count in db.session.execute(query):
        counts[day][Status(status)] = int(count)
    return counts


def _counted_at(since: date) -> dict[date, datetime]:
    """Return when each day of UTC was counted."""
    query = select(DailyTotal.utc_day, DailyTotal.counted_at).where(DailyTotal.utc_day >= since)
    return dict(db.session.execute(query).all())


def _is_complete(day: date, zone: tzinfo, counted_at: Mapping[date, datetime]) -> bool:
    """Return whether a whole day was counted after its end. It may be part of two days of UTC."""
    start, end = _start_of_day(day, zone), _start_of_day(day + ONE_DAY, zone)
    utc_days = {start.date(), (end - timedelta(microseconds=1)).date()}
    return all(utc_day in counted_at and counted_at[utc_day] >= end for utc_day in utc_days)


def _start_of_day(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time.min, zone).astimezone(UTC)


def _shown_days(today: date) -> Sequence[date]:
    """Return the days to show: at most as many as are kept, and at least yesterday and today."""
    return _last_days(today, max(2, min(MAX_DAYS, config.current().retention_days)))


def _last_days(today: date, count: int) -> Sequence[date]:
    return [today - days_ago * ONE_DAY for days_ago in reversed(range(count))]
