"""A tenant's recipients: which events each of them gets, who is paused, and what became of their last mail."""

from typing import Any

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal.notifications import recipients, switches
from portal.notifications.forms import EventsForm, PauseForm, RecipientForm
from portal.notifications.kinds import KINDS
from portal.notifications.models import Recipient
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("recipients", __name__, url_prefix="/tenants/<domain>/recipients")


@blueprint.get("")
def edit(domain: str) -> ResponseReturnValue:
    """Show who gets what."""
    return _page(workspace(domain))


@blueprint.post("")
def add(domain: str) -> ResponseReturnValue:
    """Add a recipient."""
    tenant, form = workspace(domain), RecipientForm()
    if not form.validate():
        return _page(tenant, 422, form=form)
    refused = recipients.add(tenant, form.address.data)
    if refused:
        form.refuse(refused)
        return _page(tenant, 422, form=form)
    flash(gettext("The recipient is added."), "success")
    return _done(tenant, in_field=True)


@blueprint.post("/<int:recipient_id>/remove")
def remove(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Remove a recipient."""
    tenant = workspace(domain)
    refused = recipients.remove(tenant, _recipient(tenant, recipient_id))
    if refused:
        flash(refused.text, "error")
    return _done(tenant, in_field=True)


@blueprint.post("/<int:recipient_id>/events")
def choose_events(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Choose which events a recipient gets."""
    tenant, form = workspace(domain), EventsForm()
    if not form.validate():
        raise BadRequest
    recipients.choose_events(tenant, _recipient(tenant, recipient_id), form.event.data)
    return _done(tenant)


@blueprint.post("/<int:recipient_id>/pause")
def pause(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Send a recipient nothing until a day."""
    tenant = workspace(domain)
    recipient, form = _recipient(tenant, recipient_id), PauseForm(tenant.time_zone)
    if not form.validate():
        return _page(tenant, 422, pause_form=form, changed=recipient.id)
    recipients.pause(tenant, recipient, form.until.data)
    return _done(tenant, changed=recipient.id)


@blueprint.post("/<int:recipient_id>/resume")
def resume(domain: str, recipient_id: int) -> ResponseReturnValue:
    """End the pause of a recipient."""
    tenant = workspace(domain)
    recipient = _recipient(tenant, recipient_id)
    recipients.resume(tenant, recipient)
    return _done(tenant, changed=recipient.id)


def _recipient(tenant: Tenant, recipient_id: int) -> Recipient:
    for each in recipients.to_change(tenant):
        if each.id == recipient_id:
            return each
    raise NotFound


def _done(tenant: Tenant, **context: Any) -> ResponseReturnValue:
    if request.htmx:
        return _page(tenant, **context)
    return redirect(url_for("recipients.edit", domain=tenant.domain), 303)


def _page(tenant: Tenant, status: int = 200, **context: object) -> ResponseReturnValue:
    listed = recipients.listed()
    nobodys = [kind for kind in KINDS.values() if all(kind.type in each.excluded_events for each in listed)]
    context = {
        "tenant": tenant,
        "kinds": KINDS.values(),
        "switches": switches.switches(KINDS),
        "recipients": listed,
        "nobodys": [gettext(kind.label) for kind in nobodys if listed],
        "form": RecipientForm(formdata=None),
        "pause_form": PauseForm(tenant.time_zone, formdata=None),
        "changed": None,
        "in_field": False,
        **context,
    }
    return respond("notifications/recipients.html", "notifications/_recipient_list.html", status, **context)
