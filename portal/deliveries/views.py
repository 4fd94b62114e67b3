"""The delivery log of a tenant, and what a person decides about its mails."""

from collections.abc import Collection, Mapping
from uuid import UUID

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from htmx_flask import request
from werkzeug.exceptions import BadRequest

from portal.deliveries import again, mending
from portal.deliveries import log as delivery_log
from portal.deliveries.last_outcomes import LastOutcome
from portal.deliveries.last_outcomes import find as find_last_outcomes
from portal.deliveries.log import LastSend
from portal.errors import Refusal
from portal.notifications.digest import EVERY_KIND
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("deliveries", __name__)


@blueprint.get("/tenants/<domain>/deliveries")
def log(domain: str) -> ResponseReturnValue:
    """Show what was sent to whom, newest first."""
    return _log(workspace(domain))


@blueprint.post("/tenants/<domain>/deliveries/send-now")
def send_now(domain: str) -> ResponseReturnValue:
    """Let mails go on that are held or wait."""
    tenant, chosen = workspace(domain), _chosen()
    count = mending.send_now(chosen)
    _tell(count, chosen, "{} is tried now.", "{} are tried now.")
    return _decided(tenant, chosen)


@blueprint.post("/tenants/<domain>/deliveries/discard")
def discard(domain: str) -> ResponseReturnValue:
    """Give mails up that are held or wait."""
    tenant, chosen = workspace(domain), _chosen()
    count = again.discard(chosen)
    _tell(count, chosen, "{} is discarded.", "{} are discarded.")
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
        flash("The mail is sent again now.", "success")
    return _decided(tenant, chosen)


def _chosen() -> Collection[UUID]:
    chosen: Collection[UUID] = request.form.getlist("delivery", type=UUID)
    return chosen


def _tell(count: int, chosen: Collection[UUID], one: str, several: str) -> None:
    if count:
        flash(one.format("1 mail") if count == 1 else several.format(f"{count} mails"), "success")
    elif chosen:
        flash("Nothing was changed: it no longer waits.", "warning")
    else:
        flash("Select the mails first.", "warning")


def _decided(tenant: Tenant, chosen: Collection[UUID]) -> ResponseReturnValue:
    if request.htmx:
        return _log(tenant, chosen)
    return redirect(url_for("deliveries.log", domain=tenant.domain, before=request.args.get("before", type=UUID)), 303)


def _log(tenant: Tenant, chosen: Collection[UUID] = ()) -> ResponseReturnValue:
    before = request.args.get("before", type=UUID)
    context = {"tenant": tenant, "shown": delivery_log.page(before), "before": before, "kinds": EVERY_KIND}
    return respond("deliveries/log.html", "deliveries/_list.html", **context, chosen=chosen)


@blueprint.app_template_global("last_send")
def last_send(_tenant: Tenant) -> LastSend | None:
    """Return the most recent attempt of the tenant whose workspace is open, for the status of its mail server."""
    return delivery_log.last_send()


@blueprint.app_template_global("last_outcomes")
def last_outcomes(_tenant: Tenant, addresses: Collection[str]) -> Mapping[str, LastOutcome]:
    """Return what became of the last mail to each of these addresses of the tenant whose workspace is open."""
    return find_last_outcomes(addresses)
