"""The system administrator's mail server, and the pop-up where a tenant has none.

The tenant's page of the mail server also holds its recipients, so it stands in `notifications/views.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_security import current_user
from htmx_flask import request
from werkzeug.exceptions import NotFound

from portal.accounts.access import signed_in, system_administrator
from portal.errors import Refusal
from portal.extensions import limiter
from portal.mail_servers import pause, reminder, settings, status, testing
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.selection import of_owner
from portal.tenants.models import Tenant
from portal.tenants.views import is_entering
from portal.tenants.workspace import workspace
from portal.ui import respond, stream

system = Blueprint("system_mail_server", __name__, url_prefix="/system/mail-server")
reminders = Blueprint("reminders", __name__)
BLUEPRINTS = (system, reminders)
RESULT = "mail_servers/_result.html"

system.add_app_template_global(status.of_tenant, "mail_server_status")

# A test e-mail must not become a mail bomb.
limit_tests = limiter.shared_limit(
    "10 per minute; 30 per hour", scope="test e-mail", key_func=lambda: str(current_user.get_id())
)


@system.route("", methods=["GET", "POST"])
def edit() -> ResponseReturnValue:
    """Show and save the system's mail server."""
    system_administrator()
    if request.method == "GET":
        return _page(MailServerForm.showing(of_owner(None), request.args.get("provider")))
    form = MailServerForm()
    if form.validate():
        saved = settings.save(None, form.entered())
        if not isinstance(saved, Refusal):
            flash(gettext("The mail server is saved."), "success")
            return redirect(url_for("system_mail_server.edit"), 303)
        form.refuse(saved)
    return _page(form, status=422)


@system.post("/test")
@limit_tests
def test() -> ResponseReturnValue:
    """Send a test e-mail to the account with the values in the form."""
    account = system_administrator()
    form = MailServerForm()
    talk = try_out(None, form, [account.email])
    return tell(talk, "own", lambda result: _page(form, RESULT, 422 if form.errors else 200, result=result))


@system.post("/share")
def share() -> ResponseReturnValue:
    """Apply the system's mail server settings to all tenants, or to none."""
    system_administrator()
    shared = settings.share("enabled" in request.form)
    if isinstance(shared, Refusal):
        flash(shared.text, "error")
    if not request.htmx:
        return redirect(url_for("system_mail_server.edit"), 303)
    return respond("mail_servers/system.html", "mail_servers/_share.html", server=of_owner(None))


@system.post("/try-now")
def try_now() -> ResponseReturnValue:
    """Try the system's mail server again before its pause is over."""
    system_administrator()
    try_now_of(None)
    return redirect(url_for("system_mail_server.edit"), 303)


def try_now_of(owner: int | None) -> None:
    """Lift the pause of a tenant's own mail server, or of the system's for None, and tell so."""
    server = of_owner(owner)
    if server is None:
        raise NotFound
    pause.lift(owner)
    if server.rejected_at:
        flash(gettext("The mail server rejects its settings. Check them, then save them again."), "error")
    else:
        flash(gettext("The mail server is tried again now."), "success")


def try_out(tenant: Tenant | None, form: MailServerForm, to: Sequence[str]) -> Iterator[testing.Result]:
    """Return how a test e-mail with the values in the form goes; what is wrong with them also stands at the fields."""
    if form.validate():
        talk = testing.send_entered(tenant, form.entered(), to)
        if not isinstance(talk, Refusal):
            return talk
        form.refuse(talk)
    return iter([testing.Result("failed", gettext("No test e-mail was sent."), form.first_error or "")])


def tell(
    talk: Iterator[testing.Result], tested: str, page: Callable[[testing.Result], ResponseReturnValue]
) -> ResponseReturnValue:
    """Answer HTMX while the test e-mail goes, step by step; everybody else, with the page, when that is over."""
    first = next(talk)  # what goes wrong before there is anything to tell is an error like any other
    results = chain([first], talk)
    if first.kind != "running" or not request.htmx:
        return page(testing.ended(results))
    pieces = {True: "mail_servers/_steps.html", False: RESULT}
    return stream(render_template(pieces[each.kind == "running"], result=each, tested=tested) for each in results)


def _page(
    form: MailServerForm, fragment: str = "mail_servers/_form.html", status: int = 200, **context: object
) -> ResponseReturnValue:
    server = of_owner(None)
    context = {
        "server": server,
        "paused_until": pause.paused_until(server) if server else None,
        "reason": pause.why(server) if server else "",
        "save_url": url_for("system_mail_server.edit"),
        "test_url": url_for("system_mail_server.test"),
        "can_remove": False,
        "addresses": (),
        "tested": "own",
        "result": None,
        **context,
    }
    return respond("mail_servers/system.html", fragment, status, form=form, **context)


@reminders.app_template_global()
def reminder_is_due(tenant: Tenant) -> bool:
    """Return whether the page is to show the pop-up: on the first page after entering the workspace."""
    return is_entering(tenant) and reminder.is_due(tenant, signed_in())


@reminders.post("/tenants/<domain>/mail-server/reminder")
def close(domain: str) -> ResponseReturnValue:
    """Close the pop-up: go to the settings, or back to work."""
    tenant = workspace(domain)
    if "never" in request.form:
        reminder.dismiss(tenant, signed_in())
    if "settings" in request.form:
        return redirect(url_for("mail_servers.edit", domain=domain), 303)
    if request.htmx:
        return ""
    return redirect(url_for("deliveries.log", domain=domain), 303)
