"""What a PBX reported in an event, field by field, in words for the people of the tenant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask_babel import gettext

from portal.notifications.digest import EVERY_KIND
from portal.notifications.kinds import EventKind
from portal.notifications.placeholders import Context, Feeds, Scene, feeds

ACRONYMS: Final = {"id", "ip", "pin", "sip", "sla", "tcp", "tls", "udp"}
NO_UNIT: Final = "_seconds"  # each such value is put in words, which have its unit


@dataclass(frozen=True, slots=True)
class Fact:
    """A field that was reported: a label, and its value in words, or a moment."""

    label: str
    value: str
    at: datetime | None = None


def facts(event_type: str, data: Mapping[str, Any], time: datetime, context: Context) -> Sequence[Fact]:
    """Return what an event carries that may be shown: `data` is the public part of it. Lists are left out."""
    kind = EVERY_KIND.get(event_type)
    if kind is None:
        return [Fact(_label(name), str(value)) for name, value in data.items()]
    read = kind.fields.model_construct(**data)
    marks, scene = feeds(kind.fields), Scene(read, time, context)
    shown = [name for name in kind.fields.model_fields if name in data and not isinstance(data[name], list)]
    return [_fact(name, data[name], marks.get(name), scene) for name in shown if name not in kind.fields.secret_names()]


def labels(kind: EventKind) -> Sequence[str]:
    """Return the labels of what its events carry, in English: they are to be translated."""
    return [
        _label(name.removesuffix(NO_UNIT))
        for name in kind.fields.model_fields
        if name not in kind.fields.secret_names()
    ]


def _fact(name: str, value: Any, mark: Feeds | None, scene: Scene) -> Fact:
    label = gettext(_label(name.removesuffix(NO_UNIT)))
    if name.endswith("_at"):
        return Fact(label, str(value), datetime.fromisoformat(value))
    if mark is None:
        return Fact(label, str(value))
    words = mark.words(value, scene)
    return Fact(label, words if isinstance(words, str) else words.text)


def _label(name: str) -> str:
    words = " ".join(word.upper() if word in ACRONYMS else word for word in name.split("_"))
    return words[0].upper() + words[1:]
