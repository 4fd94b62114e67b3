"""The delivery log of a tenant, the page of one event, and what a person can do with emails there."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, ngettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal.accounts import rate_limits
from portal.accounts.access import current_account, open_to_viewers, polled
from portal.deliveries import actions, delivery_log, export, search, timeline
from portal.deliveries.delivery_log import LogEntry
from portal.deliveries.forms import LogFilterForm
from portal.deliveries.search import SearchPage
from portal.errors import Refusal
from portal.events.describe import describe_event
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp import test_email
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web import csv_export, i18n
from portal.web.filters import long_date
from portal.web.responses import respond
from portal.web.slots import Busy

blueprint = Blueprint("deliveries", __name__)
ACTIONS: Final = ("send_now", "discard", "send_again")
UPDATES: Final = "deliveries/_updates.html"
MAX_WATCHED_EVENTS: Final = 100  # that a page asks about at once
SHOW_NEW_EVENTS: Final = "show-new-events"  # the id of the link that says how many there are


@blueprint.get("/tenants/<domain>/deliveries")
@open_to_viewers
def log(domain: str) -> ResponseReturnValue:
    """Show the events that match the filters in the URL, newest first."""
    tenant, form, before = workspace(domain), _form(), request.args.get("before", type=UUID)
    is_valid = form.validate()
    page: SearchPage[LogEntry] = SearchPage(())
    if is_valid:
        log_filter = form.log_filter(tenant.time_zone)
        with search.slot(current_account().id, log_filter):
            page = delivery_log.log_page(tenant.id, log_filter, before)
    context = {"form": form, "page": page, "newest": delivery_log.newest_key(page.rows), "before": before}
    days = delivery_log.by_day(page.rows, ZoneInfo(tenant.time_zone))
    context |= {"filters": _filters(), "days": [(long_date(day), entries) for day, entries in days]}
    if request.headers.get("HX-Trigger") == SHOW_NEW_EVENTS and page.rows:
        context["focus"] = page.rows[0].event.id
    status, context = 200 if is_valid else 422, _row_context(tenant) | context
    response = respond_in_workspace(tenant, "deliveries/log.html", "deliveries/_list.html", status, **context)
    response.headers["HX-Replace-Url"] = _log_url(tenant)
    return response


@blueprint.get("/tenants/<domain>/deliveries.csv")
@open_to_viewers
def csv(domain: str) -> ResponseReturnValue:
    """Download all events that match the filters in the URL."""
    tenant, form = workspace(domain), _form()
    if not form.validate():
        raise BadRequest
    read_page = export.page_reader(tenant.id, form.log_filter(tenant.time_zone))
    filename = f"delivery-log-{tenant.domain}.csv"
    return csv_export.download(current_account().id, filename, tuple(export.COLUMNS), read_page)


@blueprint.get("/tenants/<domain>/deliveries/updates")
@polled
@open_to_viewers
def updates(domain: str) -> ResponseReturnValue:
    """Show what has changed since a page was rendered, or nothing."""
    tenant, form, event_id = workspace(domain), _form(), request.args.get("event_id", type=UUID)
    newest, shown_count = request.args.get("newest", type=UUID), request.args.get("shown_count", 0, int)
    changed = delivery_log.changed_events(_watched_events())
    if event_id is not None:
        return _event_page(tenant, event_id) if changed else ("", 204)
    if newest is None or not form.validate():
        raise BadRequest
    limit, log_filter = delivery_log.MAX_NEW_EVENTS, form.log_filter(tenant.time_zone)
    try:
        with search.slot(current_account().id, log_filter):
            count = search.count_newer_events(tenant.id, log_filter, newest, limit=limit)
    except Busy:
        return "", 204  # the page asks again
    if not changed and count == shown_count:
        return "", 204
    context: dict[str, Any] = {"count": count, "max_count": limit}
    context |= {"entries": delivery_log.load_entries(changed), "log_url": _log_url(tenant)}
    return respond(UPDATES, tenant=tenant, **_row_context(tenant) | context)


@blueprint.get("/tenants/<domain>/deliveries/<uuid:event_id>")
@open_to_viewers
def event(domain: str, event_id: UUID) -> ResponseReturnValue:
    """Show one event and its emails."""
    return _event_page(workspace(domain), event_id)


@blueprint.post("/tenants/<domain>/deliveries/send-now")
def send_now(domain: str) -> ResponseReturnValue:
    """Send emails now that are held or queued."""
    tenant = workspace(domain)
    count = actions.send_now(_selected())
    _flash_result(count, ngettext("%(num)s email will be sent now.", "%(num)s emails will be sent now.", count))
    return _after_action(tenant)


@blueprint.post("/tenants/<domain>/deliveries/discard")
def discard(domain: str) -> ResponseReturnValue:
    """Discard emails that are held or queued."""
    tenant = workspace(domain)
    count = actions.discard(_selected())
    _flash_result(count, ngettext("%(num)s email was discarded.", "%(num)s emails were discarded.", count))
    return _after_action(tenant)


@blueprint.post("/tenants/<domain>/deliveries/send-again")
def send_again(domain: str) -> ResponseReturnValue:
    """Send a copy of an email that was sent, failed or expired."""
    tenant, selected = workspace(domain), _selected()
    if len(selected) != 1:
        raise BadRequest
    copy = actions.send_again(*selected)
    if isinstance(copy, Refusal):
        flash(copy.text, "error")
    else:
        flash(gettext("The email is being sent again."), "success")
    return _after_action(tenant)


@blueprint.post("/tenants/<domain>/samples")
def send_sample(domain: str) -> ResponseReturnValue:
    """Send a sample of an event, and show the result."""
    rate_limits.enforce(test_email.RATE_LIMIT, account=current_account().email)
    tenant, event_type = workspace(domain), EVENT_TYPES.get(request.form.get("event", ""))
    if event_type is None:
        raise NotFound
    result = actions.send_sample(tenant, event_type, current_account())
    if not request.htmx:
        sent = gettext("The sample is at the top of this log.")
        flash(result.text if isinstance(result, Refusal) else sent, "info")
        return redirect(url_for("deliveries.log", domain=domain), 303)
    return respond("deliveries/_sample_result.html", tenant=tenant, event_type=event_type, result=result)


def _after_action(tenant: Tenant) -> ResponseReturnValue:
    """Respond to an action on the event's page, or in the log."""
    event_id = request.args.get("event_id", type=UUID)
    if event_id is not None and request.htmx:
        return _event_page(tenant, event_id, after_action=True)
    if event_id is not None:
        return redirect(url_for("deliveries.event", domain=tenant.domain, event_id=event_id), 303)
    if not request.htmx:
        return redirect(_log_url(tenant), 303)
    entries = delivery_log.entries_of_deliveries(_selected())
    context = {"entries": entries, "focus": entries[0].event.id if entries else None}
    return respond(UPDATES, UPDATES, tenant=tenant, **_row_context(tenant) | context)


