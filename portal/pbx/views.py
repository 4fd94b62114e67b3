"""The webhook: a PBX posts an event and is told the truth about its mails. And the pages of keys."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, abort, flash, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import RequestEntityTooLarge

from portal import config
from portal.accounts.access import for_programs, system_administrator
from portal.deliveries.reports import EventReport
from portal.errors import Refusal
from portal.notifications.events import Event, Problem, ProblemKind, parse
from portal.pbx import calls, keys, portsip, rejections
from portal.pbx.calls import Call, PortsipReport, Rejection, Unneeded
from portal.pbx.forms import OVERLAPS, KeyForm, OverlapForm, RotationForm
from portal.pbx.keys import IssuedKey
from portal.pbx.models import PbxKey
from portal.pbx.openapi import MEDIA_TYPES, PORTSIP_REPORT, PROBLEMS, REPORT, description
from portal.pbx.signatures import Stamp
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import problem, respond

tenant_keys = Blueprint("pbx", __name__, url_prefix="/tenants/<domain>/keys")
system_keys = Blueprint("system_keys", __name__, url_prefix="/system/keys")
webhook = Blueprint("webhook", __name__)
BLUEPRINTS = (tenant_keys, system_keys, webhook)


@webhook.post("/api/v1/events", strict_slashes=False)
@for_programs
def receive_event() -> ResponseReturnValue:
    """Record the event, send its mails, and answer with what became of them."""
    body = _body()
    answer = calls.answer(_call(body, body if isinstance(body, Problem) else parse(body)))
    if isinstance(answer, Rejection):
        return _refuse(answer)
    assert isinstance(answer, EventReport)  # an event of ours is of use
    return Response(REPORT.dump_json(answer), mimetype="application/json")


@webhook.post("/api/v1/events/portsip", strict_slashes=False)
@for_programs
def receive_portsip() -> ResponseReturnValue:
    """Do the same for what PortSIP sends: the events in its payload, or nothing where it is of no use."""
    body = _body()
    events = [body] if isinstance(body, Problem) else portsip.read(body, request.args.get("tenant"))
    answers: list[EventReport | Unneeded | Rejection] = []
    for event in events:
        answers.append(calls.answer(replace(_call(body, event), names_tenant_apart=True)))
        if isinstance(answers[-1], Rejection) and answers[-1].reason.is_about_the_caller:
            break
    refused = next((each for each in answers if isinstance(each, Rejection)), None)
    if refused:
        return _refuse(refused)
    return Response(PORTSIP_REPORT.dump_json(PortsipReport.of(answers)), mimetype="application/json")


@webhook.get("/api/v1/openapi.json")
@for_programs
def openapi() -> ResponseReturnValue:
    """Return the OpenAPI description of this interface."""
    return jsonify(description(config.current().portal_url or ""))


def _call(body: bytes | Problem, event: Event | Problem | Unneeded) -> Call:
    """Return what was sent. The key is a Bearer token, or the password of Basic for a PBX that only knows that."""
    given = request.authorization
    key = (given.token or given.password) if given and given.type in {"bearer", "basic"} else None
    stamp = Stamp(*(request.headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature")))
    return Call(key, b"" if isinstance(body, Problem) else body, event, stamp, request.remote_addr)


def _body() -> bytes | Problem:
    if request.mimetype not in MEDIA_TYPES:
        sentence = "Send the event as application/json or application/cloudevents+json."
        return Problem(ProblemKind.MEDIA_TYPE, sentence)
    most = config.current().event_body_bytes
    # One byte more is read, to tell a body that came in chunks and is too large from one that fits.
    request.max_content_length = most + 1
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        body = bytes(most + 1)
    if len(body) > most:
        return Problem(ProblemKind.TOO_LARGE, f"An event may have at most {most} bytes.")
    return body


def _refuse(rejection: Rejection) -> Response:
    status = rejection.reason.words.status
    errors = [{"field": each.field, "message": each.message} for each in rejection.errors]
    answer = problem(status, PROBLEMS[status][0], rejection.detail, **({"errors": errors} if errors else {}))
    if status == 401:
        answer.headers.extend([("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="events"')])
    if rejection.retry_after:
        answer.headers["Retry-After"] = str(rejection.retry_after)
    return answer


def list_keys(domain: str | None = None) -> ResponseReturnValue:
    """List the keys, and the calls that were rejected."""
    return _page(_owner(domain))


def issue_key(domain: str | None = None) -> ResponseReturnValue:
    """Issue a key and show it, this once."""
    owner, form = _owner(domain), KeyForm()
    if not form.validate():
        return _page(owner, form=form, status=422)
    return _page(owner, issued=keys.issue(owner, form.name.data, form.last_day.data, signed=form.signed.data))


def rotate_key(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Issue a key's successor, and let the key work for a while beside it."""
    owner, key = _key(domain, key_id)
    form = RotationForm()
    if not form.validate():
        return _page(owner, refused=form.first_error)
    return _renewed(owner, keys.rotate(owner, key, form.overlap, form.last_day.data))


