"""The storm digest: one summary email about events whose own emails are held because there were too many.

The portal creates these events itself: a PBX cannot post one, and there is no setting of their own.
"""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Annotated
from zoneinfo import ZoneInfo

from babel.numbers import format_decimal
from pydantic import BaseModel, ConfigDict

from portal.events.event_type import EmailStyle, EventData, EventType
from portal.events.fields import PhoneNumber, ShortText, Timestamp
from portal.events.recipient_emails import QUIET_SUMMARY, SETTINGS_LINK
from portal.events.types import EVENT_TYPES
from portal.events.values import (
    Placeholder,
    RichValue,
    ValueContext,
    format_time_of_day,
    phone_link,
    prevent_autolinks,
)
from portal.web.i18n import locale_of, translated

MAX_LISTED_CALLS = 20


class DigestEntry(BaseModel):
    """One event of a storm: the time and the caller."""

    model_config = ConfigDict(frozen=True)

    at: Timestamp
    caller: str  # name and number; their lengths were limited when they were received
    number: str = ""  # which the digests of earlier versions do not have


def _format_caller(call: DigestEntry) -> RichValue:
    """Return the caller, with a link that calls the number."""
    number = phone_link(call.number) if call.number else ""
    if not isinstance(number, RichValue):
        text = prevent_autolinks(call.caller)
        return RichValue(html.escape(text), text)
    name, _, end = call.caller.rpartition(call.number)
    before, after = prevent_autolinks(name), prevent_autolinks(end)
    return RichValue(html.escape(before) + number.html + html.escape(after), before + number.text + after)


def _format_calls(calls: Sequence[DigestEntry], context: ValueContext) -> RichValue:
    callers = [(format_time_of_day(call.at, context), _format_caller(call)) for call in calls]
    return RichValue(
        "<br>".join(f"{html.escape(time)}  {caller.html}" for time, caller in callers),
        "\n".join(f"{time}  {caller.text}" for time, caller in callers),
    )


def _format_period(first: datetime, context: ValueContext) -> str:
    """Return the time between the first and the last event. Within the same minute it is one time."""
    assert isinstance(context.data, StormDigest)
    start = format_time_of_day(first, context)
    end = format_time_of_day(context.data.last_at, context)
    if start == end:
        return translated(context.language, "at %(time)s", time=start)
    return translated(context.language, "between %(start)s and %(end)s", start=start, end=end)


def _format_number(count: int, context: ValueContext) -> str:
    return format_decimal(count, locale=locale_of(context.language))


def _translate(plural: str, context: ValueContext) -> str:
    return translated(context.language, plural)


def _format_more(count: int, context: ValueContext) -> str:
    return translated(context.language, "… and %(count)s more", count=_format_number(count, context)) if count else ""


class StormDigest(EventData):
    """Data of a digest: `count` is the number of events in the storm, `held` of those without an email of their own."""

    event_type: ShortText
    what: Annotated[ShortText, Placeholder("WHAT", _translate)]
    count: Annotated[int, Placeholder("COUNT", _format_number)]
    held: Annotated[int, Placeholder("HELD", _format_number)]
    queue_number: Annotated[PhoneNumber, Placeholder("QUEUE_NUMBER")]
    queue_name: Annotated[ShortText | None, Placeholder("QUEUE_NAME", fallbacks=("QUEUE_NUMBER",))] = None
    first_at: Annotated[Timestamp, Placeholder("PERIOD", _format_period)]
    last_at: Timestamp
    calls: Annotated[tuple[DigestEntry, ...], Placeholder("CALLS", _format_calls)]
    more: Annotated[int, Placeholder("MORE", _format_more)] = 0

    def log_parameters(self, time_zone: str) -> Mapping[str, str]:
        """Return the parameters with which the delivery log shows the events whose emails are held."""
        since, until = (str(time.astimezone(ZoneInfo(time_zone)).date()) for time in (self.first_at, self.last_at))
        filters = {"event": self.event_type, "queue": self.queue_number, "outcome": "held"}
        return {**filters, "since": since, "until": until}

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The queue's number, and its name if the events had it."""
        return (self.queue_number, self.queue_name) if self.queue_name else (self.queue_number,)

    @property
    def uses_setting_of(self) -> str | None:
        """The type of the events in the digest."""
        return self.event_type


DIGEST = EventType(
    type="queue.digest",
    label="Summary email",
    help="Too many events at once in one queue.",
    style=EmailStyle.ALERT,
    fields=StormDigest,
    subject="%%COUNT%% %%WHAT%% in queue %%QUEUE_NAME%% %%PERIOD%%",
    body="""\
# %%COUNT%% %%WHAT%% in queue %%QUEUE_NAME%%

There were too many %%PERIOD%% to email each one. **%%HELD%%** of them were not emailed:

%%CALLS%%

%%MORE%%

**What to do:** check the queue. The emails that were not sent are in the delivery log, where you can still send them.

[View them in the portal](%%EVENT_URL%%)
""",
    sample={
        "event_type": "queue.call_lost",
        "what": "lost calls",
        "count": 12,
        "held": 2,
        "queue_number": "8000",
        "queue_name": "Support",
        "first_at": "2026-11-23T09:00:00Z",
        "last_at": "2026-11-23T09:05:00Z",
        "calls": [
            {"at": "2026-11-23T09:04:10Z", "caller": "Ana Kovač (+442079460123)", "number": "+442079460123"},
            {"at": "2026-11-23T09:04:55Z", "caller": "+442079460188", "number": "+442079460188"},
        ],
    },
)

ALL_EVENT_TYPES: Mapping[str, EventType] = MappingProxyType(
    {**EVENT_TYPES, **{event_type.type: event_type for event_type in (DIGEST, QUIET_SUMMARY, SETTINGS_LINK)}}
)
