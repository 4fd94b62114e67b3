"""The OpenAPI 3.1 description of the webhook, made of the models that check events and write answers."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from portal.deliveries.reports import EventReport
from portal.notifications.schemas import REFERENCE, event_schemas

REPORT = TypeAdapter(EventReport)
MEDIA_TYPES = ("application/json", "application/cloudevents+json")
PROBLEMS = {
    400: ("Not an event", "The body is not JSON."),
    401: (
        "Not authenticated",
        "The key is missing, unknown, expired or revoked, or the signature that it requires is missing, wrong or late.",
    ),
    403: ("Not your tenant", "The key belongs to another tenant."),
    409: ("Another event with this id", "The tenant has an event with the same id and other content."),
    413: ("Too large", "The body is larger than the portal takes."),
    415: ("Wrong media type", "The body is not declared as JSON."),
    422: ("Missing or wrong fields", "The event's type, its tenant or a field is unknown, missing or wrong."),
    429: ("Too many events", "The key posts faster than it may. Wait as long as Retry-After says."),
    503: ("Not recorded", "The database does not answer, and nothing was recorded. Post the event again."),
}
WAIT = (429, 503)
SIGNED = (
    "A key may require a signature beside itself, as Standard Webhooks has it: `webhook-signature` is `v1,` and the "
    "Base64 HMAC-SHA256 of `webhook-id`, a dot, `webhook-timestamp`, a dot and the body, byte for byte. The secret is "
    "the Base64 behind `whsec_`. Several signatures may stand there, with a blank between them. An event without "
    "an `id` takes the `webhook-id`."
)


@cache
def description(server: str) -> dict[str, Any]:
    """Return the description of the webhook at the address `server`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PBX Notification Portal",
            "version": "1",
            "description": "A PBX reports what happens to a tenant, and is told what became of the mails about it.",
        },
        "servers": [{"url": server}],
        "security": [
            {"bearer": []},
            {"basic": []},
            {"bearer": [], "signature": []},
            {"basic": [], "signature": []},
        ],
        "paths": {"/api/v1/events": {"post": _receive_event()}},
        "components": {
            "schemas": event_schemas() | _report_schemas() | {"Problem": _problem_schema()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the portal."},
                "basic": {"type": "http", "scheme": "basic", "description": "Any user name; the key is the password."},
                "signature": {"type": "apiKey", "in": "header", "name": "webhook-signature", "description": SIGNED},
            },
        },
    }


def _receive_event() -> dict[str, Any]:
    event = {"schema": {"$ref": REFERENCE.format(model="Event")}}
    report = {"schema": {"$ref": REFERENCE.format(model="EventReport")}}
    return {
        "operationId": "receiveEvent",
        "summary": "Report an event",
        "description": "200 means that the event is recorded; `status` says what became of its mails. "
        "An event that is posted again with the same `id` sends nothing.",
        "parameters": [
            _header("webhook-id", {"type": "string", "maxLength": 200}, "The same when the same call is repeated."),
            _header("webhook-timestamp", {"type": "string"}, "When it was signed: Unix seconds, within 5 minutes."),
        ],
        "requestBody": {"required": True, "content": dict.fromkeys(MEDIA_TYPES, event)},
        "responses": {"200": {"description": "The event is recorded.", "content": {"application/json": report}}}
        | {str(status): _problem_response(status) for status in PROBLEMS},
    }


def _header(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": f"Of a signed call. {meaning}"}


def _problem_response(status: int) -> dict[str, Any]:
    problem = {"schema": {"$ref": REFERENCE.format(model="Problem")}}
    response: dict[str, Any] = {
        "description": PROBLEMS[status][1],
        "content": {"application/problem+json": problem},
    }
    if status in WAIT:
        seconds = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _report_schemas() -> dict[str, Any]:
    schema = REPORT.json_schema(ref_template=REFERENCE, mode="serialization")
    schemas: dict[str, Any] = schema.pop("$defs")
    return schemas | {"EventReport": schema}


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    error = {"type": "object", "properties": {"field": text, "message": text}, "required": ["field", "message"]}
    return {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "errors": {"type": "array", "items": error},
        },
        "required": ["type", "title", "status", "detail"],
    }
