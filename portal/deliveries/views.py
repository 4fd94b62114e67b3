"""The delivery log of a tenant, the story of one event, and what a person decides about mails."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, ngettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal import ui
from portal.accounts.access import signed_in, without_anybody
from portal.deliveries import again, download, live, mending, samples, story
from portal.deliveries import log as delivery_log
from portal.deliveries.forms import LogForm
from portal.deliveries.last_outcomes import LastOutcome
from portal.deliveries.last_outcomes import find as find_last_outcomes
from portal.deliveries.log import LastSend
from portal.errors import Refusal
from portal.mail_servers.views import limit_tests
from portal.notifications.digest import EVERY_KIND
from portal.notifications.kinds import KINDS
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace

blueprint = Blueprint("deliveries", __name__)
DECISIONS = ("send_now", "discard", "send_again")
MOST_SEEN = 100  # events that a page is asked about at once
SHOW_NEWS = "show-news"  # the button that says how many events came


@blueprint.get("/tenants/<domain>/deliveries")
def log(domain: str) -> ResponseReturnValue:
    """Show what was sent to whom, newest first, narrowed by what the address says."""
    tenant, form, before = workspace(domain), _form(), request.args.get("before", type=UUID)
    is_valid = form.validate()
    shown = delivery_log.page(tenant.id, form.wanted(tenant.time_zone), before) if is_valid else delivery_log.NOTHING
    context = {"form": form, "shown": shown, "newest": live.newest(shown.entries), "before": before}
    if request.headers.get("HX-Trigger") == SHOW_NEWS and shown.entries:
        context["focus"] = shown.entries[0].event.id
    page, rows = "deliveries/log.html", "deliveries/_list.html"
    filters = {"filters": _filters()}
    response = ui.respond(page, rows, 200 if is_valid else 422, **_of_rows(tenant) | filters | context)
    response.headers["HX-Replace-Url"] = url_for("deliveries.log", **_here(tenant))
    return response


@blueprint.get("/tenants/<domain>/deliveries.csv")
def csv(domain: str) -> ResponseReturnValue:
    """Download what the log's filter lets through, all of it."""
    tenant, form = workspace(domain), _form()
    if not form.validate():
        raise BadRequest
    content = download.content(tenant.id, form.wanted(tenant.time_zone))
    return ui.download(content, f"delivery-log-{tenant.domain}.csv")


@blueprint.get("/tenants/<domain>/deliveries/news")
@without_anybody
def news(domain: str) -> ResponseReturnValue:
    """Show what is new since a page was made, or nothing."""
    tenant, form, on = workspace(domain), _form(), request.args.get("on", type=UUID)
    newest, told = request.args.get("newest", type=UUID), request.args.get("told", 0, int)
    if on is not None:
        return _event(tenant, on) if live.changed(_seen()) else ("", 204)
    if newest is None or not form.validate():
        raise BadRequest
    changed = live.changed(_seen())
    count = live.count_newer(tenant.id, form.wanted(tenant.time_zone), newest)
    if not changed and count == told:
        return "", 204
    entries, newest_page = delivery_log.entries(changed), url_for("deliveries.log", **_here(tenant))
    more: dict[str, Any] = {"count": count, "most": live.MOST, "newest_page": newest_page}
    return ui.respond("deliveries/_news.html", **_of_rows(tenant), entries=entries, **more)


@blueprint.get("/tenants/<domain>/deliveries/<uuid:event_id>")
def event(domain: str, event_id: UUID) -> ResponseReturnValue:
    """Show all that is known of one event and its mails."""
    return _event(workspace(domain), event_id)


@blueprint.post("/tenants/<domain>/deliveries/send-now")
def send_now(domain: str) -> ResponseReturnValue:
    """Let mails go on that are held or wait."""
    tenant, chosen = workspace(domain), _chosen()
    count = mending.send_now(chosen)
    _tell(count, chosen, ngettext("%(num)s mail is tried now.", "%(num)s mails are tried now.", count))
    return _decided(tenant, chosen)


@blueprint.post("/tenants/<domain>/deliveries/discard")
def discard(domain: str) -> ResponseReturnValue:
    """Give mails up that are held or wait."""
    tenant, chosen = workspace(domain), _chosen()
    count = again.discard(chosen)
    _tell(count, chosen, ngettext("%(num)s mail is discarded.", "%(num)s mails are discarded.", count))
    return _decided(tenant, chosen)