def renew_secret(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Make a new signing secret of a key, and let the one before it count for a while."""
    owner, key = _key(domain, key_id)
    form = OverlapForm()
    if not form.validate():
        return _page(owner, refused=form.first_error)
    return _renewed(owner, keys.renew_secret(key, form.overlap))


def revoke_key(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Refuse a key from now on."""
    owner, key = _key(domain, key_id)
    keys.revoke(key)
    if request.htmx:  # type: ignore[attr-defined]
        return _page(owner)
    return redirect(url_for(".keys", **_place(owner)), 303)


for pages in (tenant_keys, system_keys):
    pages.add_url_rule("", "keys", list_keys)
    pages.add_url_rule("", "issue", issue_key, methods=["POST"])
    pages.add_url_rule("/<int:key_id>/rotate", "rotate", rotate_key, methods=["POST"])
    pages.add_url_rule("/<int:key_id>/secret", "renew_secret", renew_secret, methods=["POST"])
    pages.add_url_rule("/<int:key_id>/revoke", "revoke", revoke_key, methods=["POST"])


def _owner(domain: str | None) -> Tenant | None:
    """Return the tenant whose keys may be seen, None for the system, or end with 404."""
    if domain is None:
        system_administrator()
        return None
    return workspace(domain)


def _key(domain: str | None, key_id: int) -> tuple[Tenant | None, PbxKey]:
    owner = _owner(domain)
    return owner, keys.one_of_owner(owner, key_id) or abort(404)


def _place(owner: Tenant | None) -> dict[str, Any]:
    """Return what the addresses of the owner's pages are made with."""
    return {"domain": owner.domain} if owner else {}


def _renewed(owner: Tenant | None, renewed: IssuedKey | Refusal) -> Response:
    if isinstance(renewed, Refusal):
        return _page(owner, refused=gettext(renewed.text))
    return _page(owner, issued=renewed)


def _page(
    owner: Tenant | None,
    *,
    form: KeyForm | None = None,
    issued: IssuedKey | None = None,
    refused: str | None = None,
    status: int = 200,
) -> Response:
    if refused:
        flash(refused, "error")
    context: dict[str, Any] = {"tenant": owner} if owner else {}
    address = f"{config.current().portal_url}{url_for('webhook.receive_event')}"
    answer = respond(
        "pbx/keys.html",
        "pbx/_keys.html",
        422 if refused else status,
        **context,
        zone=owner.time_zone if owner else "UTC",
        place=_place(owner),
        form=form or KeyForm(formdata=None),
        keys=keys.of_owner(owner),
        rejected=rejections.recent(owner),
        overlaps=OVERLAPS,
        issued=issued,
        key=(issued and issued.secret) or "KEY",
        address=address,
    )
    if issued:
        answer.cache_control.no_store = True
    return answer
