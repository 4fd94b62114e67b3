"""The OpenAPI 3.1 description of the webhook, made from the models that check events and write results."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from portal.deliveries.report import DeliveryResult, EventResult, RecipientResult
from portal.deliveries.status import HoldReason, Status
from portal.events.json_schema import SCHEMA_REFERENCE, event_schemas, for_clients
from portal.events.parsing import FieldWarning
from portal.pbx.adapters.adapter import IGNORED, Adapter, PayloadFormat
from portal.pbx.adapters.registry import payload_formats
from portal.pbx.rejection_reasons import RejectionReason
from portal.pbx.webhook import PayloadResult
from portal.web.errors import ERRORS
from portal.web.responses import problem_document

EVENT_RESULT = TypeAdapter(EventResult)
PAYLOAD_RESULT = TypeAdapter(PayloadResult)
EVENTS_PATH = "/api/v1/events"
EVENT_MEDIA_TYPES = ("application/json", "application/cloudevents+json")
TAG = "events"
UNAVAILABLE, TOO_MANY = 503, 429  # the responses with Retry-After
SIGNATURE = (
    "A key may require a signature in addition, as Standard Webhooks defines it: `webhook-signature` is `v1,` and the "
    "Base64 HMAC-SHA256 of `webhook-id`, a dot, `webhook-timestamp`, a dot and the body, byte for byte. The secret is "
    "the Base64 after `whsec_`. Several signatures may be sent, separated by blanks. An event without an `id` takes "
    "the `webhook-id`."
)
SIGNATURE_HEADERS = [
    {"name": name, "in": "header", "schema": schema, "description": f"Of a signed request. {description}"}
    for name, schema, description in (
        ("webhook-id", {"type": "string", "maxLength": 200}, "The same when a request is repeated."),
        ("webhook-timestamp", {"type": "string"}, "When it was signed: Unix seconds, within 5 minutes."),
    )
]
PAYLOADS = (
    "Takes the payloads that {adapter.title} posts, as they are. Each event in a payload is recorded. A payload "
    "without an event, such as an answered call, is acknowledged with 200 and not recorded. "
    "{payload_format.description} {payload_format.authentication}"
)


@cache
def openapi_document(server: str) -> dict[str, Any]:
    """Return the description of the webhook at the URL `server`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PBX Notification Portal",
            "version": "1",
            "description": "A PBX reports an event of a tenant, and the response says whether it was emailed.",
            "contact": {"name": "The administrator of this portal", "url": server},
        },
        "tags": [{"name": TAG, "description": "Reporting events."}],
        "servers": [{"url": server}],
        # Generated clients send the last of several schemes in the same header.
        "security": [{"basic": []}, {"basic": [], "signature": []}, {"bearer": []}, {"bearer": [], "signature": []}],
        "paths": {EVENTS_PATH: {"post": _receive_event()}}
        | {
            f"{EVENTS_PATH}/{adapter.name}": {"post": _receive_payload(adapter, format_)}
            for adapter, format_ in payload_formats()
        },
        "components": {
            "schemas": event_schemas() | _payload_schemas() | _result_schemas() | {"Problem": _problem_schema()},
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The key is the password, with any username; or the username, without a password.",
                },
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the portal."},
                "signature": {"type": "apiKey", "in": "header", "name": "webhook-signature", "description": SIGNATURE},
            },
        },
    }


def _receive_event() -> dict[str, Any]:
    return {
        "operationId": "receiveEvent",
        "tags": [TAG],
        "summary": "Report an event",
        "description": "200 means that the event is recorded; `status` is the result of its emails. "
        "An event that is posted again with the same `id` sends nothing. CloudEvents' binary mode is accepted too: the "
        "attributes in headers such as `ce-type` and `ce-id`, the data in the body. An event is rejected only for its "
        "type, tenant, `queue_number` or `extension_number`. Other faults in fields are repaired, with `warnings`.",
        "parameters": SIGNATURE_HEADERS,
        "requestBody": {"required": True, "content": dict.fromkeys(EVENT_MEDIA_TYPES, _schema_of("Event"))},
        "responses": _responses(
            "The event is recorded.", _schema_of(EventResult.__name__) | {"examples": EVENT_RESULTS}
        ),
    }


def _receive_payload(adapter: Adapter, payload_format: PayloadFormat) -> dict[str, Any]:
    domain = {"type": "string", "format": "hostname", "maxLength": 253}
    description = "The tenant's SIP domain. Required with a system key; a tenant's key names its tenant already."
    tenant = {"name": "tenant", "in": "query", "schema": domain, "description": description}
    schema = _schema_of(f"{_camel_case(adapter.name)}Payload")
    return {
        "operationId": f"receive{_camel_case(adapter.name)}",
        "tags": [TAG],
        "summary": f"Report an event as {adapter.title} does",
        "description": PAYLOADS.format(adapter=adapter, payload_format=payload_format),
        "parameters": [tenant, *SIGNATURE_HEADERS],
        "requestBody": {"required": True, "content": dict.fromkeys(payload_format.media_types, schema)},
        "responses": _responses(
            "Each event in the payload is recorded.", _schema_of(PayloadResult.__name__) | {"examples": PAYLOAD_RESULTS}
        ),
    }


