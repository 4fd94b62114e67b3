"""A tenant's pages "Notifications" and "Recipients", and the page that a link in an email opens for a recipient."""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from babel.dates import get_day_names
from flask import Blueprint, Response, abort, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal.accounts import rate_limits
from portal.accounts.access import for_clients, kept_as, public
from portal.accounts.rate_limits import ACCOUNT, HOUR, IP_ADDRESS, MINUTE, Limit, Rule
from portal.audit.log import Actor, set_actor
from portal.database import clock
from portal.deliveries import recent
from portal.deliveries.actions import send_settings_link
from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from portal.notifications import recipient_links, recipients
from portal.notifications import settings as notifications_settings
from portal.notifications.decision import DAYS_OF_WEEK
from portal.notifications.forms import (
    EventsForm,
    LinkForm,
    OwnPauseForm,
    PauseForm,
    RecipientForm,
    RulesForm,
    StormLimitForm,
)
from portal.notifications.models import Recipient
from portal.notifications.recipient_links import RecipientLink
from portal.notifications.settings import Audience
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web.filters import current_locale
from portal.web.forms import MAX_EMAIL_LENGTH
from portal.web.i18n import to_translate
from portal.web.responses import respond

blueprint = Blueprint("notifications", __name__, url_prefix="/tenants/<domain>/notifications")
recipient_list = Blueprint("recipients", __name__, url_prefix="/tenants/<domain>/recipients")
email_settings = Blueprint("email_settings", __name__, url_prefix="/email-settings/<token>")
BLUEPRINTS = (blueprint, recipient_list, email_settings)

LINK_LIMIT = Rule("email settings", (Limit(120, MINUTE, IP_ADDRESS),))  # a whole office may share one address
NEW_LINK_LIMIT = Rule("email settings link", (Limit(3, HOUR, ACCOUNT), Limit(20, HOUR, IP_ADDRESS)))

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


@blueprint.post("/all")
def set_all_enabled(domain: str) -> ResponseReturnValue:
    """Turn the emails about all event types on or off."""
    tenant = workspace(domain)
    notifications_settings.set_enabled(tenant, EVENT_TYPES, on=request.form.get("all") == "on")
    return redirect(url_for("notifications.edit", domain=domain), 303)


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


@recipient_list.post("/events/<type_name>")
def choose_event_for_all(domain: str, type_name: str) -> ResponseReturnValue:
    """Choose whether the recipients that the search shows get an event."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    searched, is_on = _searched(), request.form.get("all") == "on"
    recipients.choose_event_for_all(tenant, event_type.type, searched, on=is_on)
    return _recipients_changed(tenant)


@recipient_list.route("/<int:recipient_id>", methods=["GET", "POST"])
@kept_as(".edit_recipient")
def edit_recipient(domain: str, recipient_id: int) -> ResponseReturnValue:
    """Edit what a recipient gets: events, queues and quiet hours."""
    tenant = workspace(domain)
    recipient = _recipient(tenant, recipient_id)
    form = RulesForm() if request.method == "POST" else RulesForm.showing(recipient)
    if request.method == "POST" and form.validate_for(recipient):
        recipients.change_rules(tenant, recipient, form.event.data, form.rules)
        flash(gettext("Saved."), "success")
        return redirect(url_for("recipients.edit", domain=domain), 303)
    context = _rules_context(tenant, recipient, form)
    status = 422 if form.is_submitted() else 200
    return respond_in_workspace(tenant, "notifications/recipient.html", None, status, **context)


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
    return redirect(url_for("recipients.edit", domain=tenant.domain, q=_searched() or None), 303)


def _searched() -> str:
    return (request.values.get("q") or "").strip()[:MAX_EMAIL_LENGTH]


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
        "shown": [recipient for recipient in listed if _searched().lower() in recipient.email.lower()],
        "q": _searched(),
        "day_names": _day_names(),
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


def _rules_context(tenant: Tenant, recipient: Recipient, form: RulesForm) -> dict[str, Any]:
    return {
        "form": form,
        "recipient": recipient,
        "time_zone": tenant.time_zone,
        "event_types": EVENT_TYPES.values(),
        "day_names": _day_names(),
    }


def _day_names() -> Mapping[int, str]:
    names = get_day_names("abbreviated", locale=current_locale())
    return {day: names[day] for day in DAYS_OF_WEEK}


@email_settings.get("")
@public
def own(token: str) -> ResponseReturnValue:
    """Show a recipient what they get, or ask for the email address to which to send a link of their own."""
    link = _link(token)
    if link.recipient is None:
        return _ask_for_email(link, token, LinkForm(formdata=None))
    return _own_page(link, token, RulesForm.showing(link.recipient))


@email_settings.post("", endpoint="save")
@public
def save_own(token: str) -> ResponseReturnValue:
    """Save what a recipient wants."""
    link, form = _link(token), RulesForm()
    recipient = link.recipient or abort(404)
    if not form.validate_for(recipient):
        return _own_page(link, token, form, 422)
    recipients.change_rules(link.tenant, recipient, form.event.data, form.rules)
    return _own_saved(token)


@email_settings.post("/pause")
@public
def pause_own(token: str) -> ResponseReturnValue:
    """Send a recipient nothing for a time that they choose."""
    link, form = _link(token), OwnPauseForm()
    recipient = link.recipient or abort(404)
    if not form.validate():
        raise BadRequest
    until = clock.now() + timedelta(days=int(form.days.data)) if form.days.data else None
    recipients.pause(link.tenant, recipient, until)
    return _own_saved(token)


@email_settings.post("/resume")
@public
def resume_own(token: str) -> ResponseReturnValue:
    """End a recipient's pause."""
    link = _link(token)
    recipients.resume(link.tenant, link.recipient or abort(404))
    return _own_saved(token)


