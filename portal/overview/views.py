"""The overview pages of a tenant and of the system."""

from typing import Any

from flask import Blueprint, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request

from portal.accounts.access import open_to_viewers, require_system_administrator
from portal.alerts import notices
from portal.deliveries import delivery_log, statistics
from portal.deliveries import search as deliveries_search
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.overview import alerts, chart, checklist, health, system_search, worst_tenants
from portal.overview.forms import SystemSearchForm
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web.responses import flash_result, respond

blueprint = Blueprint("overview", __name__)
search_page = Blueprint("system_search", __name__)
BLUEPRINTS = (blueprint, search_page)

LATEST_EVENTS = 6  # events
MAX_POLLS = 200  # 3 seconds apart, while the page waits for something


@blueprint.get("/tenants/<domain>/overview")
@open_to_viewers
def of_tenant(domain: str) -> ResponseReturnValue:
    """Show email health, alerts and the latest deliveries."""
    return _tenant_page(workspace(domain))


@blueprint.post("/tenants/<domain>/overview/try-now")
def try_now(domain: str) -> ResponseReturnValue:
    """End the pause of the tenant's own mail server."""
    tenant = workspace(domain)
    flash_result(mail_server_service.end_pause(tenant.id), gettext("The portal is trying the mail server again."))
    return _tenant_page(tenant) if request.htmx else redirect(url_for("overview.of_tenant", domain=domain), 303)


@blueprint.get("/system/overview")
def of_system() -> ResponseReturnValue:
    """Show email health, tenants with problems, and the deliveries of all tenants."""
    require_system_administrator()
    email, server = health.system_email_health()
    stats = statistics.system_statistics()
    worst, more = worst_tenants.worst()
    return respond(
        "overview/system.html",
        email=email,
        server=server,
        alerts=list(health.system_alerts()),
        telling=notices.telling(),
        worst=worst,
        more=more,
        silent=alerts.silent_tenants(),
        chart=chart.build_chart(stats),
        counted_at=stats.counted_at,
    )


@search_page.get("/system/search")
def search() -> ResponseReturnValue:
    """Find tenants, people, emails and events of all tenants."""
    account, form = require_system_administrator(), SystemSearchForm(formdata=request.args, meta={"csrf": False})
    is_valid, results = form.validate(), None
    if is_valid and form.q.data:
        with deliveries_search.SEARCHES.hold(account.id):
            results = system_search.search(form.q.data)
    context = {"form": form, "results": results, "event_types": ALL_EVENT_TYPES}
    return respond("overview/search.html", None, 200 if is_valid else 422, **context)


@blueprint.post("/system/overview/try-now")
def try_system_now() -> ResponseReturnValue:
    """End the pause of the system's mail server."""
    require_system_administrator()
    flash_result(mail_server_service.end_pause(None), gettext("The portal is trying the mail server again."))
    return redirect(url_for("overview.of_system"), 303)


def _tenant_page(tenant: Tenant) -> ResponseReturnValue:
    context = _now(tenant)
    if not request.htmx:
        context |= {
            "entries": delivery_log.log_page(tenant.id, size=LATEST_EVENTS).rows,
            "event_types": ALL_EVENT_TYPES,
            "chart": chart.build_chart(statistics.tenant_statistics(tenant)),
        }
    return respond_in_workspace(tenant, "overview/tenant.html", "overview/_now.html", **context)


def _now(tenant: Tenant) -> dict[str, Any]:
    """Return what the page polls for: email health, the checklist and the alerts."""
    setup, email = checklist.tenant_setup(tenant), health.tenant_email_health(tenant)
    steps = checklist.open_steps(setup, has_sent=email.success is not None and not email.success.is_sample)
    polls = request.args.get("polls", MAX_POLLS, type=int)
    is_waiting = (
        email.server.state == "paused" or email.is_unused or any(step.state == checklist.WAITING for step in steps)
    )
    return {
        "email": email,
        "steps": steps,
        "alerts": alerts.tenant_alerts(tenant, setup, is_new=bool(steps)),
        "polls": min(polls, MAX_POLLS) - 1 if is_waiting else 0,
    }
