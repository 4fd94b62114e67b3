"""A tenant's pages below "Advanced > Notifications": its mail server with the recipients, and a switch for each event.

The page of the mail server stands here and not in `mail_servers`, which may not know of recipients.
"""

from typing import Any

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from werkzeug.exceptions import BadRequest, NotFound

from portal.accounts.access import signed_in
from portal.errors import Refusal
from portal.languages import to_translate
from portal.mail_servers import selection, sender, settings, testing
from portal.mail_servers.forms import MailServerForm, SenderForm
from portal.mail_servers.views import RESULT, limit_tests, tell, try_now_of, try_out
from portal.notifications import recipients, storm_limits, switches
from portal.notifications.forms import RecipientsForm, StormForm
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.switches import Audience
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("notifications", __name__, url_prefix="/tenants/<domain>")
mail_server = Blueprint("mail_servers", __name__, url_prefix="/tenants/<domain>/mail-server")
BLUEPRINTS = (blueprint, mail_server)

OWN_FORM = "mail_servers/_form.html"
AUDIENCES = {
    Audience.BOTH: to_translate("The recipients and the new user"),
    Audience.RECIPIENTS: to_translate("The recipients"),
    Audience.USER: to_translate("The new user"),
}


@mail_server.route("", methods=["GET", "POST"])
def edit(domain: str) -> ResponseReturnValue:
    """Show which mail server the tenant uses; show and save its own."""
    tenant = workspace(domain)
    if request.method == "GET":
        own = selection.of_owner(tenant.id)
        return _mail_server_page(tenant, form=MailServerForm.showing(own, request.args.get("provider")))
    form = MailServerForm()
    if form.validate():
        saved = settings.save(tenant.id, form.entered())
        if not isinstance(saved, Refusal):
            flash(gettext("Your mail server is saved."), "success")
            return _back(domain)
        form.refuse(saved)
    return _mail_server_page(tenant, status=422, form=form)


@mail_server.post("/test")
@limit_tests
def test(domain: str) -> ResponseReturnValue:
    """Send a test e-mail with the values in the form of the tenant's own mail server."""
    tenant = workspace(domain)
    form = MailServerForm()
    talk = try_out(tenant, form, _test_recipients())

    def page(result: testing.Result) -> ResponseReturnValue:
        status = 422 if form.errors else 200
        return _mail_server_page(tenant, RESULT, status, form=form, result=result, tested="own")

    return tell(talk, "own", page)


@mail_server.post("/test-shared")
@limit_tests
def test_shared(domain: str) -> ResponseReturnValue:
    """Send a test e-mail through the system administrator's mail server."""
    tenant = workspace(domain)
    server = selection.shared()
    if server is None:
        raise NotFound
    talk = testing.send_saved(tenant, server, _test_recipients())
    return tell(talk, "shared", lambda result: _mail_server_page(tenant, RESULT, result=result, tested="shared"))


@mail_server.post("/try-now")
def try_now(domain: str) -> ResponseReturnValue:
    """Try the tenant's own mail server again before its pause is over."""
    tenant = workspace(domain)
    try_now_of(tenant.id)
    if not request.htmx:
        return _back(domain)
    return _mail_server_page(tenant, "mail_servers/_status.html", tried=True)


@mail_server.post("/use-shared")
def use_shared(domain: str) -> ResponseReturnValue:
    """Remove the tenant's own mail server, so that the shared one is used where there is one."""
    tenant = workspace(domain)
    settings.remove(tenant.id)
    flash(gettext("Your mail server is removed."), "success")
    return _back(domain)


@mail_server.post("/recipients")
def save_recipients(domain: str) -> ResponseReturnValue:
    """Save the "Emails of Recipients"."""
    tenant = workspace(domain)
    form = RecipientsForm()
    if form.validate():
        recipients.replace(tenant, form.parsed)
        flash(gettext("The recipients are saved."), "success")
        return _back(domain)
    return _mail_server_page(tenant, "notifications/_recipients.html", 422, recipients_form=form)


