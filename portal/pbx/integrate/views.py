"""The page "Connect a PBX"."""

from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, make_response, url_for
from flask.typing import ResponseReturnValue
from htmx_flask import request

from portal import config
from portal.accounts.access import without_anybody
from portal.notifications import switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.pbx.forms import KeyForm
from portal.pbx.integrate import arrival, makes
from portal.pbx.keys import IssuedKey
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("integrate", __name__, url_prefix="/tenants/<domain>/connect")


@blueprint.get("")
def show(domain: str) -> ResponseReturnValue:
    """Show the lines for a make of PBX, and what has come from it."""
    return _page(workspace(domain))


@blueprint.post("")
def issue(domain: str) -> ResponseReturnValue:
    """Issue a key, and show it in the lines, this once."""
    tenant, form = workspace(domain), KeyForm()
    if not form.validate():
        return _page(tenant, form=form, status=422)
    return _page(tenant, issued=keys.issue(tenant, form.name.data))


@blueprint.get("/arrival")
@without_anybody
def arrived(domain: str) -> ResponseReturnValue:
    """Show what has come from the PBX, or answer that there is nothing new."""
    tenant = workspace(domain)
    found = arrival.look(tenant)
    if request.args.get("seen") == found.mark:
        return make_response("", HTTPStatus.NO_CONTENT)
    return respond("pbx/_arrival.html", tenant=tenant, arrival=found)


def _page(
    tenant: Tenant, *, form: KeyForm | None = None, issued: IssuedKey | None = None, status: int = 200
) -> Response:
    portal_url = config.current().portal_url
    answer = respond(
        "pbx/connect.html",
        "pbx/_connect.html",
        status,
        tenant=tenant,
        form=form or KeyForm(formdata=None),
        makes=makes.MAKES,
        chosen=makes.find(_chosen()),
        issued=issued,
        key=issued.secret if issued else "KEY",
        address=f"{portal_url}{url_for('webhook.receive_event')}",
        portsip_address=f"{portal_url}{url_for('webhook.receive_portsip')}",
        arrival=arrival.look(tenant),
        **_samples(),
    )
    if issued:
        answer.cache_control.no_store = True
    return answer


def _chosen() -> str | None:
    """Return the make whose tab is open: the page's address names it."""
    where = request.htmx.current_url if request.htmx else request.url
    query = (where or "").partition("#")[0].partition("?")[2]
    return next(iter(parse_qs(query).get("pbx", [])), None)


def _samples() -> dict[str, Any]:
    return {"kinds": KINDS.values(), "switches": switches.switches(KINDS)}
