"""A tenant's pages "Notifications", with the settings of each event type and storm limits, and "Recipients"."""

from typing import Any

from flask import Blueprint, abort, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal.accounts.access import kept_as
from portal.deliveries import recent
from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.notifications.forms import EventsForm, PauseForm, RecipientForm, StormLimitForm
from portal.notifications.models import Recipient
from portal.notifications.settings import Audience
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web.i18n import to_translate

blueprint = Blueprint("notifications", __name__, url_prefix="/tenants/<domain>/notifications")
recipient_list = Blueprint("recipients", __name__, url_prefix="/tenants/<domain>/recipients")
BLUEPRINTS = (blueprint, recipient_list)

AUDIENCES = {
    Audience.BOTH: to_translate("The recipients and the new user"),
    Audience.RECIPIENTS: to_translate("The recipients"),
    Audience.USER: to_translate("The new user"),
}


@blueprint.get("")
def edit(domain: str) -> ResponseReturnValue:
    """Show the settings of each event type and the storm limits."""
    tenant = workspace(domain)
    return respond_in_workspace(tenant, "notifications/page.html", **_settings_context(tenant))


@blueprint.post("/<type_name>")
@kept_as(".set_enabled")
def set_enabled(domain: str, type_name: str) -> ResponseReturnValue:
    """Turn the emails about an event type on or off."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    notifications_settings.set_enabled(tenant, [event_type.type], on="enabled" in request.form)
    return _setting_saved(tenant, event_type)


@blueprint.post("/<type_name>/audience")
@kept_as(".set_audience")
def set_audience(domain: str, type_name: str) -> ResponseReturnValue:
    """Set who gets the emails about an event type that is about a user."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    audience = request.form.get("audience")
    if not event_type.has_user:
        raise NotFound
    if audience not in AUDIENCES:
        raise BadRequest
    notifications_settings.set_audience(tenant, event_type.type, Audience(audience))
    return _setting_saved(tenant, event_type)


@blueprint.post("/storm-limits")
@kept_as(".save_storm_limits")
def save_storm_limits(domain: str) -> ResponseReturnValue:
    """Save the limit above which emails are combined into a summary email."""
    tenant = workspace(domain)
    form = StormLimitForm()
    if form.validate():
        notifications_settings.save_storm_limits(tenant, *form.entered())
        flash(gettext("The limits are saved."), "success")
        return redirect(url_for("notifications.edit", domain=domain), 303)
    context = _settings_context(tenant) | {"storm_limit_form": form}
    return respond_in_workspace(tenant, "notifications/page.html", "notifications/_storm_limits.html", 422, **context)


def _event_type(type_name: str) -> EventType:
    return EVENT_TYPES.get(type_name) or abort(404)


def _setting_saved(tenant: Tenant, event_type: EventType) -> ResponseReturnValue:
    if not request.htmx:
        return redirect(url_for("notifications.edit", domain=tenant.domain), 303)
    page, fragment = "notifications/page.html", "notifications/_event_type.html"
    return respond_in_workspace(tenant, page, fragment, **_settings_context(tenant), event_type=event_type)


def _settings_context(tenant: Tenant) -> dict[str, Any]:
    return {
        "event_types": EVENT_TYPES.values(),
        "settings": notifications_settings.settings_by_type(EVENT_TYPES),
        "audiences": AUDIENCES,
        "has_recipients": bool(recipients.list_emails()),
        "storm_limit_form": StormLimitForm.showing(tenant),
    }


@recipient_list.get("", endpoint="edit")
def edit_recipients(domain: str) -> ResponseReturnValue:
    """Show the recipients and their events."""
    return _recipients_page(workspace(domain))


@recipient_list.post("", endpoint="add")
@kept_as(".add")
def add_recipient(domain: str) -> ResponseReturnValue:
    """Add a recipient, or several."""
    tenant, form = workspace(domain), RecipientForm()
    if not form.validate():
        return _recipients_page(tenant, 422, form=form)
    refusal = recipients.add(tenant, form.parsed)
    if refusal:
        form.refuse(refusal)
        return _recipients_page(tenant, 422, form=form)
    one = len(form.parsed) == 1
    flash(gettext("The recipient is added.") if one else gettext("The recipients are saved."), "success")
    return _recipients_changed(tenant, focus_input=True)


@recipient_list.post("/<int:recipient_id>/remove", endpoint="remove")
def remove_recipient(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Remove a recipient."""
    tenant = workspace(domain)
    refusal = recipients.remove(tenant, _recipient(tenant, recipient_id))
    if refusal:
        flash(refusal.text, "error")
    return _recipients_changed(tenant, focus_input=True)


@recipient_list.post("/<int:recipient_id>/events")
@kept_as(".choose_events")
def choose_events(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Choose which events a recipient gets."""
    tenant, form = workspace(domain), EventsForm()
    if not form.validate():
        raise BadRequest
    recipients.choose_events(tenant, _recipient(tenant, recipient_id), form.event.data)
    return _recipients_changed(tenant)


@recipient_list.post("/<int:recipient_id>/pause", endpoint="pause")
@kept_as(".pause")
def pause_recipient(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Send a recipient nothing until a given day."""
    tenant = workspace(domain)
    recipient, form = _recipient(tenant, recipient_id), PauseForm(tenant.time_zone)
    if not form.validate():
        return _recipients_page(tenant, 422, pause_form=form, changed=recipient.id)
    recipients.pause(tenant, recipient, form.until.data)
    return _recipients_changed(tenant, changed=recipient.id)


@recipient_list.post("/<int:recipient_id>/resume", endpoint="resume")
def resume_recipient(domain: str, recipient_id: int) -> ResponseReturnValue:
    """End the pause of a recipient."""
    tenant = workspace(domain)
    recipient = _recipient(tenant, recipient_id)
    recipients.resume(tenant, recipient)
    return _recipients_changed(tenant, changed=recipient.id)


def _recipient(tenant: Tenant, recipient_id: int) -> Recipient:
    listed = recipients.lock_recipients(tenant)
    return next((recipient for recipient in listed if recipient.id == recipient_id), None) or abort(404)


def _recipients_changed(tenant: Tenant, **context: Any) -> ResponseReturnValue:
    if request.htmx:
        return _recipients_page(tenant, **context)
    return redirect(url_for("recipients.edit", domain=tenant.domain), 303)


def _recipients_page(tenant: Tenant, status: int = 200, **context: object) -> ResponseReturnValue:
    listed = recipients.list_recipients()
    events_without_recipient = [
        gettext(event_type.label)
        for event_type in EVENT_TYPES.values()
        if listed and all(event_type.type in recipient.excluded_event_types for recipient in listed)
    ]
    context = {
        "event_types": EVENT_TYPES.values(),
        "settings": notifications_settings.settings_by_type(EVENT_TYPES),
        "recipients": listed,
        "last_results": recent.last_results([recipient.email for recipient in listed]),
        "events_without_recipient": events_without_recipient,
        "form": RecipientForm(formdata=None),
        "pause_form": PauseForm(tenant.time_zone, formdata=None),
        "changed": None,
        "focus_input": False,
        **context,
    }
    page, fragment = "notifications/recipients.html", "notifications/_recipient_list.html"
    return respond_in_workspace(tenant, page, fragment, status, **context)