@email_settings.route("/unsubscribe", methods=["GET", "POST"])
@for_clients
def unsubscribe(token: str) -> ResponseReturnValue:
    """Pause a recipient until they resume: what a mail program posts on "Unsubscribe" (RFC 8058, section 3.2).

    It has no session, and mostly posts `multipart/form-data`, which pages reject. The token in the URL is the proof.
    Opening the URL changes nothing and leads to the page, as link scanners open it too.
    """
    if request.method != "POST":
        return redirect(url_for("email_settings.own", token=token))
    if request.form.get("List-Unsubscribe") != "One-Click":
        raise BadRequest
    link = _link(token)
    recipients.pause(link.tenant, link.recipient or abort(404), None)
    return "", HTTPStatus.NO_CONTENT


@email_settings.post("/link")
@public
def send_link(token: str) -> ResponseReturnValue:
    """Email a link of their own to a recipient. The answer is the same for an email address that is none."""
    link, form = _link(token), LinkForm()
    if not form.validate():
        return _ask_for_email(link, token, form, 422)
    email = form.email.data
    rate_limits.enforce(NEW_LINK_LIMIT, account=f"{link.tenant.id} {email}", ip_address=request.remote_addr or "")
    send_settings_link(link.tenant, email)
    flash(gettext("If %(email)s is a recipient, a link is on its way there.", email=email), "success")
    return redirect(url_for("email_settings.own", token=token), 303)


def _link(token: str) -> RecipientLink:
    """Return the link of this request. Changes that are made with it are the recipient's in the audit trail."""
    rate_limits.enforce(LINK_LIMIT, ip_address=request.remote_addr or "")
    link = recipient_links.read(token, for_change=request.method == "POST") or abort(404)
    if link.recipient:
        actor = Actor(link.recipient.email, None, request.remote_addr)
        set_actor(lambda: actor)
    return link


def _ask_for_email(link: RecipientLink, token: str, form: LinkForm, status: int = 200) -> ResponseReturnValue:
    context = {"form": form, "token": token, "tenant_name": link.tenant.display_name}
    return respond("notifications/ask_for_link.html", None, status, **context)


def _own_page(link: RecipientLink, token: str, form: RulesForm, status: int = 200) -> ResponseReturnValue:
    recipient = link.recipient or abort(404)
    context = _rules_context(link.tenant, recipient, form)
    context |= {"token": token, "tenant_name": link.tenant.display_name, "pause_form": OwnPauseForm(formdata=None)}
    return respond("notifications/own_settings.html", None, status, **context)


def _own_saved(token: str) -> ResponseReturnValue:
    flash(gettext("Saved."), "success")
    return redirect(url_for("email_settings.own", token=token), 303)


@email_settings.after_request
def _keep_private(response: Response) -> Response:
    """Keep the URL, which is a secret, out of caches and search engines. No page of the portal sends it elsewhere."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response
