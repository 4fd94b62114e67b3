"""Mails by day and outcome as bars: what a page draws as SVG, and tells in words and in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from babel.dates import format_date, format_skeleton
from babel.numbers import format_compact_decimal
from flask_babel import gettext

from portal.deliveries.states import Status
from portal.deliveries.tally import Day, Tallied
from portal.languages import to_translate
from portal.ui import decimal, readers_locale

HEIGHT: Final = 160  # px of the highest bar
LEAST: Final = 2  # px, so that one failure among thousands of mails is seen
FILLED: Final = 0.72  # of a day's width
MONDAY: Final = 0
NEAR_THE_END: Final = 3  # days, whose labels would touch the last one's


class Outcome(NamedTuple):
    """Statuses that a reader need not tell apart: `name` is its class in the stylesheet.

    `label` and `counted` are to be translated.
    """

    name: str
    label: str
    counted: str
    statuses: tuple[Status, ...]


OUTCOMES: Final = (  # from the bottom of a bar to its top
    Outcome("sent", to_translate("Sent"), to_translate("%(count)s sent"), (Status.SENT,)),
    Outcome("partial", to_translate("Partly sent"), to_translate("%(count)s partly sent"), (Status.PARTIAL,)),
    Outcome("waiting", to_translate("Waiting"), to_translate("%(count)s waiting"), (Status.PENDING, Status.DEFERRED)),
    Outcome("held", to_translate("Held"), to_translate("%(count)s held"), (Status.HELD,)),
    Outcome("discarded", to_translate("Discarded"), to_translate("%(count)s discarded"), (Status.DISCARDED,)),
    Outcome(
        "failed",
        to_translate("Failed or expired"),
        to_translate("%(count)s failed or expired"),
        (Status.FAILED, Status.EXPIRED),
    ),
)


class Segment(NamedTuple):
    """A part of a bar, in px from the top."""

    name: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A day. `x` and `width` are per cent of the chart's; `counts` has a number for each outcome of the chart."""

    label: str
    words: str
    x: float
    width: float
    segments: Sequence[Segment]
    counts: Sequence[int]
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars, the outcomes that occur with their totals, the number at the top line, and what else is said.

    `ticks` are labels below the bars, each at so many per cent of the width; `uncounted` days are not known yet.
    """

    bars: Sequence[Bar]
    outcomes: Sequence[Outcome]
    totals: Sequence[int]
    top: int
    ticks: Sequence[tuple[float, str]]
    summary: str
    uncounted: int

    @property
    def scale(self) -> Sequence[tuple[float, str]]:
        """The lines above the ground: at which part of the height, and their number."""
        numbers = ((part, self.top * part) for part in (0.5, 1.0))
        return [
            (part, format_compact_decimal(number, locale=readers_locale(), fraction_digits=1))
            for part, number in numbers
        ]

    @property
    def total(self) -> int:
        """How many mails there were."""
        return sum(self.totals)


def of(tallied: Tallied) -> Chart:
    """Return the chart of these days."""
    days = tallied.days
    numbers = {outcome: [_number(day, outcome) for day in days] for outcome in OUTCOMES}
    outcomes = [outcome for outcome in OUTCOMES if any(numbers[outcome])]
    totals = [sum(numbers[outcome]) for outcome in outcomes]
    top = _round_up(max(sum(day.counts.values()) for day in days))
    slot = 100 / len(days)
    bars = [
        _bar(day, outcomes, [numbers[outcome][nth] for outcome in outcomes], top, nth * slot, slot)
        for nth, day in enumerate(days)
    ]
    uncounted = sum(not day.is_counted for day in days)
    return Chart(bars, outcomes, totals, top, _ticks(days, slot), _summary(days, outcomes, totals), uncounted)


def _number(day: Day, outcome: Outcome) -> int:
    return sum(day.counts.get(status, 0) for status in outcome.statuses)


def _bar(day: Day, outcomes: Sequence[Outcome], counts: Sequence[int], top: int, x: float, slot: float) -> Bar:
    segments, y = [], float(HEIGHT)
    for outcome, count in zip(outcomes, counts, strict=True):
        if count:
            height = max(LEAST, round(count * HEIGHT / top, 2))
            y = max(0.0, y - height)
            segments.append(Segment(outcome.name, round(y, 2), height))
    label = f"{format_date(day.day, 'EEE', locale=readers_locale())} {_short(day.day)}"
    words = (_told(outcomes, counts) or gettext("no mail")) if day.is_counted else gettext("not counted yet")
    width = slot * FILLED
    return Bar(
        label, words, round(x + (slot - width) / 2, 3), round(width, 3), segments, counts, is_counted=day.is_counted
    )


def _ticks(days: Sequence[Day], slot: float) -> Sequence[tuple[float, str]]:
    """Return a label for each Monday, and for today."""
    labelled = [nth for nth, day in enumerate(days[:-NEAR_THE_END]) if day.day.weekday() == MONDAY]
    return [(round((nth + 0.5) * slot, 2), _short(days[nth].day)) for nth in labelled]


def _short(day: date) -> str:
    return format_skeleton("MMMd", day, locale=readers_locale())


def _summary(days: Sequence[Day], outcomes: Sequence[Outcome], totals: Sequence[int]) -> str:
    told = _told(outcomes, totals) or gettext("none")
    first, last = _short(days[0].day), _short(days[-1].day)
    return gettext("Mails per day from %(first)s to %(last)s: %(told)s.", first=first, last=last, told=told)


def _told(outcomes: Sequence[Outcome], counts: Sequence[int]) -> str:
    counted = zip(outcomes, counts, strict=True)
    return ", ".join(gettext(outcome.counted, count=decimal(count)) for outcome, count in counted if count)


def _round_up(number: int) -> int:
    """Return the next number that is easy to read and to halve."""
    step = 1
    while True:
        for factor in (2, 4, 6, 8, 10):
            if number <= factor * step:
                return factor * step
        step *= 10
