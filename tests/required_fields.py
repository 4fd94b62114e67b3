"""The fields of an event type that its description requires, and those without which an event is not recorded."""

from typing import Any

from portal.events.event_type import EventType


def described_as_required(event_type: EventType) -> set[str]:
    return set(event_type.fields.model_json_schema()["required"])


def needed(event_type: EventType) -> set[str]:
    return {name for name, field in event_type.fields.model_fields.items() if field.is_required()}


def sample_of(event_type: EventType, names: set[str]) -> dict[str, Any]:
    """Return these fields of the sample."""
    return {name: event_type.sample[name] for name in event_type.sample if name in names}
