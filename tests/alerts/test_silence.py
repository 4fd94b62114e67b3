"""A PBX that is silent: compared with its own last weeks, so that nights, weekends and a holiday do not alarm."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.alerts import silence
from portal.database.scope import every_tenant
from portal.database.uuid7 import lowest_uuid7
from portal.tenants import service as tenant_service
from tests.pages import post
from tests.sql import sql

BERLIN = ZoneInfo("Europe/Berlin")
REPORT = """
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, received_at, fingerprint, data, is_sample)
    SELECT id::uuid, 1, id, 'queue.call_lost', received_at, received_at, sha256('x'), '{}', :is_sample
    FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS event (id, received_at)
"""
WEEK = timedelta(days=7)


def report(*times: datetime, is_sample: bool = False) -> None:
    """Record events that arrived at these times."""
    sql(REPORT, ids=[str(lowest_uuid7(at)) for at in times], times=list(times), is_sample=is_sample)


def report_hours(now: datetime, *, weeks: int, per_hour: int = 5, hours: tuple[int, int] = (8, 18)) -> None:
    """Record the events of this many weeks before `now`, in the hours of Berlin's working days."""
    step = timedelta(hours=1) / per_hour
    times = [now - number * step for number in range(1, int(weeks * WEEK / step) + 1)]
    report(*(at for at in times if is_working_hour(at.astimezone(BERLIN), *hours)))


def is_working_hour(there: datetime, start: int, end: int) -> bool:
    return there.weekday() < 5 and start <= there.hour < end


def silent_at(now: datetime, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether Acme's PBX is silent at this time."""
    statement = silence.SILENT.replace("now()", f"'{now.isoformat()}'::timestamptz")
    with monkeypatch.context() as patch, every_tenant():
        patch.setattr(silence, "SILENT", statement)
        return bool(silence.silent_tenants("tenants.id = :id", {"id": 1}))


@pytest.fixture
def watched(app: Flask, acme: str) -> None:
    with app.app_context():
        sql("UPDATE tenants SET alerts_on_silence = true")


def berlin(day: int, hour: int, minute: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN).astimezone(UTC)


FRIDAY_EVENING = berlin(20, 18)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("now", "is_silent"),
    [
        (berlin(20, 23), False),  # the night
        (berlin(21, 12), False),  # Saturday
        (berlin(22, 23), False),  # Sunday
        (berlin(23, 7, 59), False),  # Monday, before work
        (berlin(23, 9), False),  # an hour without events: five are expected
        (berlin(23, 10, 30), True),  # twelve are expected
        (berlin(24, 3), True),  # and the following night
        (berlin(28, 12), True),  # and the weekend after
        (berlin(7, 12, month=12), True),  # and weeks later
    ],
)
def test_nights_and_weekends_do_not_alarm(
    context: Flask, monkeypatch: pytest.MonkeyPatch, now: datetime, is_silent: bool
) -> None:
    report_hours(FRIDAY_EVENING, weeks=5, per_hour=5)
    assert silent_at(now, monkeypatch) == is_silent


@pytest.mark.usefixtures("watched")
def test_one_week_may_be_unusual_and_two_may_not(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    report_hours(FRIDAY_EVENING, weeks=5, per_hour=5)
    monday = berlin(23, 12)
    for week, is_silent in ((1, True), (3, False)):
        day = monday - week * WEEK
        sql("DELETE FROM events WHERE received_at::date = :day", day=day.date())
        assert silent_at(monday, monkeypatch) == is_silent


@pytest.mark.usefixtures("watched")
def test_a_sample_is_no_event_and_an_event_ends_the_silence(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    report_hours(FRIDAY_EVENING, weeks=5, per_hour=5)
    report(berlin(23, 11), is_sample=True)
    assert silent_at(berlin(23, 12), monkeypatch)
    report(berlin(23, 11, 1))
    assert not silent_at(berlin(23, 12), monkeypatch)


@pytest.mark.usefixtures("watched")
def test_a_new_or_a_quiet_pbx_has_no_rhythm(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not silent_at(FRIDAY_EVENING, monkeypatch), "it has never reported"
    report_hours(FRIDAY_EVENING, weeks=2, per_hour=5)
    assert not silent_at(berlin(23, 12), monkeypatch)
    sql("DELETE FROM events")
    report_hours(FRIDAY_EVENING, weeks=5, per_hour=1, hours=(9, 11))
    assert not silent_at(berlin(23, 18), monkeypatch)


@pytest.mark.usefixtures("watched")
def test_the_hours_are_the_tenants_also_when_its_clocks_change(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    # On 25 October 2026 Berlin's clocks go back: 8:00 is an hour later in UTC.
    report_hours(berlin(23, 18, month=10), weeks=5, per_hour=12, hours=(8, 18))
    assert not silent_at(berlin(26, 8, 40, month=10), monkeypatch), "eight are expected"
    assert silent_at(berlin(26, 9, month=10), monkeypatch)


def test_it_is_off_until_someone_turns_it_on(
    app: Flask, admin: FlaskClient, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.app_context():
        report_hours(FRIDAY_EVENING, weeks=5, per_hour=5)
        assert not silent_at(berlin(23, 12), monkeypatch)
    page, action = f"/tenants/{acme}/connect", f"/tenants/{acme}/connect/silence"
    assert "When is a PBX silent?" in admin.get(page).text
    assert post(admin, page, action, enabled="y").location == f"{page}#silence"
    with app.app_context():
        assert silent_at(berlin(23, 12), monkeypatch)
        assert tenant_service.find(acme).alerts_on_silence  # type: ignore[union-attr]
        changes = sql("SELECT changes FROM audit_entries WHERE action = 'tenant.changed'")[0][0]
    assert changes == {"alerts_on_silence": [False, True]}
    fragment = post(admin, page, action, htmx=True)
    assert fragment.text.lstrip().startswith('<section class="panel list" id="silence">')
    assert "checked" not in fragment.text