@mail_server.post("/sender")
def save_sender(domain: str) -> ResponseReturnValue:
    """Save the Reply-To of the tenant's mails."""
    tenant = workspace(domain)
    form = SenderForm()
    if form.validate():
        sender.save(tenant, form.reply_to.data)
        flash(gettext("The sender is saved."), "success")
        return _back(domain)
    return _mail_server_page(tenant, "mail_servers/_sender.html", 422, sender_form=form)


def _mail_server_page(
    tenant: Tenant, fragment: str = OWN_FORM, status: int = 200, **forms_and_result: object
) -> ResponseReturnValue:
    own, shared, addresses = selection.of_owner(tenant.id), selection.shared(), recipients.addresses()
    context = {
        "tenant": tenant,
        "server": own,
        "shared": shared,
        "addresses": addresses,
        "save_url": url_for("mail_servers.edit", domain=tenant.domain),
        "test_url": url_for("mail_servers.test", domain=tenant.domain),
        "can_remove": own is not None and shared is None,
        "form": MailServerForm.showing(own),
        "recipients_form": RecipientsForm.showing(addresses),
        "sender_form": SenderForm(formdata=None, obj=tenant),
        "result": None,
        "tested": None,
        **forms_and_result,
    }
    return respond("mail_servers/tenant.html", fragment, status, **context)


def _test_recipients() -> list[str]:
    """Return whom a test e-mail may reach: the account itself, or the tenant's recipients."""
    chosen = recipients.addresses() if request.form.get("to") == "recipients" else ()
    return list(chosen) or [signed_in().email]


def _back(domain: str) -> ResponseReturnValue:
    return redirect(url_for("mail_servers.edit", domain=domain), 303)


@blueprint.get("/notifications", endpoint="edit")
def notifications(domain: str) -> ResponseReturnValue:
    """Show a switch for each event kind."""
    return respond("notifications/page.html", **_notifications(workspace(domain)))


@blueprint.post("/notifications/<event_type>")
def switch(domain: str, event_type: str) -> ResponseReturnValue:
    """Turn the mails of an event kind on or off."""
    tenant, kind = workspace(domain), _kind(event_type)
    switches.turn(tenant, [kind.type], on="enabled" in request.form)
    return _switched(tenant, kind)


@blueprint.post("/notifications/<event_type>/audience")
def audience(domain: str, event_type: str) -> ResponseReturnValue:
    """Choose whom the mails of an event kind about a user reach."""
    tenant, kind = workspace(domain), _kind(event_type)
    chosen = request.form.get("audience")
    if not kind.has_user:
        raise NotFound
    if chosen not in AUDIENCES:
        raise BadRequest
    switches.choose_audience(tenant, kind.type, Audience(chosen))
    return _switched(tenant, kind)


@blueprint.post("/notifications/storm")
def save_storm_limits(domain: str) -> ResponseReturnValue:
    """Save after how many mails at once a digest takes their place."""
    tenant = workspace(domain)
    form = StormForm()
    if form.validate():
        storm_limits.save(tenant, *form.entered())
        flash(gettext("The limits are saved."), "success")
        return redirect(url_for("notifications.edit", domain=domain), 303)
    context = _notifications(tenant) | {"storm_form": form}
    return respond("notifications/page.html", "notifications/_storm.html", 422, **context)


def _kind(event_type: str) -> EventKind:
    if event_type not in KINDS:
        raise NotFound
    return KINDS[event_type]


def _switched(tenant: Tenant, kind: EventKind) -> ResponseReturnValue:
    if not request.htmx:
        return redirect(url_for("notifications.edit", domain=tenant.domain), 303)
    return respond("notifications/page.html", "notifications/_kind.html", **_notifications(tenant), kind=kind)


def _notifications(tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "kinds": KINDS.values(),
        "switches": switches.switches(KINDS),
        "audiences": AUDIENCES,
        "addresses": recipients.addresses(),
        "storm_form": StormForm.showing(tenant),
    }
