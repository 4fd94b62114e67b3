"""The webhook's routes: events, the payloads of PBX makes, and its description, as OpenAPI and as a page."""

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote

from flask import Blueprint, Flask, abort, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import Authorization

from portal import config
from portal.accounts.access import for_clients, public
from portal.deliveries.report import EventResult
from portal.deliveries.status import Status, combine
from portal.events.parsing import Event, FieldWarning, Problem, ProblemKind, decode_text, is_json_type, parse_event
from portal.pbx import webhook
from portal.pbx.adapters.adapter import IGNORED, PayloadFormat, add_warnings
from portal.pbx.adapters.registry import ADAPTERS, payload_formats
from portal.pbx.api_reference import reference_document
from portal.pbx.openapi import EVENT_MEDIA_TYPES, EVENT_RESULT, EVENTS_PATH, PAYLOAD_RESULT, openapi_document
from portal.pbx.webhook import PayloadResult, Rejection, WebhookRequest
from portal.web import client_requests
from portal.web.client_requests import ClientRequest, ClientResponse
from portal.web.responses import PROBLEM_TYPE, problem_document, respond

blueprint = Blueprint("webhook", __name__)
api_reference = Blueprint("api_reference", __name__)
GZIP = {"gzip", "x-gzip"}  # RFC 9110, section 8.4.1.3
GZIP_WINDOW, GZIP_MAGIC = 16 + zlib.MAX_WBITS, b"\x1f\x8b"
ATTRIBUTE_PREFIX, STRUCTURED_TYPE = "ce-", "application/cloudevents"  # CloudEvents' HTTP binding, section 3


def init_app(app: Flask) -> None:
    """Have the front call the handlers without Flask's dispatch."""
    client_requests.register(app, EVENTS_PATH, handle_event)
    for adapter, payload_format in payload_formats():
        client_requests.register(app, f"{EVENTS_PATH}/{adapter.name}", partial(handle_payload, payload_format))


@blueprint.post(EVENTS_PATH, strict_slashes=False)
@for_clients
def receive_event() -> ResponseReturnValue:
    """Record an event, send its emails, and answer with their result."""
    return client_requests.as_response(handle_event(client_requests.flask_request()))


@blueprint.post(f"{EVENTS_PATH}/<make>", strict_slashes=False)
@for_clients
def receive_payload(make: str) -> ResponseReturnValue:
    """Do the same for the events in the payload of a PBX make."""
    payload_format = ADAPTERS[make].payload_format if make in ADAPTERS else None
    if payload_format is None:
        abort(404)
    return client_requests.as_response(handle_payload(payload_format, client_requests.flask_request()))


def handle_event(request: ClientRequest) -> ClientResponse:
    """Handle a request with an event."""
    attributes = _attributes_in_headers(request)
    results = _handle(request, EVENT_MEDIA_TYPES, lambda text: [parse_event(text, attributes=attributes)], attributes)
    if isinstance(results, Rejection):
        return _reject(results)
    return ClientResponse(200, EVENT_RESULT.dump_json(results[0]), result=_counted_result(results))


def handle_payload(payload_format: PayloadFormat, request: ClientRequest) -> ClientResponse:
    """Handle a request with the payload of a PBX make."""
    results = _handle(
        request, payload_format.media_types, lambda text: payload_format.read(text, _tenant_in_url(request))
    )
    if isinstance(results, Rejection):
        return _reject(results)
    result = PayloadResult(results, None if results else IGNORED)
    return ClientResponse(200, PAYLOAD_RESULT.dump_json(result), result=_counted_result(results))


def _handle(
    request: ClientRequest,
    media_types: Collection[str],
    read: Callable[[str], Sequence[Event | Problem]],
    attributes: Mapping[str, Any] | None = None,
) -> tuple[EventResult, ...] | Rejection:
    """Handle a request with an event, which has `attributes` in binary mode only, or for None with a make's payload."""
    key = _given_key(request)
    if rejection := webhook.reject_stranger(key, request.ip_address):
        return rejection
    warnings: list[FieldWarning] = []
    body, text = _read_body(request, media_types, warnings, is_binary_mode=bool(attributes))
    events = [text] if isinstance(text, Problem) else read(text)
    received = WebhookRequest(
        key,
        body,
        request.headers,
        request.ip_address,
        names_tenant_in_url=attributes is None,
        is_binary_mode=bool(attributes),
    )
    return webhook.handle(received, [add_warnings(event, warnings) for event in events])


@blueprint.get("/api/v1/openapi.json")
@for_clients
def openapi() -> ResponseReturnValue:
    """Return the OpenAPI description of the webhook."""
    return jsonify(openapi_document(config.current().portal_url or ""))


