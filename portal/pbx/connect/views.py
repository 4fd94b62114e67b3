"""The page "Connect a PBX"."""

from http import HTTPStatus
from urllib.parse import parse_qs

from flask import Blueprint, Response, make_response, url_for
from flask.typing import ResponseReturnValue
from htmx_flask import request

from portal import config
from portal.accounts.access import kept_as, polled
from portal.events.types import EVENT_TYPES
from portal.notifications import settings
from portal.pbx import api_keys
from portal.pbx.adapters.adapter import Adapter
from portal.pbx.adapters.registry import ADAPTERS
from portal.pbx.api_keys import IssuedKey
from portal.pbx.connect.connection_status import connection_status
from portal.pbx.forms import KeyForm
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web.responses import respond

blueprint = Blueprint("connect", __name__, url_prefix="/tenants/<domain>/connect")


@blueprint.get("")
def show(domain: str) -> ResponseReturnValue:
    """Show the configuration snippets, and whether the PBX has reported an event."""
    return _page(workspace(domain))


@blueprint.post("")
@kept_as(".issue_key")
def issue_key(domain: str) -> ResponseReturnValue:
    """Issue a key and show it in the snippets this one time."""
    tenant, form = workspace(domain), KeyForm()
    if not form.validate():
        return _page(tenant, form=form, status=422)
    if refusal := api_keys.limit_refusal(tenant):
        form.refuse(refusal)
        return _page(tenant, form=form, status=422)
    return _page(tenant, issued=api_keys.issue(tenant, form.name.data))


@blueprint.get("/status")
@polled
def status(domain: str) -> ResponseReturnValue:
    """Show whether the PBX has reported an event, or answer that nothing has changed."""
    tenant = workspace(domain)
    connection = connection_status(tenant)
    if request.args.get("seen") == connection.version:
        return make_response("", HTTPStatus.NO_CONTENT)
    return respond("pbx/_connection_status.html", tenant=tenant, connection=connection)


def _page(
    tenant: Tenant, *, form: KeyForm | None = None, issued: IssuedKey | None = None, status: int = 200
) -> Response:
    response = respond_in_workspace(
        tenant,
        "pbx/connect.html",
        "pbx/_connect.html",
        status,
        form=form or KeyForm(formdata=None),
        adapters=ADAPTERS.values(),
        chosen=_chosen_adapter(),
        endpoint_urls={adapter.name: _endpoint_url(adapter) for adapter in ADAPTERS.values()},
        issued=issued,
        key=issued.secret if issued else "KEY",
        connection=connection_status(tenant),
        event_types=EVENT_TYPES.values(),
        event_settings=settings.settings_by_type(EVENT_TYPES),
    )
    if issued:
        response.cache_control.no_store = True
    return response


def _chosen_adapter() -> Adapter:
    """Return the adapter whose tab is open, which the page's URL names; else the first one."""
    url = (request.htmx.current_url if request.htmx else request.url) or ""
    query = url.partition("#")[0].partition("?")[2]
    name = next(iter(parse_qs(query).get("pbx", [])), "")
    return ADAPTERS.get(name) or next(iter(ADAPTERS.values()))


def _endpoint_url(adapter: Adapter) -> str:
    path = url_for("webhook.receive_event")
    if adapter.payload_format:
        path = url_for("webhook.receive_payload", make=adapter.name)
    return f"{config.current().portal_url}{path}"
