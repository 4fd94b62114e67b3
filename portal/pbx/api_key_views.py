"""The pages "PBX keys" of a tenant and of the system."""

from typing import Any

from flask import Blueprint, Response, abort, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request

from portal import config
from portal.accounts.access import kept_as
from portal.errors import Refusal
from portal.pbx import api_keys, rejections
from portal.pbx.api_keys import IssuedKey
from portal.pbx.forms import OVERLAP_HOURS, KeyForm, OverlapForm, RotationForm
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace_or_system

tenant_keys = Blueprint("api_keys", __name__, url_prefix="/tenants/<domain>/keys")
system_keys = Blueprint("system_api_keys", __name__, url_prefix="/system/keys")
BLUEPRINTS = (tenant_keys, system_keys)


def list_keys(domain: str | None = None) -> ResponseReturnValue:
    """List the keys, and the requests that were rejected."""
    return _page(workspace_or_system(domain))


@kept_as(".issue_key")
def issue_key(domain: str | None = None) -> ResponseReturnValue:
    """Issue a key and show it this one time."""
    owner, form = workspace_or_system(domain), KeyForm()
    if not form.validate():
        return _page(owner, form=form, status=422)
    if refusal := api_keys.limit_refusal(owner):
        form.refuse(refusal)
        return _page(owner, form=form, status=422)
    return _page(owner, issued=api_keys.issue(owner, form.name.data, form.expires_on.data, signed=form.signed.data))


def rotate_key(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Issue a key's successor. The key stays valid for a while beside it."""
    owner, key = _owner_and_key(domain, key_id)
    form = RotationForm()
    if not form.validate():
        return _page(owner, error=form.first_error)
    return _issued_page(owner, api_keys.rotate(owner, key, form.overlap, form.expires_on.data))


def renew_secret(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Create a new signing secret for a key. The previous one stays valid for a while beside it."""
    owner, key = _owner_and_key(domain, key_id)
    form = OverlapForm()
    if not form.validate():
        return _page(owner, error=form.first_error)
    return _issued_page(owner, api_keys.renew_secret(key, form.overlap))


def revoke_key(key_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Reject a key from now on."""
    owner, key = _owner_and_key(domain, key_id)
    api_keys.revoke(key)
    if request.htmx:
        return _page(owner)
    return redirect(url_for(".list_keys", **_url_values(owner)), 303)


for blueprint in BLUEPRINTS:
    blueprint.add_url_rule("", view_func=list_keys)
    blueprint.add_url_rule("", view_func=issue_key, methods=["POST"])
    blueprint.add_url_rule("/<int:key_id>/rotate", view_func=rotate_key, methods=["POST"])
    blueprint.add_url_rule("/<int:key_id>/secret", view_func=renew_secret, methods=["POST"])
    blueprint.add_url_rule("/<int:key_id>/revoke", view_func=revoke_key, methods=["POST"])


def _owner_and_key(domain: str | None, key_id: int) -> tuple[Tenant | None, ApiKey]:
    owner = workspace_or_system(domain)
    return owner, api_keys.get_for_update(owner, key_id) or abort(404)


def _url_values(owner: Tenant | None) -> dict[str, Any]:
    return {"domain": owner.domain} if owner else {}


def _issued_page(owner: Tenant | None, issued: IssuedKey | Refusal) -> Response:
    if isinstance(issued, Refusal):
        return _page(owner, error=gettext(issued.text))
    return _page(owner, issued=issued)


def _page(
    owner: Tenant | None,
    *,
    form: KeyForm | None = None,
    issued: IssuedKey | None = None,
    error: str | None = None,
    status: int = 200,
) -> Response:
    if error:
        flash(error, "error")
    response = respond_in_workspace(
        owner,
        "pbx/keys.html",
        "pbx/_keys.html",
        422 if error else status,
        zone=owner.time_zone if owner else "UTC",
        url_values=_url_values(owner),
        form=form or KeyForm(formdata=None),
        keys=api_keys.list_keys(owner),
        rejected_requests=rejections.list_recent(owner),
        overlap_hours=OVERLAP_HOURS,
        issued=issued,
        key=(issued and issued.secret) or "KEY",
        endpoint_url=f"{config.current().portal_url}{url_for('webhook.receive_event')}",
    )
    if issued:
        response.cache_control.no_store = True
    return response
