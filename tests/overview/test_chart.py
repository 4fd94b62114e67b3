"""Bars of days: their heights, their words, and what stands around them."""

from datetime import UTC, date, datetime, timedelta

import pytest

from portal.deliveries.states import Status
from portal.deliveries.tally import Counts, Day, Tallied
from portal.overview import chart
from portal.overview.chart import HEIGHT, LEAST, Chart

FIRST = date(2026, 11, 2)  # a Monday


def drawn(*counts: Counts | None) -> Chart:
    """Return the chart of days with these counts, None for one that is not counted."""
    days = [Day(FIRST + nth * timedelta(days=1), each or {}, each is not None) for nth, each in enumerate(counts)]
    return chart.of(Tallied(days, datetime.now(UTC)))


def test_a_bar_is_as_high_as_its_number() -> None:
    shown = drawn({Status.SENT: 10}, {Status.SENT: 5, Status.FAILED: 2, Status.EXPIRED: 3})
    assert shown.top == 10
    assert [(part.name, part.y, part.height) for part in shown.bars[0].segments] == [("sent", 0, HEIGHT)]
    assert [(part.name, part.height) for part in shown.bars[1].segments] == [
        ("sent", HEIGHT / 2),
        ("failed", HEIGHT / 2),
    ]
    assert shown.bars[1].segments[1].y == 0
    assert shown.bars[1].words == "5 sent, 5 failed or expired"


def test_one_failure_among_thousands_is_seen_and_does_not_stick_out() -> None:
    (bar, _) = drawn({Status.SENT: 10_000, Status.FAILED: 1}, {}).bars
    failed = bar.segments[1]
    assert failed.height == LEAST
    assert failed.y >= 0
    (full, _) = drawn({Status.SENT: 19_999, Status.FAILED: 1}, {}).bars
    assert full.segments[1].y == 0


def test_it_tells_only_of_outcomes_that_there_were() -> None:
    shown = drawn({Status.SENT: 1}, {Status.PENDING: 1, Status.DEFERRED: 2})
    assert [(each.label, total) for each, total in zip(shown.outcomes, shown.totals, strict=True)] == [
        ("Sent", 1),
        ("Waiting", 3),
    ]
    assert shown.summary == "Mails per day from 2 Nov to 3 Nov: 1 sent, 3 waiting."
    assert [bar.counts for bar in shown.bars] == [[1, 0], [0, 3]]


def test_no_mail_and_not_counted_are_two_things() -> None:
    shown = drawn({}, None)
    assert [bar.words for bar in shown.bars] == ["no mail", "not counted yet"]
    assert (shown.total, shown.uncounted) == (0, 1)
    assert shown.summary == "Mails per day from 2 Nov to 3 Nov: none."


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 2), (1, 2), (3, 4), (5, 6), (7, 8), (10, 10), (11, 20), (61, 80), (99, 100), (111_111, 200_000)],
)
def test_the_top_is_a_number_that_is_easy_to_halve(most: int, top: int) -> None:
    assert drawn({Status.SENT: most}, {}).top == top


def test_mondays_are_named_unless_they_touch_today() -> None:
    assert [label for _, label in drawn(*[{}] * 30).ticks] == ["2 Nov", "9 Nov", "16 Nov", "23 Nov"]
    assert [label for _, label in drawn(*[{}] * 9).ticks] == ["2 Nov"]
