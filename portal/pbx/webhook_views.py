"""The webhook's routes: events, the payloads of PBX makes, and the OpenAPI description."""

import zlib
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from portal import config
from portal.accounts.access import for_clients
from portal.deliveries.report import EventResult
from portal.events.parsing import FieldWarning, Problem, ProblemKind, decode_text, is_json_type, parse_event
from portal.pbx import webhook
from portal.pbx.adapters.adapter import add_warnings
from portal.pbx.adapters.registry import ADAPTERS
from portal.pbx.openapi import EVENT_MEDIA_TYPES, EVENT_RESULT, EVENTS_PATH, PAYLOAD_RESULT, openapi_document
from portal.pbx.signatures import SignatureHeaders
from portal.pbx.webhook import Rejection, WebhookRequest
from portal.web.responses import problem

blueprint = Blueprint("webhook", __name__)
GZIP = {"gzip", "x-gzip"}  # RFC 9110, section 8.4.1.3
GZIP_WINDOW, GZIP_MAGIC = 16 + zlib.MAX_WBITS, b"\x1f\x8b"
ATTRIBUTE_PREFIX, STRUCTURED_TYPE = "ce-", "application/cloudevents"  # CloudEvents' HTTP binding, section 3


@blueprint.post(EVENTS_PATH, strict_slashes=False)
@for_clients
def receive_event() -> ResponseReturnValue:
    """Record an event, send its emails, and answer with their result."""
    key, attributes = _given_key(), _attributes_in_headers()
    if rejection := webhook.reject_stranger(key, request.remote_addr):
        return _reject(rejection)
    warnings: list[FieldWarning] = []
    body, text = _read_body(EVENT_MEDIA_TYPES, warnings, is_binary_mode=bool(attributes))
    event = text if isinstance(text, Problem) else parse_event(text, attributes=attributes)
    received = _webhook_request(key, body, is_binary_mode=bool(attributes))
    result = webhook.handle(received, add_warnings(event, warnings))
    if isinstance(result, Rejection):
        return _reject(result)
    assert isinstance(result, EventResult)  # `parse_event` ignores nothing
    return Response(EVENT_RESULT.dump_json(result), mimetype="application/json")


@blueprint.post(f"{EVENTS_PATH}/<make>", strict_slashes=False)
@for_clients
def receive_payload(make: str) -> ResponseReturnValue:
    """Do the same for the events in the payload of a PBX make."""
    payload_format = ADAPTERS[make].payload_format if make in ADAPTERS else None
    if payload_format is None:
        abort(404)
    key = _given_key()
    if rejection := webhook.reject_stranger(key, request.remote_addr):
        return _reject(rejection)
    warnings: list[FieldWarning] = []
    body, text = _read_body(payload_format.media_types, warnings)
    events = [text] if isinstance(text, Problem) else payload_format.read(text, request.args.get("tenant"))
    events = [add_warnings(event, warnings) for event in events]
    result = webhook.handle_payload(_webhook_request(key, body, names_tenant_in_url=True), events)
    if isinstance(result, Rejection):
        return _reject(result)
    return Response(PAYLOAD_RESULT.dump_json(result), mimetype="application/json")


@blueprint.get("/api/v1/openapi.json")
@for_clients
def openapi() -> ResponseReturnValue:
    """Return the OpenAPI description of the webhook."""
    return jsonify(openapi_document(config.current().portal_url or ""))


def _given_key() -> str:
    """Return the key: a Bearer token, or for a PBX that knows only Basic the password or username; "" without one."""
    given = request.authorization
    if given is None or given.type not in {"bearer", "basic"}:
        return ""
    return given.token or given.password or given.username or ""


def _webhook_request(
    key: str, body: bytes, *, names_tenant_in_url: bool = False, is_binary_mode: bool = False
) -> WebhookRequest:
    signature = (request.headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    return WebhookRequest(
        key=key,
        body=body,
        signature=SignatureHeaders(*signature),
        ip_address=request.remote_addr,
        names_tenant_in_url=names_tenant_in_url,
        is_binary_mode=is_binary_mode,
    )


def _attributes_in_headers() -> dict[str, Any]:
    """Return the attributes in the headers `ce-…`; none if the event is not in CloudEvents' binary mode."""
    if request.mimetype.startswith(STRUCTURED_TYPE):  # which takes precedence over the headers
        return {}
    attributes = {
        name[len(ATTRIBUTE_PREFIX) :].lower(): unquote(value, errors="surrogateescape")
        for name, value in request.headers
        if name.lower().startswith(ATTRIBUTE_PREFIX)
    }
    return attributes if {"type", "specversion"} & attributes.keys() else {}


def _read_body(
    media_types: Collection[str], warnings: list[FieldWarning], *, is_binary_mode: bool = False
) -> tuple[bytes, str | Problem]:
    """Return the body as it was sent, empty if it was not read, and its text or what is wrong with it."""
    is_data = is_binary_mode and (not request.mimetype or is_json_type(request.mimetype))
    if request.mimetype not in media_types and not is_data:
        return b"", Problem(ProblemKind.MEDIA_TYPE, f"Send the event as {' or '.join(media_types)}.")
    max_bytes = config.current().max_event_bytes
    # One byte more is read, to tell a body that fits from one in chunks that is too large.
    request.max_content_length = max_bytes + 1
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        body = bytes(max_bytes + 1)
    if len(body) > max_bytes:
        return b"", _too_large(max_bytes)
    content = decompress(body, request.headers.get("Content-Encoding", ""), max_bytes)
    if isinstance(content, Problem):
        return body, content
    return body, decode_text(content, request.mimetype_params.get("charset"), warnings)


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


def _too_large(max_bytes: int) -> Problem:
    return Problem(ProblemKind.TOO_LARGE, f"An event may have at most {max_bytes} bytes.")


def _reject(rejection: Rejection) -> Response:
    reason = rejection.reason.told_to_client
    errors = [{"field": error.field, "message": error.message} for error in rejection.errors]
    response = problem(reason.status, reason.title, rejection.detail, **({"errors": errors} if errors else {}))
    if reason.status == 415:
        response.headers["Accept-Encoding"] = "gzip"
    if reason.status == 401:
        response.headers.extend([("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="events"')])
    if rejection.retry_after:
        response.headers["Retry-After"] = str(rejection.retry_after)
    return response
