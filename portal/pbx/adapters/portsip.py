"""PortSIP: flat JSON objects, told apart by `event_type`.

PortSIP takes any response but 200 for a failure, retries five times within half an hour, and then gives up. Nobody can
change what it sends. So a payload that is no event of the portal is acknowledged like one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

from portal.events.event_type import EventType
from portal.events.fields import fold_choice
from portal.events.parsing import (
    JSON_IN_STRING,
    Event,
    FieldError,
    FieldWarning,
    Problem,
    ProblemKind,
    check_event,
    parse_json,
    parse_value,
)
from portal.events.types import EVENT_TYPES, HIDDEN_NUMBER
from portal.pbx.adapters.adapter import Adapter, PayloadFormat, Schema, add_warnings

ID_NAMESPACE = UUID("6f2b52a4-4a0e-4a53-9d0c-0c0f6f1f0a51")  # of the ids that are made for payloads without one
ID_FIELDS = ("uuid", "event_uuid", "event_id", "id")
TIME_FIELDS = ("timestamp", "time")
CALLERS_FIELD = "updated_callers"
MAX_LOST_CALLS = 100  # in one payload: each is an event of its own, and PortSIP waits for all of them
NOT_LOST = {"", "enqueue", "overflow", "callback"}  # reasons; a change of the position may have none
ANSWERED = re.compile(r"(agent|caller)?(answer(ed)?|connect(ed)?|bridged|picked?up|served|completed?)(agent|caller)?")

AUTHENTICATION = "PortSIP sends the key as a Bearer token, or as the password of Basic authentication. It cannot sign."
DESCRIPTION = "PortSIP's `tenant_id` is not used: the key, or the parameter `tenant`, says which tenant it is."


@dataclass(frozen=True, slots=True)
class PayloadType:
    """A payload that is an event: the event's type, and PortSIP's names of the fields of its data."""

    event_type: EventType
    fields: Mapping[str, str]
    caller_fields: frozenset[str] = frozenset()  # the PortSIP fields that each caller in the payload has


PAYLOAD_TYPES: Mapping[str, PayloadType] = {
    "extension_created": PayloadType(
        EVENT_TYPES["user.created"],
        {
            "extension_number": "extension_number",
            "display_name": "disp_name",
            "email": "email",
            "user_name": "username",
        },
    ),
    "queue_sla_breached": PayloadType(
        EVENT_TYPES["queue.sla_breached"],
        {
            "queue_number": "queue_id",
            "caller_number": "caller",
            "sla_seconds": "sla_time_secs",
            "callers_waiting": "waiting_callers",
            "callers_breached": "total_callers_breached",
        },
    ),
    "queue_caller_status": PayloadType(
        EVENT_TYPES["queue.call_lost"],
        {"queue_number": "queue_id", "caller_number": "caller_number", "call_id": "session_id", "position": "position"},
        frozenset({"caller_number", "session_id", "position"}),
    ),
}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "extension_created": {
        "event_type": "extension_created",
        "tenant_id": "1088311245504",
        "extension_id": "1088311987712",
        "extension_number": "1001",
        "disp_name": "Ana Kovač",
        "email": "ana.kovac@acme.example",
        "username": "ana.kovac",
    },
    "queue_sla_breached": {
        "event_type": "queue_sla_breached",
        "tenant_id": "1088311245504",
        "queue_id": "8000",
        "caller": "+442079460123",
        "sla_time_secs": "60",
        "waiting_callers": "4",
        "total_callers_breached": "2",
    },
    "queue_caller_status": {
        "event_type": "queue_caller_status",
        "tenant_id": "1088311245504",
        "queue_id": "8000",
        "updated_callers": [
            {
                "session_id": "1088319423488",
                "caller_number": "+442079460123",
                "position": "1",
                "reason": "hangup",
                "type": "normal",
            }
        ],
    },
}


def read(body: str, tenant: str | None) -> Sequence[Event | Problem]:
    """Return the events in a payload, or the one problem with it."""
    payload = parse_json(body)
    if isinstance(payload, Problem):
        return [payload]
    sent_name = payload.get("event_type")
    if not isinstance(sent_name, str):
        return [_invalid("event_type", "This field is required, as text in quotes.")]
    name = fold_choice(sent_name)
    payload_type = PAYLOAD_TYPES.get(name)
    if payload_type is None:
        return []
    warnings = [] if name == sent_name else [FieldWarning("event_type", f"This was read as “{name}”.")]
    if payload_type.caller_fields:
        results = _lost_calls(payload_type, payload, tenant, warnings)
    else:
        results = [_event(payload_type, payload, tenant)]
    return [add_warnings(result, warnings) for result in results]


def _lost_calls(
    payload_type: PayloadType, payload: Mapping[str, Any], tenant: str | None, warnings: list[FieldWarning]
) -> Sequence[Event | Problem]:
    """Return an event for each caller whose call was lost. A repeat of the payload gives the same ones."""
    callers = _callers(payload, warnings)
    if callers is None:
        return [_invalid(CALLERS_FIELD, "Send a list of objects: [{…}].", payload_type)]
    lost = {json.dumps(caller, sort_keys=True): caller for caller in callers if _is_lost(caller)}
    if len(lost) > MAX_LOST_CALLS:
        message = f"Only the first {MAX_LOST_CALLS} lost calls were recorded. {len(lost)} were sent."
        warnings.append(FieldWarning(CALLERS_FIELD, message))
    return [
        add_warnings(_event(payload_type, {**payload, **caller}, tenant), _reason_warnings(caller))
        for caller in [*lost.values()][:MAX_LOST_CALLS]
    ]


def _callers(payload: Mapping[str, Any], warnings: list[FieldWarning]) -> Sequence[dict[str, Any]] | None:
    """Return the callers in a list, an object, or JSON in a string; None if there is nothing like that."""
    sent = payload.get(CALLERS_FIELD)
    if isinstance(sent, str):
        sent = parse_value(sent)
        warnings.append(FieldWarning(CALLERS_FIELD, JSON_IN_STRING))
    if isinstance(sent, dict):
        sent = [*sent.values()] if all(isinstance(value, dict) for value in sent.values()) else [sent]
        warnings.append(FieldWarning(CALLERS_FIELD, "This was read as a list. Send a list of objects: [{…}]."))
    if not isinstance(sent, list):
        return None
    callers = [caller for caller in sent if isinstance(caller, dict)]
    return callers if callers or not sent else None


def _is_lost(caller: Mapping[str, Any]) -> bool:
    """Return whether a caller hung up while waiting. Callers who asked for a callback have hung up too."""
    reason = _fold(caller.get("reason"))
    return reason not in NOT_LOST and not ANSWERED.fullmatch(reason) and _fold(caller.get("type")) != "callback"


def _reason_warnings(caller: Mapping[str, Any]) -> Sequence[FieldWarning]:
    message = "This reason is not known. The call was recorded as lost."
    return [] if _fold(caller.get("reason")) == "hangup" else [FieldWarning("reason", message)]


def _fold(value: Any) -> str:
    """Return a value as text without its case, blanks and punctuation: "Hang_up " is "hangup"."""
    return "" if value is None else re.sub(r"[\W_]+", "", str(value)).lower()


def _event(payload_type: PayloadType, payload: Mapping[str, Any], tenant: str | None) -> Event | Problem:
    data = {ours: payload.get(theirs) for ours, theirs in payload_type.fields.items()}
    if data.get("caller_number", HIDDEN_NUMBER) in (None, ""):  # PortSIP's caller who hides the number
        data["caller_number"] = HIDDEN_NUMBER
    time = next((payload[name] for name in TIME_FIELDS if payload.get(name)), None)
    type_, id_ = payload_type.event_type.type, _id(payload, data)
    event = check_event({"id": id_, "type": type_, "time": time, "tenant": tenant, "data": data})
    names = {f"data.{ours}": theirs for ours, theirs in payload_type.fields.items()}
    if isinstance(event, Event):
        warnings = (replace(warning, field=names.get(warning.field, warning.field)) for warning in event.warnings)
        return replace(event, warnings=tuple(warnings))
    errors = (replace(error, field=names.get(error.field, error.field)) for error in event.errors)
    return replace(event, errors=tuple(errors))


def _id(payload: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return an id that is the same when the payload is repeated: its own, or one made of its content.

    The content that is used holds no password. Each caller in a payload gets another id.
    """
    own = next((payload[name] for name in ID_FIELDS if isinstance(payload.get(name), str) and payload[name]), None)
    if own and CALLERS_FIELD not in payload:
        return str(own)
    values = (payload.get(name) for name in ("event_type", "tenant_id", "extension_id", *TIME_FIELDS))
    scalars = [value if isinstance(value, str | int | float) else None for value in values]
    return str(uuid5(ID_NAMESPACE, json.dumps([own, scalars, data], sort_keys=True)))


