"""The chart of emails by day and status: bars for the SVG, a summary in words, and the numbers of the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from babel.dates import format_date, format_skeleton
from babel.numbers import format_compact_decimal
from flask_babel import gettext

from portal.deliveries.statistics import Day, Statistics
from portal.deliveries.status import Status
from portal.web.filters import current_locale, decimal
from portal.web.i18n import to_translate

HEIGHT: Final = 160  # px, of the highest bar
MIN_SEGMENT_HEIGHT: Final = 2  # px, so that one failure among thousands of emails is visible
BAR_SHARE: Final = 0.72  # of a day's width, for its bar
MONDAY: Final = 0
UNLABELLED_DAYS: Final = 3  # at the end, where a label would touch the label of the last day


class ChartSeries(NamedTuple):
    """Statuses that are shown as one: `name` is the CSS class, `label` and `counted` are translated when shown."""

    name: str
    label: str
    counted: str
    statuses: tuple[Status, ...]


SERIES: Final = (  # from the bottom of a bar to its top
    ChartSeries("sent", to_translate("Sent"), to_translate("%(count)s sent"), (Status.SENT,)),
    ChartSeries("partial", to_translate("Partly sent"), to_translate("%(count)s partly sent"), (Status.PARTIAL,)),
    ChartSeries(
        "waiting", to_translate("Waiting"), to_translate("%(count)s waiting"), (Status.PENDING, Status.DEFERRED)
    ),
    ChartSeries("held", to_translate("Held"), to_translate("%(count)s held"), (Status.HELD,)),
    ChartSeries("discarded", to_translate("Discarded"), to_translate("%(count)s discarded"), (Status.DISCARDED,)),
    ChartSeries(
        "failed",
        to_translate("Failed or expired"),
        to_translate("%(count)s failed or expired"),
        (Status.FAILED, Status.EXPIRED),
    ),
)


class Segment(NamedTuple):
    """A part of a bar: px from the top, and height in px."""

    name: str
    y: float
    height: float


class Bar(NamedTuple):
    """A day. `x` and `width` are per cent of the chart's width; `counts` has a number for each series of the chart."""

    label: str
    description: str
    x: float
    width: float
    segments: Sequence[Segment]
    counts: Sequence[int]
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars, the series that occur with their totals, and the number at the top grid line.

    `ticks` are the labels below the bars with their position in per cent; `uncounted` is the number of uncounted days.
    """

    bars: Sequence[Bar]
    series: Sequence[ChartSeries]
    totals: Sequence[int]
    top: int
    ticks: Sequence[tuple[float, str]]
    summary: str
    uncounted: int

    @property
    def scale(self) -> Sequence[tuple[float, str]]:
        """The grid lines: their share of the height, and their number."""
        locale = current_locale()
        return [(part, format_compact_decimal(self.top * part, locale=locale, fraction_digits=1)) for part in (0.5, 1)]

    @property
    def total(self) -> int:
        """The number of emails."""
        return sum(self.totals)


def build_chart(statistics: Statistics) -> Chart:
    """Return the chart of these days."""
    days = statistics.days
    counts = {one: [sum(day.counts.get(status, 0) for status in one.statuses) for day in days] for one in SERIES}
    series = [one for one in SERIES if any(counts[one])]
    totals = [sum(counts[one]) for one in series]
    sentences = [gettext(one.counted) for one in series]
    top = _round_up(max(sum(day.counts.values()) for day in days))
    slot = 100 / len(days)
    bars = [
        _bar(day, series, [counts[one][nth] for one in series], sentences, top, nth * slot, slot)
        for nth, day in enumerate(days)
    ]
    uncounted = sum(not day.is_counted for day in days)
    return Chart(bars, series, totals, top, _ticks(days, slot), _summary(days, sentences, totals), uncounted)


def _bar(
    day: Day,
    series: Sequence[ChartSeries],
    counts: Sequence[int],
    sentences: Sequence[str],
    top: int,
    x: float,
    slot: float,
) -> Bar:
    segments, y = [], float(HEIGHT)
    for one, count in zip(series, counts, strict=True):
        if count:
            height = max(MIN_SEGMENT_HEIGHT, round(count * HEIGHT / top, 2))
            y = max(0.0, y - height)
            segments.append(Segment(one.name, round(y, 2), height))
    label = f"{format_date(day.day, 'EEE', locale=current_locale())} {_short_date(day.day)}"
    description = _counts_text(sentences, counts) or gettext("no emails")
    if not day.is_counted:
        description = gettext("not counted yet")
    left, width = round(x + slot * (1 - BAR_SHARE) / 2, 3), round(slot * BAR_SHARE, 3)
    return Bar(label, description, left, width, segments, counts, day.is_counted)


def _ticks(days: Sequence[Day], slot: float) -> Sequence[tuple[float, str]]:
    """Return a label for each Monday; the page labels today."""
    labelled = [nth for nth, day in enumerate(days[:-UNLABELLED_DAYS]) if day.day.weekday() == MONDAY]
    return [(round((nth + 0.5) * slot, 2), _short_date(days[nth].day)) for nth in labelled]


def _short_date(day: date) -> str:
    return format_skeleton("MMMd", day, locale=current_locale())


def _summary(days: Sequence[Day], sentences: Sequence[str], totals: Sequence[int]) -> str:
    counts = _counts_text(sentences, totals) or gettext("none")
    first, last = _short_date(days[0].day), _short_date(days[-1].day)
    return gettext("Emails per day from %(first)s to %(last)s: %(counts)s.", first=first, last=last, counts=counts)


def _counts_text(sentences: Sequence[str], counts: Sequence[int]) -> str:
    pairs = zip(sentences, counts, strict=True)
    return ", ".join(sentence % {"count": decimal(count)} for sentence, count in pairs if count)


def _round_up(number: int) -> int:
    """Return the next larger number that is easy to read and to halve."""
    step: int = 10 ** (len(str(max(number - 1, 1))) - 1)
    return next(factor * step for factor in (2, 4, 6, 8, 10) if number <= factor * step)
