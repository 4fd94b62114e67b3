"""Who gets an event now, and who not before their quiet hours end.

It is decided from values alone: the recipients' rules, the event's type and queue, and the time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

DAYS_OF_WEEK: Final = range(7)  # 0 is Monday, as for `datetime.weekday`


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The days of the week on which quiet hours begin, and the times of the tenant's time zone.

    They end on the next day unless `end` is later than `begin`. A time that daylight saving time skips is the same time
    after the change, an hour later; of a time that it repeats the first one counts.
    """

    days: frozenset[int]
    begin: time
    end: time

    @property
    def never_ends(self) -> bool:
        """Whether they begin again whenever they end."""
        return len(self.days) == len(DAYS_OF_WEEK) and self.begin == self.end

    def end_after(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """Return when they end if `now` is within them, else None. Those that begin when others end prolong them."""
        last = now
        for _ in DAYS_OF_WEEK:
            end = self._end_of_period(last, zone)
            if end is None:
                break
            last = end
        return last if last > now else None

    def _end_of_period(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        today = now.astimezone(zone).date()
        for day in (today, today - timedelta(days=1)):
            last_day = day if self.end > self.begin else day + timedelta(days=1)
            begin, end = (
                datetime.combine(*local, zone).astimezone(UTC) for local in ((day, self.begin), (last_day, self.end))
            )
            if day.weekday() in self.days and begin <= now < end:
                return end
        return None


@dataclass(frozen=True, slots=True)
class RecipientRules:
    """What limits the emails to a recipient: the queues, none for all of them, and quiet hours.

    The urgent event types do not wait for the end of quiet hours.
    """

    email: str
    queues: Collection[str] = ()
    quiet_hours: QuietHours | None = None
    urgent_event_types: Collection[str] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the rules in the columns of a recipient, as JSON has them."""
        quiet_hours = None
        if row["quiet_days"]:
            begin, end = time.fromisoformat(row["quiet_from"]), time.fromisoformat(row["quiet_until"])
            quiet_hours = QuietHours(frozenset(row["quiet_days"]), begin, end)
        return cls(row["email"], row["queues"], quiet_hours, row["urgent_event_types"])

    def includes(self, queue: Collection[str]) -> bool:
        """Return whether it gets events of a queue, given by its number and name. An event without a queue is for all.

        Upper and lower case are the same.
        """
        return (
            not self.queues or not queue or not {*map(str.casefold, self.queues)}.isdisjoint(map(str.casefold, queue))
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The email addresses that get an event now, and those in quiet hours by the time when these end."""

    now: Sequence[str]
    quiet: Mapping[datetime, Sequence[str]] = field(default_factory=dict)


def decide(
    emails: Sequence[str],
    rules: Collection[RecipientRules],
    event_type: str,
    queue: Collection[str],
    now: datetime,
    time_zone: str,
) -> Decision:
    """Decide about an event of this type and queue. `emails` are the recipients without rules.

    Recipients that are paused or excluded the event type are left out of both beforehand.
    """
    if not rules:
        return Decision(emails)
    zone, at_once, quiet = ZoneInfo(time_zone), [*emails], dict[datetime, list[str]]()
    for rule in rules:
        if not rule.includes(queue):
            continue
        end = None
        if rule.quiet_hours and event_type not in rule.urgent_event_types:
            end = rule.quiet_hours.end_after(now, zone)
        if end is None:
            at_once.append(rule.email)
        else:
            quiet.setdefault(end, []).append(rule.email)
    return Decision(at_once, quiet)
