"""Describes what a PBX reported in an event, field by field, for the tenant's pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask_babel import gettext

from portal.events.event_type import EventType
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.values import Placeholder, ValueContext, placeholders_by_field, plain_text

ACRONYMS: Final = {"id", "ip", "pin", "sip", "sla", "tcp", "tls", "udp"}
LABELS: Final = {  # where a field's name does not say it
    "user_name": "Username",
    "login_ip": "Login IP address",
    "private_ip": "Internal IP address",
    "callers_breached": "Callers past the SLA time",
}
UNIT_SUFFIX: Final = "_seconds"  # not part of a label: the formatted value contains the unit


@dataclass(frozen=True, slots=True)
class DescribedField:
    """The label of a reported field and its value as text; for a time also the time itself."""

    label: str
    value: str
    at: datetime | None = None


def describe_event(
    event_type: str, data: Mapping[str, Any], time: datetime, time_zone: str, language: str
) -> Sequence[DescribedField]:
    """Return the fields of an event that may be shown, without lists; `data` are its public fields."""
    known = ALL_EVENT_TYPES.get(event_type)
    if known is None:
        return [DescribedField(_label(name), str(value)) for name, value in data.items()]
    placeholders = placeholders_by_field(known.fields)
    context = ValueContext(known.fields.model_construct(**data), time, time_zone, language)
    return [
        _describe_field(name, data[name], placeholders.get(name), context)
        for name in known.fields.model_fields
        if name in data and name not in known.fields.secret_names() and not isinstance(data[name], list)
    ]


def field_labels(event_type: EventType) -> Sequence[str]:
    """Return the English labels of an event type's fields, for the catalogues."""
    fields = event_type.fields
    return [_label(name.removesuffix(UNIT_SUFFIX)) for name in fields.model_fields if name not in fields.secret_names()]


def _describe_field(name: str, value: Any, placeholder: Placeholder | None, context: ValueContext) -> DescribedField:
    label = gettext(_label(name.removesuffix(UNIT_SUFFIX)))
    if name.endswith("_at"):
        return DescribedField(label, str(value), datetime.fromisoformat(value))
    if placeholder is None:
        return DescribedField(label, str(value))
    return DescribedField(label, plain_text(placeholder.format(value, context)))


def _label(field_name: str) -> str:
    if field_name in LABELS:
        return LABELS[field_name]
    text = " ".join(word.upper() if word in ACRONYMS else word for word in field_name.split("_"))
    return text[0].upper() + text[1:]
