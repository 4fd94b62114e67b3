"""The bars of the chart, their descriptions, labels and summary."""

from datetime import UTC, date, datetime, timedelta

import pytest

from portal.deliveries.statistics import Counts, Day, Statistics
from portal.deliveries.status import Status
from portal.overview import chart
from portal.overview.chart import HEIGHT, MIN_SEGMENT_HEIGHT, Chart

FIRST = date(2026, 11, 2)  # a Monday


def chart_of(*counts: Counts | None) -> Chart:
    """Return the chart of days with these counts, None for one that is not counted."""
    days = [Day(FIRST + nth * timedelta(days=1), each or {}, each is not None) for nth, each in enumerate(counts)]
    return chart.build_chart(Statistics(days, datetime.now(UTC)))


def test_a_bar_is_as_high_as_its_number() -> None:
    shown = chart_of({Status.SENT: 10}, {Status.SENT: 5, Status.FAILED: 2, Status.EXPIRED: 3})
    assert shown.top == 10
    assert [(part.name, part.y, part.height) for part in shown.bars[0].segments] == [("sent", 0, HEIGHT)]
    assert [(part.name, part.height) for part in shown.bars[1].segments] == [
        ("sent", HEIGHT / 2),
        ("failed", HEIGHT / 2),
    ]
    assert shown.bars[1].segments[1].y == 0
    assert shown.bars[1].description == "5 sent, 5 failed or expired"


def test_one_failure_among_thousands_is_visible_and_stays_within_the_chart() -> None:
    (bar, _) = chart_of({Status.SENT: 10_000, Status.FAILED: 1}, {}).bars
    failed = bar.segments[1]
    assert failed.height == MIN_SEGMENT_HEIGHT
    assert failed.y >= 0
    (full, _) = chart_of({Status.SENT: 19_999, Status.FAILED: 1}, {}).bars
    assert full.segments[1].y == 0


def test_only_series_that_occur_are_shown() -> None:
    shown = chart_of({Status.SENT: 1}, {Status.PENDING: 1, Status.DEFERRED: 2})
    assert [(each.label, total) for each, total in zip(shown.series, shown.totals, strict=True)] == [
        ("Sent", 1),
        ("Waiting", 3),
    ]
    assert shown.summary == "Emails per day from 2 Nov to 3 Nov: 1 sent, 3 waiting."
    assert [bar.counts for bar in shown.bars] == [[1, 0], [0, 3]]


def test_no_emails_differs_from_not_counted() -> None:
    shown = chart_of({}, None)
    assert [bar.description for bar in shown.bars] == ["no emails", "not counted yet"]
    assert (shown.total, shown.uncounted) == (0, 1)
    assert shown.summary == "Emails per day from 2 Nov to 3 Nov: none."


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, 2), (1, 2), (3, 4), (5, 6), (7, 8), (10, 10), (11, 20), (61, 80), (99, 100), (111_111, 200_000)],
)
def test_the_top_grid_line_is_easy_to_halve(most: int, top: int) -> None:
    assert chart_of({Status.SENT: most}, {}).top == top


def test_mondays_are_labelled_unless_they_touch_today() -> None:
    assert [label for _, label in chart_of(*[{}] * 30).ticks] == ["2 Nov", "9 Nov", "16 Nov", "23 Nov"]
    assert [label for _, label in chart_of(*[{}] * 9).ticks] == ["2 Nov"]
