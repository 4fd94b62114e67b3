"""Who gets an event now, and who after their quiet hours: a pure function."""

from collections.abc import Collection
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from portal.notifications.decision import QuietHours, RecipientRules, decide

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY, WEEKEND, MONDAY, SUNDAY = range(7), (5, 6), (0,), (6,)
LOST = "queue.call_lost"


def quiet(begin: str, end: str, days: Collection[int] = EVERY_DAY) -> QuietHours:
    return QuietHours(frozenset(days), time.fromisoformat(begin), time.fromisoformat(end))


@pytest.mark.parametrize(
    ("hours", "now", "end"),  # local times of Berlin; 2026-11-23 is a Monday
    [
        (quiet("12:00", "13:00"), "2026-11-23 12:00", "2026-11-23 13:00"),
        (quiet("12:00", "13:00"), "2026-11-23 11:59", None),
        (quiet("12:00", "13:00"), "2026-11-23 13:00", None),
        (quiet("22:00", "07:00"), "2026-11-23 23:00", "2026-11-24 07:00"),
        (quiet("22:00", "07:00"), "2026-11-24 06:59", "2026-11-24 07:00"),
        (quiet("22:00", "07:00"), "2026-11-24 07:00", None),
        (quiet("22:00", "07:00", MONDAY), "2026-11-23 06:00", None),  # the night of Sunday
        (quiet("22:00", "07:00", MONDAY), "2026-11-24 06:00", "2026-11-24 07:00"),  # the night of Monday
        (quiet("22:00", "07:00", SUNDAY), "2026-11-23 06:00", "2026-11-23 07:00"),
        (quiet("00:00", "00:00", WEEKEND), "2026-11-21 00:00", "2026-11-23 00:00"),  # two days in one
        (quiet("00:00", "00:00", WEEKEND), "2026-11-20 23:59", None),
        (quiet("18:00", "18:00", WEEKEND), "2026-11-21 18:00", "2026-11-23 18:00"),
        # The clocks go forward at 02:00 on 2026-03-29, and back at 03:00 on 2026-10-25.
        (quiet("22:00", "07:00"), "2026-03-28 23:00", "2026-03-29 07:00"),
        (quiet("22:00", "07:00"), "2026-10-24 23:00", "2026-10-25 07:00"),
        (quiet("01:00", "02:30"), "2026-03-29 01:30", "2026-03-29 03:30"),  # there is no 02:30
        (quiet("02:15", "02:45"), "2026-03-29 03:20", "2026-03-29 03:45"),
        (quiet("01:00", "02:30"), "2026-10-25 01:30", "2026-10-25 02:30"),  # the first of two
    ],
)
def test_the_end_of_quiet_hours(hours: QuietHours, now: str, end: str | None) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=BERLIN).astimezone(UTC)
    expected = datetime.fromisoformat(end).replace(tzinfo=BERLIN).astimezone(UTC) if end else None
    assert hours.end_after(moment, BERLIN) == expected


def test_a_night_with_another_offset_is_an_hour_shorter_or_longer() -> None:
    night = quiet("22:00", "07:00")
    spring, autumn = datetime(2026, 3, 28, 21, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC)  # 22:00 in Berlin
    for begin, hours in ((spring, 8), (autumn, 10)):
        end = night.end_after(begin, BERLIN)
        assert end is not None
        assert (end - begin).total_seconds() / 3600 == hours


def test_midnight_that_does_not_exist() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # where the clocks went from 00:00 to 01:00 on 2022-03-27
    end = quiet("20:00", "00:00").end_after(datetime(2022, 3, 26, 21, tzinfo=UTC), beirut)
    assert end is not None
    assert end.astimezone(beirut).isoformat() == "2022-03-27T01:00:00+03:00"


def test_hours_that_never_end() -> None:
    assert quiet("08:00", "08:00").never_ends
    assert not quiet("08:00", "08:00", WEEKEND).never_ends
    assert not quiet("08:00", "07:59").never_ends
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    end = quiet("00:00", "00:00").end_after(now, BERLIN)  # should one be stored all the same
    assert end is not None
    assert (end - now).days < 8


RULES = [
    RecipientRules("support@x.example", queues=["8000", "Sales"]),
    RecipientRules("night@x.example", quiet_hours=quiet("22:00", "07:00"), urgent_event_types=["queue.sla_breached"]),
    RecipientRules("early@x.example", quiet_hours=quiet("20:00", "06:00")),
    RecipientRules("boss@x.example", queues=["8001"], quiet_hours=quiet("22:00", "07:00")),
]
NIGHT, SEVEN, SIX = (datetime(2026, 11, day, hour, tzinfo=UTC) for day, hour in ((23, 22), (24, 6), (24, 5)))


@pytest.mark.parametrize(
    ("event_type", "queue", "now", "at_once", "held"),
    [
        (LOST, ["8000"], NIGHT, ["support"], {SEVEN: ["night"], SIX: ["early"]}),
        (LOST, ["8001", "sales"], NIGHT, ["support"], {SEVEN: ["night", "boss"], SIX: ["early"]}),
        (LOST, ["8002"], NIGHT, [], {SEVEN: ["night"], SIX: ["early"]}),
        (LOST, ["80"], SEVEN, ["night", "early"], {}),
        ("queue.sla_breached", ["8002"], NIGHT, ["night"], {SIX: ["early"]}),
        ("user.created", [], SEVEN, ["support", "night", "early", "boss"], {}),
    ],
)
def test_who_gets_an_event(
    event_type: str, queue: list[str], now: datetime, at_once: list[str], held: dict[datetime, list[str]]
) -> None:
    decision = decide(["all@x.example"], RULES, event_type, queue, now, "Europe/Berlin")
    assert [email.partition("@")[0] for email in decision.now] == ["all", *at_once]
    assert {end: [email.partition("@")[0] for email in emails] for end, emails in decision.quiet.items()} == held


def test_the_time_zone_of_the_tenant_decides() -> None:
    rules = [RecipientRules("night@x.example", quiet_hours=quiet("22:00", "07:00"))]
    evening = datetime(2026, 11, 23, 21, 30, tzinfo=UTC)
    assert decide([], rules, LOST, [], evening, "Europe/Berlin").quiet
    assert not decide([], rules, LOST, [], evening, "UTC").quiet
