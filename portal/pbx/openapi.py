"""The OpenAPI 3.1 description of the webhook, made of the models that check events and write answers."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from portal.deliveries.reports import EventReport
from portal.notifications.schemas import REFERENCE, event_schemas
from portal.pbx import examples
from portal.pbx.calls import PortsipReport
from portal.pbx.portsip import SHAPES, Shape

REPORT = TypeAdapter(EventReport)
PORTSIP_REPORT = TypeAdapter(PortsipReport)
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
PORTSIP = (
    "The same for PortSIP's own payloads, posted as they are. Each event in one is recorded; what nobody is to be told "
    "of, such as an answered call, is acknowledged with 200 and recorded nowhere. An optional field that is wrong is "
    "left out. PortSIP's `tenant_id` means nothing here: the key says which tenant it is."
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
        "paths": {
            "/api/v1/events": {"post": _receive_event()},
            "/api/v1/events/portsip": {"post": _receive_portsip()},
        },
        "components": {
            "schemas": event_schemas() | _portsip_schemas() | _report_schemas() | {"Problem": _problem_schema()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the portal."},
                "basic": {"type": "http", "scheme": "basic", "description": "Any user name; the key is the password."},
                "signature": {"type": "apiKey", "in": "header", "name": "webhook-signature", "description": SIGNED},
            },
        },
    }


def _receive_event() -> dict[str, Any]:
    return {
        "operationId": "receiveEvent",
        "summary": "Report an event",
        "description": "200 means that the event is recorded; `status` says what became of its mails. "
        "An event that is posted again with the same `id` sends nothing.",
        "parameters": _signature_headers(),
        "requestBody": {"required": True, "content": dict.fromkeys(MEDIA_TYPES, _of("Event"))},
        "responses": _responses("The event is recorded.", _of("EventReport") | {"examples": examples.REPORTS}),
    }


def _receive_portsip() -> dict[str, Any]:
    domain = {"type": "string", "format": "hostname", "maxLength": 253}
    meaning = "The tenant's SIP domain: a key of the system needs it in the address, a tenant's key knows."
    tenant = {"name": "tenant", "in": "query", "schema": domain, "description": meaning}
    return {
        "operationId": "receivePortsip",
        "summary": "Report an event, as PortSIP does",
        "description": PORTSIP,
        "parameters": [tenant, *_signature_headers()],
        "requestBody": {"required": True, "content": {MEDIA_TYPES[0]: _of("PortsipPayload")}},
        "responses": _responses(
            "What it reports is recorded, or of no use.",
            _of("PortsipReport") | {"examples": examples.PORTSIP_REPORTS},
        ),
    }


def _of(model: str) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=model)}}


def _responses(recorded: str, report: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": recorded, "content": {"application/json": report}}}
    return answers | {str(status): _problem_response(status) for status in PROBLEMS}


def _signature_headers() -> list[dict[str, Any]]:
    return [
        _header("webhook-id", {"type": "string", "maxLength": 200}, "The same when the same call is repeated."),
        _header("webhook-timestamp", {"type": "string"}, "When it was signed: Unix seconds, within 5 minutes."),
    ]


def _header(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": f"Of a signed call. {meaning}"}


def _problem_response(status: int) -> dict[str, Any]:
    title, meaning = PROBLEMS[status]
    example = {"example": examples.problem(status, title)}
    response: dict[str, Any] = {
        "description": meaning,
        "content": {"application/problem+json": _of("Problem") | example},
    }
    if status in WAIT:
        seconds = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _portsip_schemas() -> dict[str, Any]:
    payloads = {f"Portsip{shape.kind.fields.__name__}": _payload(name, shape) for name, shape in SHAPES.items()}
    text = {"type": "string", "description": "PortSIP's name of what happened."}
    other = {
        "type": "object",
        "title": "Anything else",
        "description": "Taken, and of no use.",
        "properties": {"event_type": text},
        "required": ["event_type"],
    }
    choice = {"anyOf": [*({"$ref": REFERENCE.format(model=name)} for name in payloads), other]}
    return payloads | {"PortsipPayload": choice}


def _payload(name: str, shape: Shape) -> dict[str, Any]:
    described = shape.kind.fields.model_json_schema()["properties"]
    fields = {theirs: described[ours] for ours, theirs in shape.fields.items()}
    inner = {field: schema for field, schema in fields.items() if field in shape.of_caller}
    outer = {field: schema for field, schema in fields.items() if field not in shape.of_caller}
    if inner:
        about = "Those whose place changed. Who has the `reason` “hangup” is a call lost."
        outer["updated_callers"] = {
            "type": "array",
            "items": {"type": "object", "properties": inner},
            "description": about,
        }
    event_type = {"type": "string", "const": name, "description": f"{shape.kind.label}: `{shape.kind.type}`."}
    return {
        "type": "object",
        "title": shape.kind.label,
        "description": shape.kind.help,
        "properties": {"event_type": event_type, **outer},
        "required": ["event_type", *(shape.fields[each] for each in shape.required if shape.fields[each] in outer)],
        "example": examples.PORTSIP_PAYLOADS[name],
    }


def _report_schemas() -> dict[str, Any]:
    schema = PORTSIP_REPORT.json_schema(ref_template=REFERENCE, mode="serialization")
    schemas: dict[str, Any] = schema.pop("$defs")
    return schemas | {"PortsipReport": schema}


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    field = text | {"description": "Its path, like `data.caller_number`."}
    message = text | {"description": "What is wrong with it."}
    error = {"type": "object", "properties": {"field": field, "message": message}, "required": ["field", "message"]}
    return {
        "type": "object",
        "description": "What is wrong (RFC 9457).",
        "properties": {
            "type": text | {"description": "Always about:blank."},
            "title": text | {"description": "What is wrong, in a word or two."},
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": text | {"description": "What is wrong, in a sentence."},
            "errors": {"type": "array", "items": error, "description": "Each field that is wrong, with a sentence."},
        },
        "required": ["type", "title", "status", "detail"],
    }
