"""Emails by day and status: each counted once, on its tenant's day; uncounted days are unknown."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries import retention, statistics
from portal.deliveries.statistics import ONE_DAY, Day
from portal.deliveries.status import Status
from portal.extensions import db
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.concurrency import blocked_until_done
from tests.sql import sql

BERLIN = ZoneInfo("Europe/Berlin")
MAIL = """
    WITH event AS (
        INSERT INTO events (id, tenant_id, external_id, type, occurred_at, received_at, fingerprint, data)
        VALUES (:key, :tenant, :key, 'queue.call_lost', :at, :at, sha256(:name), '{}')
    )
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, attempts, expires_at,
        created_at)
    VALUES (:key, :tenant, :key, 'recipients', :key, :status, CASE WHEN :held THEN 'throttled' END, 1, :at,
        :at)
"""

Add = Callable[..., UUID]


def today() -> date:
    """Return the tenant's day: tests that run past its midnight have another one in the end."""
    return datetime.now(BERLIN).date()


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, in Berlin and in its scope, which has been there for longer than is looked at."""
    sql("UPDATE tenants SET created_at = now() - interval '100 days'")
    tenant = tenant_service.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.fixture
def add(tenant: Tenant) -> Add:
    """A function that records a mail of a moment, and returns its key."""
    numbers = iter(range(1, 1000))

    def add(at: datetime, status: str = "sent", of: int = tenant.id) -> UUID:
        key = UUID(int=lowest_uuid7(at).int + next(numbers))
        statement = MAIL.replace(":key", f"'{key}'")
        sql(statement, tenant=of, at=at, status=status, held=status == "held", name=key.bytes)
        return key

    return add


def at(day: date, hour: int, minute: int = 0) -> datetime:
    """Return a moment of a day in Berlin."""
    return datetime.combine(day, time(hour, minute), BERLIN)


def stats_by_day(tenant: Tenant) -> dict[date, Day]:
    db.session.rollback()
    return {each.day: each for each in statistics.tenant_statistics(tenant).days}


def test_a_mail_counts_on_its_tenants_day(tenant: Tenant, add: Add) -> None:
    day = today() - 10 * ONE_DAY
    add(at(day, 0, 10))  # which is the day before in UTC
    add(at(day, 12), "failed")
    add(at(day, 23, 50))
    assert statistics.update() == statistics.MAX_DAYS + 1
    days = stats_by_day(tenant)
    assert days[day].counts == {Status.SENT: 2, Status.FAILED: 1}
    assert days[day - ONE_DAY].counts == {}
    assert all(each.is_counted for each in days.values())
    assert [each.day for each in statistics.tenant_statistics(tenant).days] == [
        today() - ago * ONE_DAY for ago in range(29, -1, -1)
    ]
    all_days = {each.day: each.counts for each in statistics.system_statistics().days}
    utc = at(day, 0, 10).astimezone(UTC).date()
    assert (all_days[utc], all_days[day]) == ({Status.SENT: 1}, {Status.SENT: 1, Status.FAILED: 1})


def test_today_is_counted_when_one_looks(tenant: Tenant, add: Add) -> None:
    statistics.update()
    add(datetime.now(UTC) - timedelta(seconds=1), "held")
    assert stats_by_day(tenant)[today()].counts == {Status.HELD: 1}
    assert statistics.system_statistics().days[-1].counts == {}
    statistics.update()
    assert statistics.system_statistics().days[-1].counts == {Status.HELD: 1}


@pytest.mark.parametrize("max_live", [0, 200])
def test_what_was_recorded_since_the_last_run_is_counted_once(
    tenant: Tenant, add: Add, max_live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MAX_LIVE", max_live)
    moment = datetime.now(UTC)
    for seconds in (0, 5, 15, 60):  # a run leaves the last seconds to the page
        add(moment - timedelta(seconds=seconds))
    for _ in range(2):
        statistics.update()
        assert sum(sum(day.counts.values()) for day in stats_by_day(tenant).values()) == 4
    add(datetime.now(UTC), "failed")
    assert sum(day.counts.get(Status.FAILED, 0) for day in stats_by_day(tenant).values()) == 1


@pytest.mark.parametrize("max_live", [0, 200])
def test_what_was_recorded_since_a_run_of_yesterday_is_counted_once(
    tenant: Tenant, add: Add, max_live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MAX_LIVE", max_live)
    yesterday = today() - ONE_DAY
    run = at(yesterday, 15)
    add(run - timedelta(hours=1))
    statistics.update()
    sql("DELETE FROM daily_totals WHERE utc_day > :day", day=yesterday)
    sql("UPDATE daily_totals SET counted_at = :run", run=run)
    add(run + timedelta(hours=1), "failed")
    days = stats_by_day(tenant)
    assert days[yesterday].counts == {Status.SENT: 1, Status.FAILED: 1}
    assert all(days[day].is_counted for day in (today(), yesterday, yesterday - ONE_DAY))


def test_of_few_emails_the_status_of_this_moment_is_counted(
    tenant: Tenant, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add(datetime.now(UTC) - timedelta(minutes=1), "held")
    statistics.update()
    sql(f"UPDATE deliveries SET status = 'sent', reason = NULL WHERE id = '{key}'")
    for max_live, status in ((200, Status.SENT), (0, Status.HELD)):
        monkeypatch.setattr(statistics, "MAX_LIVE", max_live)
        assert [day.counts for day in stats_by_day(tenant).values() if day.counts] == [{status: 1}]


def test_what_becomes_of_a_mail_later_is_counted_anew(tenant: Tenant, add: Add) -> None:
    day = today() - 2 * ONE_DAY
    key = add(at(day, 12), "held")
    statistics.update()
    sql(f"UPDATE deliveries SET status = 'expired', reason = NULL WHERE id = '{key}'")
    statistics.update()
    assert stats_by_day(tenant)[day].counts == {Status.EXPIRED: 1}


def test_a_day_in_which_nothing_can_change_is_not_counted_again(tenant: Tenant, add: Add) -> None:
    statistics.update()
    assert statistics.update() <= 5
    sql("DELETE FROM daily_totals WHERE utc_day = :day", day=today() - 20 * ONE_DAY)
    assert statistics.update() <= 6


def test_a_day_that_nobody_counted_is_not_taken_for_a_quiet_one(tenant: Tenant, add: Add) -> None:
    add(at(today() - 1 * ONE_DAY, 12))
    add(at(today() - 9 * ONE_DAY, 12))
    days = stats_by_day(tenant)
    assert {day for day, each in days.items() if each.is_counted} == {today(), today() - ONE_DAY}
    assert days[today() - ONE_DAY].counts == {Status.SENT: 1}, "yesterday is counted when one looks, too"
    assert not any(each.is_counted or each.counts for each in statistics.system_statistics().days)
    assert statistics.system_statistics().counted_at is None


def test_a_day_that_was_counted_before_its_end_is_not_known(tenant: Tenant, add: Add) -> None:
    statistics.update()
    day = today() - 5 * ONE_DAY
    sql("UPDATE daily_totals SET counted_at = :at WHERE utc_day = :day", at=at(day, 18), day=day)
    assert not stats_by_day(tenant)[day].is_counted
    assert stats_by_day(tenant)[day - ONE_DAY].is_counted


def test_nothing_could_be_counted_before_the_tenant_was_there(tenant: Tenant) -> None:
    sql("UPDATE tenants SET created_at = :at", at=at(today() - 3 * ONE_DAY, 12))
    db.session.refresh(tenant)
    known = {day for day, each in stats_by_day(tenant).items() if each.is_counted}
    assert {today() - 3 * ONE_DAY, today() - 2 * ONE_DAY} == set(stats_by_day(tenant)) - known


def test_each_tenant_has_its_own(tenant: Tenant, globex: str, add: Add) -> None:
    other = tenant_service.find(globex)
    assert other is not None
    add(at(today() - 4 * ONE_DAY, 12), of=other.id)
    add(at(today(), 0), of=other.id)
    statistics.update()
    assert not any(each.counts for each in stats_by_day(tenant).values())
    enter_scope(other.id)
    assert sum(sum(each.counts.values()) for each in statistics.tenant_statistics(other).days) == 2


def test_retention_forgets_it(tenant: Tenant, add: Add) -> None:
    add(at(today() - 20 * ONE_DAY, 12))
    statistics.update()
    sql("UPDATE daily_totals SET utc_day = utc_day - 90 WHERE utc_day < :day", day=today() - 15 * ONE_DAY)
    sql("UPDATE daily_stats SET utc_day = utc_day - 90")
    retention.delete_old_data()
    assert sql("SELECT count(*) FROM daily_stats")[0][0] == 0
    assert sql("SELECT min(utc_day) FROM daily_totals")[0][0] >= today() - 15 * ONE_DAY


def test_a_tenant_that_is_deleted_meanwhile_has_none(app: Flask, tenant: Tenant, globex: str, add: Add) -> None:
    other = tenant_service.find(globex)
    assert other is not None
    kept = other.id
    add(at(today(), 0))
    add(at(today(), 0), of=kept)
    db.session.delete(tenant)
    db.session.flush()
    with blocked_until_done(app, statistics.update) as updated:
        db.session.commit()
        assert updated.result() == statistics.MAX_DAYS + 1
    assert sql("SELECT DISTINCT tenant_id FROM daily_stats") == [(kept,)]
