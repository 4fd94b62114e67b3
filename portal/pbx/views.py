"""The webhook: a PBX posts an event and is told the truth about its mails. And the page of a tenant's keys."""

import math

from flask import Blueprint, Response, abort, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from portal import config
from portal.accounts.access import for_programs
from portal.database import enter_scope
from portal.deliveries.accept import Conflict, accept
from portal.deliveries.circumstances import Circumstances
from portal.errors import Refusal
from portal.notifications.events import Event, FieldError, Problem, parse
from portal.pbx import keys
from portal.pbx.keys import Caller, IssuedKey
from portal.pbx.openapi import MEDIA_TYPES, PROBLEMS, REPORT, description
from portal.pbx.rate import rate
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import problem, respond

blueprint = Blueprint("pbx", __name__)
webhook = Blueprint("webhook", __name__)


@blueprint.get("/tenants/<domain>/keys", endpoint="keys")
def list_keys(domain: str) -> ResponseReturnValue:
    """List the tenant's keys."""
    tenant = workspace(domain)
    return _show_keys(tenant)


@blueprint.post("/tenants/<domain>/keys")
def issue_key(domain: str) -> ResponseReturnValue:
    """Issue a key and show it, this once."""
    tenant = workspace(domain)
    answer = _show_keys(tenant, issued=keys.issue(tenant))
    answer.cache_control.no_store = True
    return answer


@blueprint.post("/tenants/<domain>/keys/<int:key_id>/revoke")
def revoke_key(domain: str, key_id: int) -> ResponseReturnValue:
    """Refuse a key of the tenant from now on."""
    tenant = workspace(domain)
    if isinstance(keys.revoke(key_id), Refusal):
        abort(404)
    if request.htmx:  # type: ignore[attr-defined]
        return _show_keys(tenant)
    return redirect(url_for("pbx.keys", domain=domain), 303)


def _show_keys(tenant: Tenant, issued: IssuedKey | None = None) -> Response:
    address = f"{config.current().portal_url}{url_for('webhook.receive_event')}"
    shown = keys.of_tenant(tenant)
    return respond("pbx/keys.html", "pbx/_keys.html", tenant=tenant, keys=shown, issued=issued, address=address)


@webhook.post("/api/v1/events")
@for_programs
def receive_event() -> ResponseReturnValue:
    """Record the event, send its mails, and answer with what became of them."""
    event = parse(_body())
    caller = _caller(event)
    _stay_within_rate(caller)
    if isinstance(event, Problem):
        return _refuse(event.status, event.detail, *event.errors)
    found = _circumstances(caller, event)
    enter_scope(found.tenant.id)
    keys.note_use(caller)
    report = accept(found, event)
    if isinstance(report, Conflict):
        return _refuse(409, f"An event with the id {report.event_id} and other content was recorded before.")
    return Response(REPORT.dump_json(report), mimetype="application/json")


@webhook.get("/api/v1/openapi.json")
@for_programs
def openapi() -> ResponseReturnValue:
    """Return the OpenAPI description of this interface."""
    return jsonify(description(config.current().portal_url or ""))


def _caller(event: Event | Problem) -> Caller:
    """Return who calls, by the key: a Bearer token, or the password of Basic for a PBX that only knows that."""
    given = request.authorization
    secret = (given.token or given.password) if given and given.type in {"bearer", "basic"} else None
    caller = keys.find(secret, event) if secret else None
    if caller is None:
        answer = _refuse(401, "Send a live key of this portal, as “Authorization: Bearer KEY”.")
        answer.headers.extend([("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="events"')])
        abort(answer)
    return caller


def _stay_within_rate(caller: Caller) -> None:
    notation = config.current().event_rate_limit
    if wait := rate(notation).wait(caller.key_id):
        answer = _refuse(429, f"This key may post {notation}.")
        answer.headers["Retry-After"] = str(math.ceil(wait))
        abort(answer)


def _body() -> bytes:
    if request.mimetype not in MEDIA_TYPES:
        abort(_refuse(415, "Send the event as application/json or application/cloudevents+json."))
    most = config.current().event_body_bytes
    # One byte more is read, to tell a body that came in chunks and is too large from one that fits.
    request.max_content_length = most + 1
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        body = bytes(most + 1)
    if len(body) > most:
        abort(_refuse(413, f"An event may have at most {most} bytes."))
    return body


def _circumstances(caller: Caller, event: Event) -> Circumstances:
    """Return those of the event's tenant. A tenant's key learns nothing about other tenants, not even their names."""
    found = caller.circumstances
    if found is None:
        sentence = "There is no tenant with this domain." if event.tenant else "A system key must name the tenant."
        abort(_refuse(422, "The event does not belong to a tenant.", FieldError("tenant", sentence)))
    if event.tenant not in (None, found.tenant.domain):
        abort(_refuse(403, "This key reports events of its own tenant only."))
    return found


def _refuse(status: int, detail: str, *errors: FieldError) -> Response:
    extra = {"errors": [{"field": each.field, "message": each.message} for each in errors]} if errors else {}
    return problem(status, PROBLEMS[status][0], detail, **extra)