def _event_page(tenant: Tenant, event_id: UUID, *, after_action: bool = False) -> ResponseReturnValue:
    shown = timeline.event_timeline(event_id)
    if shown is None:
        raise NotFound
    row, is_unfinished = shown.entry.event, shown.entry.is_unfinished
    context: dict[str, Any] = {
        "timeline": shown,
        "fields": describe_event(row.type, row.data, row.occurred_at, tenant.time_zone, i18n.current_language()),
        "after_action": after_action,
        "action_texts": timeline.ACTIONS,
        "is_server_paused": is_unfinished and mail_server_service.tenant_status(tenant).state == "paused",
    }
    context |= _row_context(tenant, {"domain": tenant.domain, "event_id": event_id})
    fragment = "deliveries/_event.html" if after_action or request.endpoint == "deliveries.updates" else None
    return respond_in_workspace(tenant, "deliveries/event.html", fragment, **context)


def _row_context(tenant: Tenant, url_values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the rows of the log and the page of an event show besides the event.

    The URLs of the actions contain `url_values`: where to return to after the action, the log by default.
    """
    url_values = url_values or _log_url_values(tenant)
    return {
        "action_urls": {action: url_for(f"deliveries.{action}", **url_values) for action in ACTIONS},
        "event_types": ALL_EVENT_TYPES,
        "version": delivery_log.deliveries_version,
        "focus": None,
    }


def _log_url(tenant: Tenant) -> str:
    return url_for("deliveries.log", **_log_url_values(tenant))


def _log_url_values(tenant: Tenant) -> dict[str, Any]:
    return {"domain": tenant.domain, **_filters(), "before": request.args.get("before", type=UUID)}


def _form() -> LogFilterForm:
    return LogFilterForm(formdata=request.args, meta={"csrf": False})


def _filters() -> dict[str, Any]:
    """Return the filters in the URL."""
    return {name: value for name, value in request.args.items() if value and name in _filter_names()}


@cache
def _filter_names() -> Collection[str]:
    return {field.name for field in _form()}


def _watched_events() -> Collection[tuple[UUID, str]]:
    """Return the unfinished events that a page shows, each with the version that it shows."""
    pairs = (value.partition(".") for value in request.args.getlist("watched")[:MAX_WATCHED_EVENTS])
    try:
        return [(UUID(event_id), version) for event_id, _, version in pairs]
    except ValueError:
        raise BadRequest from None


def _selected() -> Collection[UUID]:
    selected: Collection[UUID] = request.form.getlist("delivery", type=UUID)
    return selected


def _flash_result(count: int, success: str) -> None:
    if count:
        flash(success, "success")
    elif _selected():
        flash(gettext("Nothing was changed: the emails are no longer held or queued."), "warning")
    else:
        flash(gettext("Select emails first."), "warning")
