"""Emails to one recipient that the portal itself decides about: the summary after quiet hours, and a link.

A PBX cannot post these events, and there is no setting of their own: they are sent unless the tenant is suspended.
"""

import html
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from babel.dates import format_date
from babel.numbers import format_decimal
from pydantic import BaseModel, ConfigDict

from portal.events.event_type import EmailStyle, EventData, EventType
from portal.events.fields import Timestamp
from portal.events.values import Placeholder, RichValue, ValueContext, format_time_of_day, prevent_autolinks
from portal.web.i18n import locale_of, translated

MAX_LISTED_EVENTS: Final = 20


class QuietEvent(BaseModel):
    """One event that was held back: the time, and the subject that its email would have had."""

    model_config = ConfigDict(frozen=True)

    at: Timestamp
    subject: str


def _format_events(events: Sequence[QuietEvent], context: ValueContext) -> RichValue:
    lines = [f"{_day_and_time(event, context)}  {prevent_autolinks(event.subject)}" for event in events]
    return RichValue("<br>".join(map(html.escape, lines)), "\n".join(lines))


def _day_and_time(event: QuietEvent, context: ValueContext) -> str:
    day = event.at.astimezone(ZoneInfo(context.time_zone)).date()
    return f"{format_date(day, 'EEE', locale=locale_of(context.language))} {format_time_of_day(event.at, context)}"


def _format_number(count: int, context: ValueContext) -> str:
    return format_decimal(count, locale=locale_of(context.language))


def _format_more(count: int, context: ValueContext) -> str:
    return translated(context.language, "… and %(count)s more", count=_format_number(count, context)) if count else ""


class QuietSummary(EventData):
    """Data of the summary: `count` is the number of events that were held back, of which the oldest are listed."""

    count: Annotated[int, Placeholder("COUNT", _format_number)]
    events: Annotated[tuple[QuietEvent, ...], Placeholder("EVENTS", _format_events)]
    more: Annotated[int, Placeholder("MORE", _format_more)] = 0


class LinkRequest(EventData):
    """Data of a requested link: the link itself is not stored."""


QUIET_SUMMARY = EventType(
    type="recipient.summary",
    label="Summary after quiet hours",
    expiry=timedelta(hours=72),
    help="What was held back during a recipient's quiet hours.",
    style=EmailStyle.NOTICE,
    fields=QuietSummary,
    subject="After your quiet hours: %%COUNT%% held back",
    body="""\
# What happened during your quiet hours

**Held back:** %%COUNT%%. No email was sent to you about:

%%EVENTS%%

%%MORE%%

**What to do:** check whether somebody has to be called back. The link below changes your quiet hours.
""",
    sample={
        "count": 2,
        "events": [
            {"at": "2026-11-22T22:14:00Z", "subject": "Call lost in queue Support: Ana Kovač"},
            {"at": "2026-11-23T02:40:00Z", "subject": "Long wait in queue Support: more than 1 minute"},
        ],
    },
)
SETTINGS_LINK = EventType(
    type="recipient.link",
    label="Link to a recipient's settings",
    help="A recipient asked for a link to change what they receive.",
    style=EmailStyle.NOTICE,
    fields=LinkRequest,
    subject="Which emails you get from %%TENANT_NAME%%",
    body="""\
# Which emails you get

Somebody, probably you, asked for a link to change which emails you get from %%TENANT_NAME%%. It is below.

If it was not you, you can ignore this email.
""",
    sample={},
)