def _invalid(field: str, message: str, payload_type: PayloadType | None = None) -> Problem:
    detail = "The event has fields that are missing or wrong."
    event_type = payload_type.event_type.type if payload_type else None
    return Problem(ProblemKind.INVALID, detail, (FieldError(field, message),), event_type)


def _schemas() -> Mapping[str, Schema]:
    other = {
        "type": "object",
        "title": "Anything else",
        "description": "Acknowledged and not recorded.",
        "properties": {"event_type": {"type": "string", "description": "PortSIP's name of what happened."}},
        "required": ["event_type"],
    }
    return {name: _schema(name, payload_type) for name, payload_type in PAYLOAD_TYPES.items()} | {"other": other}


def _schema(name: str, payload_type: PayloadType) -> Schema:
    event_type = payload_type.event_type
    described = event_type.fields.model_json_schema()
    properties = described["properties"]
    fields = {theirs: properties[ours] for ours, theirs in payload_type.fields.items()}
    of_caller = {field: schema for field, schema in fields.items() if field in payload_type.caller_fields}
    of_payload = {field: schema for field, schema in fields.items() if field not in payload_type.caller_fields}
    if of_caller:
        of_payload[CALLERS_FIELD] = {
            "type": "array",
            "items": {"type": "object", "properties": of_caller},
            "description": "The callers whose place changed. The `reason` “hangup” means a lost call. "
            f"At most {MAX_LOST_CALLS} of them are recorded.",
        }
    required = (theirs for ours, theirs in payload_type.fields.items() if ours in described["required"])
    const = {"type": "string", "const": name, "description": f"{event_type.label}: `{event_type.type}`."}
    return {
        "type": "object",
        "title": event_type.label,
        "description": event_type.help,
        "properties": {"event_type": const, **of_payload},
        "required": ["event_type", *(field for field in required if field in of_payload)],
    }


ADAPTER = Adapter(
    name="portsip",
    title="PortSIP",
    payload_format=PayloadFormat(
        authentication=AUTHENTICATION, description=DESCRIPTION, read=read, schemas=_schemas, examples=EXAMPLES
    ),
)