@blueprint.post("/tenants/<domain>/deliveries/send-again")
def send_again(domain: str) -> ResponseReturnValue:
    """Send a mail once more that was sent, refused or given up."""
    tenant, chosen = workspace(domain), _chosen()
    if len(chosen) != 1:
        raise BadRequest
    sent = again.send_again(*chosen)
    if isinstance(sent, Refusal):
        flash(sent.text, "error")
    else:
        flash(gettext("The mail is sent again now."), "success")
    return _decided(tenant, chosen)


@blueprint.post("/tenants/<domain>/samples")
@limit_tests
def send_sample(domain: str) -> ResponseReturnValue:
    """Send the sample of an event kind the whole way, and tell how far it came."""
    tenant, kind = workspace(domain), KINDS.get(request.form.get("event", ""))
    if kind is None:
        raise NotFound
    sent = samples.send(tenant, kind, signed_in())
    if not request.htmx:
        told = gettext("The sample stands on top of this log.")
        flash(sent.text if isinstance(sent, Refusal) else told, "info")
        return redirect(url_for("deliveries.log", domain=domain), 303)
    return ui.respond("deliveries/_sample_result.html", tenant=tenant, kind=kind, sent=sent)


def _decided(tenant: Tenant, chosen: Collection[UUID]) -> ResponseReturnValue:
    """Answer where the decision was made: on an event's own page, or in the log."""
    event_id = request.args.get("on", type=UUID)
    if event_id is not None and request.htmx:
        return _event(tenant, event_id, decided=True)
    if event_id is not None:
        return redirect(url_for("deliveries.event", domain=tenant.domain, event_id=event_id), 303)
    if not request.htmx:
        return redirect(url_for("deliveries.log", **_here(tenant)), 303)
    entries = delivery_log.entries_of(chosen)
    focus = entries[0].event.id if entries else None
    rows = "deliveries/_news.html"
    return ui.respond(rows, rows, entries=entries, **_of_rows(tenant) | {"focus": focus})


def _event(tenant: Tenant, event_id: UUID, *, decided: bool = False) -> ResponseReturnValue:
    told = story.of_event(event_id)
    if told is None:
        raise NotFound
    facts = story.facts(told.entry.event, tenant)
    context = {"story": told, "facts": facts, "decided": decided, "decisions": story.DECISIONS}
    here = {"domain": tenant.domain, "on": event_id}
    fragment = "deliveries/_story.html" if decided or request.endpoint == "deliveries.news" else None
    return ui.respond("deliveries/event.html", fragment, **_of_rows(tenant, here) | context)


def _of_rows(tenant: Tenant, here: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a row of the log, or an event's page, needs to know beside its event: `here` is what leads back."""
    actions = {name: url_for(f"deliveries.{name}", **here or _here(tenant)) for name in DECISIONS}
    addresses = actions | {"log": url_for("deliveries.log", domain=tenant.domain)}
    return {"tenant": tenant, "addresses": addresses, "kinds": EVERY_KIND, "version": live.version, "focus": None}


def _here(tenant: Tenant) -> dict[str, Any]:
    return {"domain": tenant.domain, **_filters(), "before": request.args.get("before", type=UUID)}


def _form() -> LogForm:
    return LogForm(formdata=request.args, meta={"csrf": False})


def _filters() -> dict[str, Any]:
    """Return what of the address narrows the log."""
    form = _form()
    return {name: value for name, value in request.args.items() if value and name in form}


def _seen() -> Collection[tuple[UUID, str]]:
    """Return the events that a page shows and that may change, each with the version that is shown."""
    pairs = (each.partition(".") for each in request.args.getlist("seen")[:MOST_SEEN])
    try:
        return [(UUID(event_id), version) for event_id, _, version in pairs]
    except ValueError:
        raise BadRequest from None


def _chosen() -> Collection[UUID]:
    chosen: Collection[UUID] = request.form.getlist("delivery", type=UUID)
    return chosen


def _tell(count: int, chosen: Collection[UUID], done: str) -> None:
    if count:
        flash(done, "success")
    elif chosen:
        flash(gettext("Nothing was changed: it no longer waits."), "warning")
    else:
        flash(gettext("Select the mails first."), "warning")


@blueprint.app_template_global("last_send")
def last_send(_tenant: Tenant) -> LastSend | None:
    """Return the most recent attempt of the tenant whose workspace is open, for the status of its mail server."""
    return delivery_log.last_send()


@blueprint.app_template_global("last_outcomes")
def last_outcomes(_tenant: Tenant, addresses: Collection[str]) -> Mapping[str, LastOutcome]:
    """Return what became of the last mail to each of these addresses of the tenant whose workspace is open."""
    return find_last_outcomes(addresses)
