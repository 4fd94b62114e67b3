"""PortSIP's own webhook payloads: which of them are events of the portal, in its words.

PortSIP calls anything but 200 a failure, tries again five times within half an hour, and then never. Nobody can change
what it sends. So a detail that is wrong is left out rather than the event refused, and what is of no use is taken all
the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from portal.notifications.events import Event, FieldError, Problem, ProblemKind, check, document
from portal.notifications.kinds import KINDS, EventKind
from portal.pbx.calls import Unneeded

NAMESPACE = UUID("6f2b52a4-4a0e-4a53-9d0c-0c0f6f1f0a51")  # of the ids that are made here, for payloads without one
IDS = ("uuid", "event_uuid", "event_id", "id")
TIMES = ("timestamp", "time")
NOBODY = "anonymous"  # PortSIP sends an empty number for a caller who hides it
CALLERS = "updated_callers"
MOST_LOST = 100  # callers in one payload: each is an event of its own, and PortSIP waits for them all
NO_USE = "Nobody is told of this: it is acknowledged, and recorded nowhere."


@dataclass(frozen=True, slots=True)
class Shape:
    """A payload that is an event: of which kind, and what PortSIP calls the fields of its data."""

    kind: EventKind
    fields: Mapping[str, str]
    of_caller: frozenset[str] = frozenset()  # of these, those that stand at each caller

    @property
    def required(self) -> Sequence[str]:
        """The fields of the data without which it is no event."""
        return [name for name, field in self.kind.fields.model_fields.items() if field.is_required()]


SHAPES: Mapping[str, Shape] = {
    "extension_created": Shape(
        KINDS["user.created"],
        {
            "extension_number": "extension_number",
            "display_name": "disp_name",
            "email": "email",
            "user_name": "username",
        },
    ),
    "queue_sla_breached": Shape(
        KINDS["queue.sla_breached"],
        {
            "queue_number": "queue_id",
            "caller_number": "caller",
            "sla_seconds": "sla_time_secs",
            "callers_waiting": "waiting_callers",
            "callers_breached": "total_callers_breached",
        },
    ),
    "queue_caller_status": Shape(
        KINDS["queue.call_lost"],
        {
            "queue_number": "queue_id",
            "caller_number": "caller_number",
            "call_id": "session_id",
            "position": "position",
        },
        frozenset({"caller_number", "session_id", "position"}),
    ),
}


def read(body: bytes, tenant: str | None) -> Sequence[Event | Problem | Unneeded]:
    """Return the events in a payload, one or more; or the one thing that is wrong with it or makes it of no use.

    `tenant` is the tenant's domain where the address of the webhook names it. PortSIP's own `tenant_id` is a number
    that means nothing here.
    """
    payload = document(body)
    if isinstance(payload, Problem):
        return [payload]
    name = payload.get("event_type")
    if not isinstance(name, str):
        return [_invalid("event_type", "This field is required, as text in quotes.")]
    shape = SHAPES.get(name)
    if shape is None:
        return [Unneeded(NO_USE)]
    if not shape.of_caller:
        return [_event(shape, payload, tenant)]
    callers = payload.get(CALLERS)
    if not isinstance(callers, list) or not all(isinstance(each, dict) for each in callers):
        return [_invalid(CALLERS, "Send a list of objects: [{…}].", shape.kind.type)]
    lost = _lost(callers)
    if len(lost) > MOST_LOST:
        return [_invalid(CALLERS, f"Send at most {MOST_LOST} callers who hung up.", shape.kind.type)]
    different = [each for number, each in enumerate(lost) if each not in lost[:number]]
    return [_event(shape, payload | each, tenant) for each in different] or [Unneeded(NO_USE)]


def _lost(callers: Iterable[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return those who hung up in the queue. Who asked for a callback is not on the line any more."""
    return [each for each in callers if each.get("reason") == "hangup" and each.get("type") != "callback"]


def _event(shape: Shape, given: Mapping[str, Any], tenant: str | None) -> Event | Problem:
    data = {ours: _text_of_number(ours, given.get(theirs)) for ours, theirs in shape.fields.items()}
    if "caller_number" in data:
        data["caller_number"] = data["caller_number"] or NOBODY
    time = next((given[name] for name in TIMES if given.get(name)), None)
    event = {"id": _id(given, data), "type": shape.kind.type, "time": time, "tenant": tenant, "data": data}
    checked = check(event)
    if isinstance(checked, Problem):
        checked = check(_without_wrong_details(event, shape, checked))
    return _in_its_words(checked, shape) if isinstance(checked, Problem) else checked


def _text_of_number(name: str, value: Any) -> Any:
    return str(value) if name.endswith("_number") and type(value) is int else value


def _id(given: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return an id that is the same when the payload comes again: its own, or one made of what is in it.

    No password is among what it is made of. The callers of one payload each have their own.
    """
    own = next((given[name] for name in IDS if isinstance(given.get(name), str) and given[name]), None)
    if own and CALLERS not in given:
        return str(own)
    named = (given.get(name) for name in ("event_type", "tenant_id", "extension_id", *TIMES))
    around = [each if isinstance(each, str | int | float) else None for each in named]
    return str(uuid5(NAMESPACE, json.dumps([own, around, data], sort_keys=True)))


def _without_wrong_details(event: Mapping[str, Any], shape: Shape, problem: Problem) -> Mapping[str, Any]:
    wrong = {error.field for error in problem.errors} - {f"data.{name}" for name in shape.required} - {"tenant"}
    data = {name: value for name, value in event["data"].items() if f"data.{name}" not in wrong}
    return {name: value for name, value in event.items() if name not in wrong} | {"data": data}


def _in_its_words(problem: Problem, shape: Shape) -> Problem:
    names = {f"data.{ours}": theirs for ours, theirs in shape.fields.items()}
    errors = tuple(FieldError(names.get(error.field, error.field), error.message) for error in problem.errors)
    return Problem(problem.kind, problem.detail, errors, problem.event_type)


def _invalid(field: str, sentence: str, event_type: str | None = None) -> Problem:
    detail = "The event has fields that are missing or wrong."
    return Problem(ProblemKind.INVALID, detail, (FieldError(field, sentence),), event_type)
