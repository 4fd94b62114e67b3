"""Examples of responses, for the OpenAPI description. The tests compare them with real ones."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from pydantic_core import to_jsonable_python

from portal.deliveries.report import DeliveryResult, EventResult, RecipientResult
from portal.deliveries.status import HoldReason, Status
from portal.events.parsing import FieldWarning
from portal.pbx.adapters.adapter import IGNORED
from portal.pbx.rejection_reasons import RejectionReason
from portal.pbx.webhook import PayloadResult
from portal.web.errors import ERRORS

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


def problem(reason: RejectionReason) -> dict[str, Any]:
    """Return the problem document for a reason."""
    errors = {"errors": [_FIELD_ERROR]} if reason is RejectionReason.INVALID else {}
    return _problem(reason.title, reason.status, reason.detail or reason.example) | errors


def unavailable() -> dict[str, Any]:
    """Return the problem document for a database that does not answer."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return _problem(status.phrase, status.value, ERRORS[status][1])


def _problem(title: str, status: int, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
