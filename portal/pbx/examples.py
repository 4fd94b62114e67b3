"""Examples of answers and of PortSIP's payloads, for the OpenAPI description. The tests post and compare them."""

from collections.abc import Mapping
from typing import Any

from portal.pbx.reasons import WORDS

_SENT = {"status": "sent", "stage": "data", "code": 250, "enhanced_code": "2.0.0", "text": "queued as 4711"}
_LATER = {
    "status": "deferred",
    "stage": "rcpt",
    "code": 451,
    "enhanced_code": "4.3.0",
    "text": "mailbox busy, try again",
}
_MESSAGE_ID = "<01937d5c8f2a7c3e9b1d4a6f5e8c2b70@portal.example.com>"


def _report(status: str, *deliveries: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "call-4711", "status": status, "reason": reason, "duplicate": False, "deliveries": list(deliveries)}


def _mail(status: str, *recipients: Mapping[str, Any], again_at: str | None = None) -> dict[str, Any]:
    return {
        "message_id": _MESSAGE_ID,
        "status": status,
        "reason": None,
        "next_attempt_at": again_at,
        "recipients": list(recipients),
    }


_TO_ALL = _report("sent", _mail("sent", {"address": "operations@acme.example", **_SENT}))
_TO_SOME = _report(
    "partial",
    _mail(
        "partial",
        {"address": "operations@acme.example", **_SENT},
        {"address": "night@acme.example", **_LATER},
        again_at="2026-11-23T09:06:00Z",
    ),
)
REPORTS = {
    "sent": {"summary": "Every recipient was accepted", "value": _TO_ALL},
    "partial": {"summary": "Some wait: the portal tries again by itself", "value": _TO_SOME},
    "ignored": {
        "summary": "The tenant wants no mail about this event",
        "value": _report("ignored", reason="switched_off"),
    },
    "duplicate": {"summary": "Posted again with the same id: nothing is sent", "value": _TO_ALL | {"duplicate": True}},
}
PORTSIP_REPORTS = {
    "sent": {"summary": "An event", "value": {"events": [_TO_ALL], "detail": None}},
    "of_no_use": {
        "summary": "Nothing to tell anybody",
        "value": {"events": [], "detail": "Nobody is told of this: it is acknowledged, and recorded nowhere."},
    },
}
PORTSIP_PAYLOADS: Mapping[str, dict[str, Any]] = {
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
_DETAILS = {
    400: "The body is not JSON: it cannot be read from line 1, column 2 on.",
    409: "An event with the id call-4711 and other content was recorded before.",
    413: "An event may have at most 65536 bytes.",
    415: "Send the event as application/json or application/cloudevents+json.",
    422: "The event has fields that are missing or wrong.",
    429: "This key may post 600 per minute.",
    503: "The database does not answer. Wait a moment, then try again.",
}
_ERROR = {"field": "data.caller_number", "message": "This field is required and must not be empty."}


def problem(status: int, title: str) -> dict[str, Any]:
    """Return the problem document of a status."""
    told = next((words.told for words in WORDS.values() if words.status == status and words.told), "")
    errors = {"errors": [_ERROR]} if status == 422 else {}
    return {"type": "about:blank", "title": title, "status": status, "detail": told or _DETAILS[status], **errors}
