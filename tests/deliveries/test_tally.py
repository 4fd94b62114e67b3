"""Mails by day and outcome: each counted once, on its tenant's day, and nothing told of a day that nobody counted."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from portal.database import enter_scope, first_key
from portal.deliveries import endings, tally
from portal.deliveries.states import Status
from portal.deliveries.tally import DAY, Day
from portal.extensions import db
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.sql import sql

BERLIN = ZoneInfo("Europe/Berlin")
MAIL = """
    WITH event AS (
        INSERT INTO events (id, tenant_id, event_id, type, occurred_at, received_at, fingerprint, data)
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
    tenant = directory.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.fixture
def add(tenant: Tenant) -> Add:
    """A function that records a mail of a moment, and returns its key."""
    numbers = iter(range(1, 1000))

    def add(at: datetime, status: str = "sent", of: int = tenant.id) -> UUID:
        key = UUID(int=first_key(at).int + next(numbers))
        statement = MAIL.replace(":key", f"'{key}'")
        sql(statement, tenant=of, at=at, status=status, held=status == "held", name=key.bytes)
        return key

    return add


def at(day: date, hour: int, minute: int = 0) -> datetime:
    """Return a moment of a day in Berlin."""
    return datetime.combine(day, time(hour, minute), BERLIN)


def told(tenant: Tenant) -> dict[date, Day]:
    db.session.rollback()
    return {each.day: each for each in tally.of_tenant(tenant).days}


def test_a_mail_counts_on_its_tenants_day(tenant: Tenant, add: Add) -> None:
    day = today() - 10 * DAY
    add(at(day, 0, 10))  # which is the day before in UTC
    add(at(day, 12), "failed")
    add(at(day, 23, 50))
    assert tally.count() == tally.DAYS + 1
    days = told(tenant)
    assert days[day].counts == {Status.SENT: 2, Status.FAILED: 1}
    assert days[day - DAY].counts == {}
    assert all(each.is_counted for each in days.values())
    assert [each.day for each in tally.of_tenant(tenant).days] == [today() - ago * DAY for ago in range(29, -1, -1)]
    all_days = {each.day: each.counts for each in tally.of_all().days}
    utc = at(day, 0, 10).astimezone(UTC).date()
    assert (all_days[utc], all_days[day]) == ({Status.SENT: 1}, {Status.SENT: 1, Status.FAILED: 1})


def test_today_is_counted_when_one_looks(tenant: Tenant, add: Add) -> None:
    tally.count()
    add(datetime.now(UTC) - timedelta(seconds=1), "held")
    assert told(tenant)[today()].counts == {Status.HELD: 1}
    assert tally.of_all().days[-1].counts == {}
    tally.count()
    assert tally.of_all().days[-1].counts == {Status.HELD: 1}


def test_what_becomes_of_a_mail_later_is_counted_anew(tenant: Tenant, add: Add) -> None:
    day = today() - 2 * DAY
    key = add(at(day, 12), "held")
    tally.count()
    sql(f"UPDATE deliveries SET status = 'expired', reason = NULL WHERE id = '{key}'")
    tally.count()
    assert told(tenant)[day].counts == {Status.EXPIRED: 1}


def test_a_day_in_which_nothing_can_change_is_not_counted_again(tenant: Tenant, add: Add) -> None:
    tally.count()
    assert tally.count() <= 5
    sql("DELETE FROM tallied_days WHERE day = :day", day=today() - 20 * DAY)
    assert tally.count() <= 6


def test_a_day_that_nobody_counted_is_not_taken_for_a_quiet_one(tenant: Tenant, add: Add) -> None:
    add(at(today() - 1 * DAY, 12))
    add(at(today() - 9 * DAY, 12))
    days = told(tenant)
    assert {day for day, each in days.items() if each.is_counted} == {today(), today() - DAY}
    assert days[today() - DAY].counts == {Status.SENT: 1}, "yesterday is counted when one looks, too"
    assert not any(each.is_counted or each.counts for each in tally.of_all().days)
    assert tally.of_all().counted_at is None


def test_a_day_that_was_counted_before_its_end_is_not_known(tenant: Tenant, add: Add) -> None:
    tally.count()
    day = today() - 5 * DAY
    sql("UPDATE tallied_days SET counted_at = :at WHERE day = :day", at=at(day, 18), day=day)
    assert not told(tenant)[day].is_counted
    assert told(tenant)[day - DAY].is_counted


def test_nothing_could_be_counted_before_the_tenant_was_there(tenant: Tenant) -> None:
    sql("UPDATE tenants SET created_at = :at", at=at(today() - 3 * DAY, 12))
    db.session.refresh(tenant)
    known = {day for day, each in told(tenant).items() if each.is_counted}
    assert {today() - 3 * DAY, today() - 2 * DAY} == set(told(tenant)) - known


def test_each_tenant_has_its_own(tenant: Tenant, globex: str, add: Add) -> None:
    other = directory.find(globex)
    assert other is not None
    add(at(today() - 4 * DAY, 12), of=other.id)
    add(at(today(), 0), of=other.id)
    tally.count()
    assert not any(each.counts for each in told(tenant).values())
    enter_scope(other.id)
    assert sum(sum(each.counts.values()) for each in tally.of_tenant(other).days) == 2


def test_retention_forgets_it(tenant: Tenant, add: Add) -> None:
    add(at(today() - 20 * DAY, 12))
    tally.count()
    sql("UPDATE tallied_days SET day = day - 90 WHERE day < :day", day=today() - 15 * DAY)
    sql("UPDATE tallies SET tallied_day = tallied_day - 90")
    endings.purge()
    assert sql("SELECT count(*) FROM tallies")[0][0] == 0
    assert sql("SELECT min(day) FROM tallied_days")[0][0] >= today() - 15 * DAY