@api_reference.get("/api/reference")
@public
def show() -> ResponseReturnValue:
    """Show each operation, event, response and problem of the webhook, and nothing else: the page is public."""
    return respond("pbx/api_reference.html", document=reference_document(config.current().portal_url or ""))


def _given_key(request: ClientRequest) -> str:
    """Return the key: a Bearer token, or for a PBX that knows only Basic the password or username; "" without one."""
    given = Authorization.from_header(request.headers.get("authorization"))
    if given is None or given.type not in {"bearer", "basic"}:
        return ""
    return given.token or given.password or given.username or ""


def _tenant_in_url(request: ClientRequest) -> str | None:
    """Return the domain in the URL. A long query takes a while: it is not parsed before the key is known."""
    return parse_qs(request.query, keep_blank_values=True).get("tenant", [None])[0]


def _attributes_in_headers(request: ClientRequest) -> dict[str, Any]:
    """Return the attributes in the headers `ce-…`; none if the event is not in CloudEvents' binary mode."""
    if request.media_type[0].startswith(STRUCTURED_TYPE):  # which takes precedence over the headers
        return {}
    attributes = {
        name[len(ATTRIBUTE_PREFIX) :]: unquote(value, errors="surrogateescape")
        for name, value in request.headers.items()
        if name.startswith(ATTRIBUTE_PREFIX)
    }
    return attributes if {"type", "specversion"} & attributes.keys() else {}


def _read_body(
    request: ClientRequest, media_types: Collection[str], warnings: list[FieldWarning], *, is_binary_mode: bool = False
) -> tuple[bytes, str | Problem]:
    """Return the body as it was sent, empty if it was not read, and its text or what is wrong with it."""
    media_type, parameters = request.media_type
    is_data = is_binary_mode and (not media_type or is_json_type(media_type))
    if media_type not in media_types and not is_data:
        return b"", Problem(ProblemKind.MEDIA_TYPE, f"Send the event as {' or '.join(media_types)}.")
    max_bytes = config.current().max_event_bytes
    body = request.read_body(max_bytes)
    if len(body) > max_bytes:
        return b"", _too_large(max_bytes)
    content: bytes | Problem = body
    if encoding := request.headers.get("content-encoding"):
        content = decompress(body, encoding, max_bytes)
    if isinstance(content, Problem):
        return body, content
    return body, decode_text(content, parameters.get("charset"), warnings)


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes | Problem:
    """Return the content of a body with this Content-Encoding, which may have at most `max_bytes`."""
    codings = [coding for coding in map(str.strip, encoding.lower().split(",")) if coding not in {"", "identity"}]
    if not codings:
        return body
    if len(codings) > 1 or codings[0] not in GZIP:
        return Problem(ProblemKind.MEDIA_TYPE, "Send the body uncompressed, or with Content-Encoding: gzip.")
    content = b""
    while not content or body.startswith(GZIP_MAGIC):  # there may be several members: RFC 1952, section 2.2
        decompressor = zlib.decompressobj(GZIP_WINDOW)
        try:
            content += decompressor.decompress(body, max_bytes + 1 - len(content))
        except zlib.error:
            return Problem(ProblemKind.MALFORMED, "The body is not valid gzip.")
        if len(content) > max_bytes:
            return _too_large(max_bytes)
        if not decompressor.eof:
            return Problem(ProblemKind.MALFORMED, "The body is not valid gzip: its end is missing.")
        body = decompressor.unused_data
    return content


def _counted_result(results: Collection[EventResult]) -> str:
    """Return the result under which a payload with these events is counted."""
    new = [result.status for result in results if not result.duplicate]
    return combine(new) if new else "duplicate" if results else Status.IGNORED


def _too_large(max_bytes: int) -> Problem:
    return Problem(ProblemKind.TOO_LARGE, f"An event may have at most {max_bytes} bytes.")


def _reject(rejection: Rejection) -> ClientResponse:
    reason = rejection.reason.told_to_client
    headers = []
    if reason.status == 415:
        headers.append(("Accept-Encoding", "gzip"))
    if reason.status == 401:
        headers += [("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="events"')]
    if rejection.retry_after:
        headers.append(("Retry-After", str(rejection.retry_after)))
    errors = {"errors": list(map(asdict, rejection.errors))} if rejection.errors else {}
    document = problem_document(reason.status, reason.title, rejection.detail or reason.detail, **errors)
    return ClientResponse(reason.status, json.dumps(document).encode(), tuple(headers), PROBLEM_TYPE)
