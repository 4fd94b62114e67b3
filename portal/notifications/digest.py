"""The digest of a storm: one mail about the events whose own mails are held because there were too many.

The portal reports it to itself: no PBX can post one, and no switch is its own.
"""

import html
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

from babel.numbers import format_decimal
from pydantic import BaseModel, ConfigDict

from portal.languages import locale, translated
from portal.notifications.fields import EventData, Line, Moment, Number
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.placeholders import Feeds, Scene, clock
from portal.notifications.templates import Look, Rich, unlinked

SHOWN = 20  # calls that a digest names


class Call(BaseModel):
    """One event of a storm: when it happened, and who called."""

    model_config = ConfigDict(frozen=True)

    at: Moment
    caller: str  # a name and a number, each of which was bounded when it came


def _lines(calls: Sequence[Call], scene: Scene) -> Rich:
    lines = [f"{clock(call.at, scene)}  {unlinked(call.caller)}" for call in calls]
    return Rich("<br>".join(map(html.escape, lines)), "\n".join(lines))


def _number(count: int, scene: Scene) -> str:
    return format_decimal(count, locale=locale(scene.context.locale))


def _what(plural: str, scene: Scene) -> str:
    return translated(scene.context.locale, plural)


def _and_more(count: int, scene: Scene) -> str:
    return translated(scene.context.locale, "… and %(count)s more", count=_number(count, scene)) if count else ""


class StormDigest(EventData):
    """Data of a digest. `count` is all events of the storm, `held` those without a mail of their own."""

    event_type: Line
    what: Annotated[Line, Feeds("WHAT", _what)]
    count: Annotated[int, Feeds("COUNT", _number)]
    held: Annotated[int, Feeds("HELD", _number)]
    queue_number: Annotated[Number, Feeds("QUEUE_NUMBER")]
    queue_name: Annotated[Line | None, Feeds("QUEUE_NAME", otherwise=("QUEUE_NUMBER",))] = None
    first_at: Annotated[Moment, Feeds("FROM_TIME", clock)]
    last_at: Annotated[Moment, Feeds("TO_TIME", clock)]
    calls: Annotated[tuple[Call, ...], Feeds("CALLS", _lines)]
    more: Annotated[int, Feeds("MORE", _and_more)] = 0

    @property
    def switched_by(self) -> str | None:
        """The events that it is about."""
        return self.event_type


DIGEST = EventKind(
    type="queue.digest",
    label="Digest",
    help="Many events at once in one queue.",
    look=Look.ALERT,
    fields=StormDigest,
    subject="%%COUNT%% %%WHAT%% in queue %%QUEUE_NAME%% between %%FROM_TIME%% and %%TO_TIME%%",
    body="""\
# %%COUNT%% %%WHAT%% in queue %%QUEUE_NAME%%

Between %%FROM_TIME%% and %%TO_TIME%% there were too many for a mail each. **%%HELD%%** of them have none:

%%CALLS%%

%%MORE%%

**What to do:** look after the queue. The mails that were not sent are in the delivery log, where you can send each.
""",
    sample={
        "event_type": "queue.call_lost",
        "what": "calls lost",
        "count": 12,
        "held": 2,
        "queue_number": "8000",
        "queue_name": "Support",
        "first_at": "2026-11-23T09:00:00Z",
        "last_at": "2026-11-23T09:05:00Z",
        "calls": [
            {"at": "2026-11-23T09:04:10Z", "caller": "Ana Kovač (+442079460123)"},
            {"at": "2026-11-23T09:04:55Z", "caller": "+442079460188"},
        ],
    },
)

EVERY_KIND: Mapping[str, EventKind] = MappingProxyType({**KINDS, DIGEST.type: DIGEST})
