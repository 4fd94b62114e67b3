"""The pages of the audit trail: a tenant's own part of it, and all of it for the system administrator.

They stand above accounts and tenants, unlike the rest of the room.
"""

from typing import Any
from uuid import UUID

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from portal import ui
from portal.accounts.access import system_administrator
from portal.audit import download, trail, words
from portal.audit.forms import TrailForm
from portal.tenants import directory
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace

blueprint = Blueprint("audit", __name__)
SYSTEM_ZONE = "UTC"


@blueprint.get("/tenants/<domain>/audit")
def of_tenant(domain: str) -> ResponseReturnValue:
    """Show what was done in a tenant's workspace, and to the tenant."""
    return _page(workspace(domain))


@blueprint.get("/system/audit")
def of_system() -> ResponseReturnValue:
    """Show what was done in the system and in all tenants."""
    system_administrator()
    return _page(None)


@blueprint.get("/tenants/<domain>/audit.csv")
def tenant_csv(domain: str) -> ResponseReturnValue:
    """Download the tenant's entries."""
    return _csv(workspace(domain))


@blueprint.get("/system/audit.csv")
def system_csv() -> ResponseReturnValue:
    """Download all entries."""
    system_administrator()
    return _csv(None)


def _page(tenant: Tenant | None) -> ResponseReturnValue:
    form, before = _form(), request.args.get("before", type=UUID)
    is_valid = form.validate()
    owner_id, zone = (tenant.id, tenant.time_zone) if tenant else (None, SYSTEM_ZONE)
    shown = trail.page(owner_id, form.wanted(zone), before) if is_valid else trail.NOTHING
    here, csv = ("audit.of_tenant", "audit.tenant_csv") if tenant else ("audit.of_system", "audit.system_csv")
    owner: dict[str, Any] = {"domain": tenant.domain} if tenant else {}
    filters: dict[str, Any] = {name: value for name, value in request.args.items() if value and name in form}
    context = {
        "form": form,
        "shown": shown,
        "zone": zone,
        "words": words,
        "is_narrowed": bool(filters),
        "domains": directory.domains({each.tenant_id for each in shown.entries if each.tenant_id}),
        "here": url_for(here, **owner),
        "csv": url_for(csv, **owner, **filters),
        "newest": url_for(here, **owner, **filters) if before else None,
        "older": url_for(here, **owner, **filters, before=shown.older) if shown.older else None,
        **({"tenant": tenant} if tenant else {}),
    }
    return ui.respond("audit/page.html", "audit/_trail.html", 200 if is_valid else 422, **context)


def _csv(tenant: Tenant | None) -> ResponseReturnValue:
    form = _form()
    if not form.validate():
        raise BadRequest
    owner_id, zone = (tenant.id, tenant.time_zone) if tenant else (None, SYSTEM_ZONE)
    content = download.content(owner_id, form.wanted(zone), directory.domains)
    return ui.download(content, f"audit-trail-{tenant.domain}.csv" if tenant else "audit-trail.csv")


def _form() -> TrailForm:
    return TrailForm(formdata=request.args, meta={"csrf": False})