def _camel_case(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _schema_of(model: str) -> dict[str, Any]:
    return {"schema": {"$ref": SCHEMA_REFERENCE.format(model=model)}}


def _responses(description: str, result: dict[str, Any]) -> dict[str, Any]:
    statuses = sorted({reason.status for reason in RejectionReason})
    outage = problem_document(UNAVAILABLE, HTTPStatus(UNAVAILABLE).phrase, ERRORS[UNAVAILABLE][1])
    return {
        "200": {"description": description, "content": {"application/json": result}},
        **{str(status): _rejection_response(status) for status in statuses},
        str(UNAVAILABLE): _problem_response(
            UNAVAILABLE,
            "The database does not answer, and nothing was recorded. Post the event again.",
            {"unavailable": {"summary": "Database unavailable", "value": outage}},
        ),
    }


def _rejection_response(status: int) -> dict[str, Any]:
    reasons = [reason for reason in RejectionReason if reason.status == status]
    lines = [f"{reason.title}: {reason.advice}" for reason in reasons]
    told = dict.fromkeys(reason.told_to_client for reason in reasons)
    return _problem_response(
        status,
        lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines),
        {reason.key: {"summary": reason.title, "value": example_problem(reason)} for reason in told},
    )


def _problem_response(status: int, description: str, problem_examples: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/problem+json": _schema_of("Problem") | {"examples": problem_examples}}
    response: dict[str, Any] = {"description": description, "content": content}
    if status in (TOO_MANY, UNAVAILABLE):
        seconds = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _payload_schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for adapter, payload_format in payload_formats():
        prefix, examples_of = _camel_case(adapter.name), payload_format.examples
        payloads = {
            f"{prefix}{_camel_case(name)}": for_clients(schema)
            | {"x-title": schema["title"]}
            | ({"example": examples_of[name]} if name in examples_of else {})
            for name, schema in payload_format.schemas().items()
        }
        choices = [{"$ref": SCHEMA_REFERENCE.format(model=name)} for name in payloads]
        schemas |= payloads | {f"{prefix}Payload": {"anyOf": choices}}
    return schemas


def _result_schemas() -> dict[str, Any]:
    schema = for_clients(PAYLOAD_RESULT.json_schema(ref_template=SCHEMA_REFERENCE, mode="serialization"))
    schemas: dict[str, Any] = schema.pop("$defs")
    return schemas | {PayloadResult.__name__: schema}


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    field = text | {"description": "Its path, for example `data.caller_number`."}
    message = text | {"description": "What is wrong with it."}
    error = {"type": "object", "properties": {"field": field, "message": message}, "required": ["field", "message"]}
    return {
        "type": "object",
        "description": "What is wrong (RFC 9457).",
        "properties": {
            "type": text | {"description": "Always about:blank."},
            "title": text | {"description": "What is wrong, in a few words."},
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": text | {"description": "What is wrong, in a sentence."},
            "errors": {"type": "array", "items": error, "description": "Each field that is wrong, with a sentence."},
        },
        "required": ["type", "title", "status", "detail"],
    }


# Examples of responses. The tests compare them with real ones.

_ACCEPTED = RecipientResult("operations@acme.example", Status.SENT, "data", 250, "2.0.0", "queued as 4711")
_DEFERRED = RecipientResult("night@acme.example", Status.DEFERRED, "rcpt", 451, "4.3.0", "mailbox busy, try again")
_EMAIL = DeliveryResult(
    "<01937d5c8f2a7c3e9b1d4a6f5e8c2b70@portal.example.com>", Status.SENT, None, None, recipients=(_ACCEPTED,)
)
_RETRIED_EMAIL = replace(
    _EMAIL,
    status=Status.PARTIAL,
    next_attempt_at=datetime(2026, 11, 23, 9, 6, tzinfo=UTC),
    recipients=(_ACCEPTED, _DEFERRED),
)
_SENT = EventResult("call-4711", Status.SENT, reason=None, duplicate=False, deliveries=(_EMAIL,))
_WARNING = FieldWarning("data.caller_name", "This was cut to 200 characters.")
_FIELD_ERROR = {"field": "data.queue_number", "message": "This field is required and must not be empty."}


def _by_name(**examples: tuple[str, EventResult | PayloadResult]) -> Mapping[str, Mapping[str, Any]]:
    return {
        name: {"summary": summary, "value": to_jsonable_python(value)} for name, (summary, value) in examples.items()
    }


EVENT_RESULTS = _by_name(
    sent=("Every recipient was accepted", _SENT),
    partial=("Some recipients are retried later", replace(_SENT, status=Status.PARTIAL, deliveries=(_RETRIED_EMAIL,))),
    ignored=(
        "The tenant has switched this event off",
        replace(_SENT, status=Status.IGNORED, reason=HoldReason.SWITCHED_OFF, deliveries=()),
    ),
    repaired=("A field was repaired", replace(_SENT, warnings=(_WARNING,))),
    duplicate=("Posted again with the same id: nothing is sent", replace(_SENT, duplicate=True)),
)
PAYLOAD_RESULTS = _by_name(
    recorded=("An event", PayloadResult((_SENT,), None)), ignored=("No event", PayloadResult((), IGNORED))
)


def example_problem(reason: RejectionReason) -> dict[str, Any]:
    """Return the problem document for a reason."""
    errors = {"errors": [_FIELD_ERROR]} if reason is RejectionReason.INVALID else {}
    return problem_document(reason.status, reason.title, reason.detail, **errors)
