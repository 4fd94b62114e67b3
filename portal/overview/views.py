"""The overview of a tenant, and of the system: each is the first page that its administrator sees."""

from typing import Any

from flask import Blueprint, redirect, url_for
from flask.typing import ResponseReturnValue
from htmx_flask import request

from portal.accounts.access import system_administrator
from portal.deliveries import lately, tally
from portal.deliveries.log import Entry
from portal.mail_servers.views import try_now_of
from portal.notifications.digest import EVERY_KIND
from portal.overview import attention, chart, mail, operation, setup, steps, troubles
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("overview", __name__)

NEWEST = 6  # events
LOOKS = 200  # times, 3 seconds apart, that a page looks whether what it waits for has happened


@blueprint.get("/tenants/<domain>/overview")
def of_tenant(domain: str) -> ResponseReturnValue:
    """Show whether mail works, what needs attention, and what was delivered."""
    return _tenant_page(workspace(domain))


@blueprint.post("/tenants/<domain>/overview/try-now")
def try_now(domain: str) -> ResponseReturnValue:
    """Try the tenant's own mail server again before its pause is over."""
    tenant = workspace(domain)
    try_now_of(tenant.id)
    return _tenant_page(tenant) if request.htmx else redirect(url_for("overview.of_tenant", domain=domain), 303)


@blueprint.get("/system/overview")
def of_system() -> ResponseReturnValue:
    """Show whether mail works, which tenants have trouble or are silent, and what was delivered for all of them."""
    system_administrator()
    state, server = mail.of_system()
    tallied = tally.of_all()
    return respond(
        "overview/system.html",
        mail=state,
        server=server,
        concerns=operation.concerns(),
        worst=troubles.worst(),
        silent=troubles.silent(),
        chart=chart.of(tallied),
        counted_at=tallied.counted_at,
    )


@blueprint.post("/system/overview/try-now")
def try_system_now() -> ResponseReturnValue:
    """Try the system's mail server again before its pause is over."""
    system_administrator()
    try_now_of(None)
    return redirect(url_for("overview.of_system"), 303)


def _tenant_page(tenant: Tenant) -> ResponseReturnValue:
    context = _now(tenant)
    if not request.htmx:
        entries = [Entry.of(event) for event in lately.newest_events(NEWEST)]
        context |= {"entries": entries, "kinds": EVERY_KIND, "chart": chart.of(tally.of_tenant(tenant))}
    return respond("overview/tenant.html", "overview/_now.html", **context)


def _now(tenant: Tenant) -> dict[str, Any]:
    """Return what may change while one looks: whether mail works, the first steps, what needs attention."""
    has, state = setup.of_tenant(tenant), mail.of_tenant(tenant)
    first = steps.of_tenant(has, has_sent=state.success is not None and not state.success.is_sample)
    looks = request.args.get("looks", LOOKS, type=int)
    waits = state.state == "paused" or any(step.state == steps.WAITING for step in first) or state.is_first
    return {
        "tenant": tenant,
        "mail": state,
        "steps": first,
        "concerns": attention.of_tenant(tenant, has, is_new=bool(first)),
        "looks": min(looks, LOOKS) - 1 if waits else 0,
    }
