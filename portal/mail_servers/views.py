"""The mail server pages of the system and of a tenant, with test emails, the tenant's recipients and the reminder."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, ngettext
from htmx_flask import request

from portal.accounts import rate_limits
from portal.accounts.access import current_account, kept_as, require_system_administrator
from portal.deliveries import recent
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.forms import MailServerForm, SenderForm, SystemMailServerForm
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.providers import PROVIDERS
from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.test_email import SendTestResult
from portal.mail_servers.suggestion import Suggestion, suggest_provider
from portal.notifications import recipients
from portal.notifications.forms import RecipientsForm
from portal.overview import tenant_list
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web.filters import decimal
from portal.web.forms import PortalForm
from portal.web.responses import flash_result, flash_undo, respond, stream

system = Blueprint("system_mail_server", __name__, url_prefix="/system/mail-server")
tenant_pages = Blueprint("mail_servers", __name__, url_prefix="/tenants/<domain>/mail-server")
BLUEPRINTS = (system, tenant_pages)

Link = tuple[str, str]  # a text and its URL

FORM = "mail_servers/_form.html"
TEST_STEPS = "mail_servers/_test_steps.html"
TEST_RESULT = "mail_servers/_test_result.html"
SUGGESTION = "mail_servers/_suggestion.html"
FILL_IN = "fill_in"  # the button that fills in the chosen provider's settings without JavaScript, or a suggested one's
SUGGEST = "suggest"


@system.route("", methods=["GET", "POST"], endpoint="edit")
@kept_as(".edit")
def edit_system() -> ResponseReturnValue:
    """Show and save the system's mail server, and whether tenants may use it."""
    require_system_administrator()
    if request.method == "GET":
        return _system_page()
    form = SystemMailServerForm()
    if FILL_IN in request.args:
        form.fill_in(request.args[FILL_IN])
        return _system_page(form)
    if SUGGEST in request.args:
        return _system_page(form, SUGGESTION, suggestion=_suggestion(form))
    is_shared = mail_server_service.shared_server() is not None
    stops_email = is_shared and not form.shared.data and tenant_list.count_dependent()
    if form.validate() and _save_server(None, form, shared=form.shared.data or bool(stops_email)):
        if stops_email:  # the rest is saved, and this is asked about
            return redirect(url_for("system_mail_server.stop_sharing"), 303)
        flash(gettext("The mail server is saved."), "success")
        return redirect(url_for("system_mail_server.edit"), 303)
    return _system_page(form, status=422)


@system.route("/stop-sharing", methods=["GET", "POST"])
def stop_sharing() -> ResponseReturnValue:
    """Ask whether to stop sharing the system's mail server, and do it."""
    require_system_administrator()
    if mail_server_service.shared_server() is None:
        return redirect(url_for("system_mail_server.edit"), 303)
    count = tenant_list.count_dependent()
    if request.method == "GET":
        return respond("mail_servers/stop_sharing.html", count=count)
    mail_server_service.share(False)
    text = ngettext(
        "The mail server is no longer shared. %(number)s tenant sends no email.",
        "The mail server is no longer shared. %(number)s tenants send no email.",
        count,
        number=decimal(count),
    )
    flash_undo(text, url_for("system_mail_server.share"))
    return redirect(url_for("system_mail_server.edit"), 303)


@system.post("/share")
def share() -> ResponseReturnValue:
    """Share the system's mail server again."""
    require_system_administrator()
    flash_result(mail_server_service.share(True), gettext("The mail server is shared with all tenants again."))
    return redirect(url_for("system_mail_server.edit"), 303)


@system.post("/test", endpoint="test")
@kept_as(".edit")
def test_system() -> ResponseReturnValue:
    """Send a test email to the account, with the settings in the form."""
    account = require_system_administrator()
    rate_limits.enforce(test_email.RATE_LIMIT, account=account.email)
    form = SystemMailServerForm()
    results = _test_entered_settings(None, form, [account.email])

    def page(result: SendTestResult, link: Link | None) -> ResponseReturnValue:
        return _system_page(form, TEST_RESULT, 422 if form.errors else 200, result=result, link=link)

    return _respond_with_progress(results, page, lambda result: _link_to_follow(result, None, form))


@system.post("/try-now", endpoint="try_now")
def try_system_now() -> ResponseReturnValue:
    """End the pause of the system's mail server."""
    require_system_administrator()
    flash_result(mail_server_service.end_pause(None), gettext("The portal is trying the mail server again."))
    return redirect(url_for("system_mail_server.edit"), 303)


def _system_page(
    form: SystemMailServerForm | None = None,
    fragment: str = FORM,
    status: int = 200,
    *,
    result: SendTestResult | None = None,
    link: Link | None = None,
    suggestion: Suggestion | None = None,
) -> ResponseReturnValue:
    server = mail_server_service.get_server(None)
    return respond(
        "mail_servers/system.html",
        fragment,
        status,
        form=form or SystemMailServerForm.for_server(server, *_chosen_provider()),
        server=server,
        server_status=mail_server_service.server_status(server),
        connection=oauth_service.status(server),
        can_sign_in=oauth_service.can_sign_in(server),
        save_url=url_for("system_mail_server.edit"),
        test_url=url_for("system_mail_server.test"),
        recipient_emails=(),
        result=result,
        link=link,
        suggestion=suggestion,
    )


@tenant_pages.route("", methods=["GET", "POST"])
@kept_as(".edit")
def edit(domain: str) -> ResponseReturnValue:
    """Show which mail server the tenant uses; show and save its own, the recipients and the Reply-To address."""
    tenant = workspace(domain)
    if request.method == "GET":
        return _page(tenant)
    forms = _submitted_forms()
    if FILL_IN in request.args:
        forms["form"].fill_in(request.args[FILL_IN])
        return _page(tenant, **forms)
    if SUGGEST in request.args:
        return _page(tenant, SUGGESTION, suggestion=_suggestion(forms["form"]), **forms)
    if _save_page(tenant, **forms):
        flash(gettext("The settings are saved."), "success")
        return _redirect_to_page(domain)
    return _page(tenant, status=422, **forms)


@tenant_pages.post("/test")
@kept_as(".edit")
def test(domain: str) -> ResponseReturnValue:
    """Send a test email: with the settings in the form, or with the shared mail server if none were entered."""
    rate_limits.enforce(test_email.RATE_LIMIT, account=current_account().email)
    tenant, forms = workspace(domain), _submitted_forms()
    form, (server, shared) = forms["form"], mail_server_service.servers_for(tenant.id)
    if shared and server is None and form.is_untouched:
        results = test_email.send_with_saved_server(tenant, shared, _test_recipients())
    else:
        results = _test_entered_settings(tenant, form, _test_recipients())

    def page(result: SendTestResult, link: Link | None) -> ResponseReturnValue:
        return _page(tenant, TEST_RESULT, 422 if form.errors else 200, result=result, link=link, **forms)

    return _respond_with_progress(results, page, lambda result: _link_to_follow(result, tenant, form))


@tenant_pages.post("/try-now")
def try_now(domain: str) -> ResponseReturnValue:
    """End the pause of the tenant's own mail server."""
    tenant = workspace(domain)
    flash_result(mail_server_service.end_pause(tenant.id), gettext("The portal is trying the mail server again."))
    if not request.htmx:
        return _redirect_to_page(domain)
    status, last = mail_server_service.tenant_status(tenant), recent.last_attempt()
    return _page(tenant, "mail_servers/_status.html", mail_server_status=status, last_attempt=last, focuses_status=True)


@tenant_pages.post("/use-shared")
def use_shared(domain: str) -> ResponseReturnValue:
    """Remove the tenant's own mail server, so that the shared one is used if there is one."""
    tenant = workspace(domain)
    mail_server_service.remove(tenant.id)
    flash(gettext("Your mail server is removed."), "success")
    return _redirect_to_page(domain)


@tenant_pages.post("/reminder")
def close_reminder(domain: str) -> ResponseReturnValue:
    """Close the reminder to set up a mail server: go to its settings, or stay on the page."""
    tenant = workspace(domain)
    if "never" in request.form:
        mail_server_service.dismiss_reminder(tenant, current_account())
    if "settings" in request.form:
        return _redirect_to_page(domain)
    if request.htmx:
        return ""
    return redirect(url_for("deliveries.log", domain=domain), 303)


def _chosen_provider() -> tuple[str | None, str | None]:
    """Return the provider whose settings to show, and the chosen one of its hosts."""
    return request.args.get("provider"), request.args.get("provider_host")


def _suggestion(form: MailServerForm) -> Suggestion | None:
    """Return the provider of the entered username or sender email, while no provider is chosen."""
    if form.chosen_provider != PROVIDERS["smtp"]:
        return None
    found = suggest_provider(current_account(), [form.username.data, form.sender_email.data])
    return None if found and found.host == form.host.data else found


def _submitted_forms() -> dict[str, Any]:
    """Return the forms of the tenant's page, which are one form in the browser."""
    return {"form": MailServerForm(), "recipients_form": RecipientsForm(), "sender_form": SenderForm()}


def _save_page(tenant: Tenant, form: MailServerForm, recipients_form: RecipientsForm, sender_form: SenderForm) -> bool:
    """Save what was submitted, and return whether all of it was. Otherwise the forms say why not."""
    forms: list[PortalForm] = [recipients_form, sender_form]
    server, shared = mail_server_service.servers_for(tenant.id)
    is_needed = recipients_form.is_empty and shared is None
    saves_server = server is not None or is_needed or not form.is_untouched
    if saves_server:
        forms.append(form)
    invalid = [entered for entered in forms if not entered.validate()]  # all of them: each shows its errors
    if invalid:
        return False
    if saves_server and not _save_server(tenant.id, form):
        return False
    if recipients_form.parsed:
        refusal = recipients.replace(tenant, recipients_form.parsed, recipients_form.recipients_based_on.data)
        if refusal:
            recipients_form.refuse(refusal)
            recipients_form.recipients_based_on.data = recipients.version(recipients.list_emails())
    refusal = mail_server_service.save_sender(tenant, sender_form.reply_to.data, sender_form.reply_to_based_on.data)
    if refusal:
        sender_form.refuse(refusal)
        sender_form.reply_to_based_on.data = tenant.reply_to or ""
    return not recipients_form.errors and not sender_form.errors


def _save_server(owner: int | None, form: MailServerForm, shared: bool | None = None) -> bool:
    based_on = form.server_based_on.data
    saved = mail_server_service.save(owner, form.entered_settings(), shared=shared, based_on=based_on)
    if isinstance(saved, Refusal):
        form.refuse(saved)
        if form.server_based_on.errors:  # saving once more is then meant
            form.server_based_on.data = mail_server_service.version(mail_server_service.get_server(owner))
    return not isinstance(saved, Refusal)


def _page(tenant: Tenant, fragment: str = FORM, status: int = 200, **context: object) -> ResponseReturnValue:
    servers, recipient_emails = mail_server_service.servers_for(tenant.id), recipients.list_emails()
    server = servers.own
    context = {
        "server": server,
        "shared": servers.shared,
        "mail_server_status": mail_server_service.server_status(servers.effective),
        "connection": oauth_service.status(server),
        "can_sign_in": oauth_service.can_sign_in(server),
        "recipient_emails": recipient_emails,
        "save_url": url_for("mail_servers.edit", domain=tenant.domain),
        "test_url": url_for("mail_servers.test", domain=tenant.domain),
        "form": context.get("form") or MailServerForm.for_server(server, *_chosen_provider()),
        "recipients_form": RecipientsForm.showing(recipient_emails),
        "sender_form": SenderForm.showing(tenant),
        "tests_recipients": _tests_recipients(),
        "result": None,
        "link": None,
        "suggestion": None,
        **context,
    }
    return respond_in_workspace(tenant, "mail_servers/tenant.html", fragment, status, **context)


def _redirect_to_page(domain: str) -> ResponseReturnValue:
    return redirect(url_for("mail_servers.edit", domain=domain), 303)


def _test_recipients() -> list[str]:
    """Return whom a test email goes to: the tenant's recipients if chosen, else the account itself."""
    emails = recipients.list_emails() if _tests_recipients() else ()
    return list(emails) or [current_account().email]


def _tests_recipients() -> bool:
    return bool(request.form.get("to") == "recipients")


def _link_to_follow(result: SendTestResult, tenant: Tenant | None, form: MailServerForm) -> Link | None:
    """Return the link to where the advice can be followed: the provider's page, the connection, or a field."""
    if result.url:
        return gettext("Open %(site)s", site=urlsplit(result.url).hostname), result.url
    if result.field == "connection":
        url = url_for("oauth.show", domain=tenant.domain) if tenant else url_for("system_oauth.show")
        return gettext("Connect the mailbox"), url
    if result.field == "recipients" and tenant and _tests_recipients():
        return gettext("Go to “%(field)s”", field=gettext("Emails of Recipients")), "#recipients"
    if result.field in form:
        return gettext("Go to “%(field)s”", field=form[result.field].label.text), f"#{result.field}"
    return None


def _test_entered_settings(tenant: Tenant | None, form: MailServerForm, to: Sequence[str]) -> Iterator[SendTestResult]:
    """Send a test email with the settings in the form. Errors in the form are the result, and stay in its fields."""
    if form.validate():
        results = test_email.send_with_entered_settings(tenant, form.entered_settings(), to)
        if not isinstance(results, Refusal):
            return results
        form.refuse(results)
    wrong = next((field.name for field in form if field.errors), "")
    return iter([SendTestResult("failed", gettext("No test email was sent."), form.first_error or "", field=wrong)])


def _respond_with_progress(
    results: Iterator[SendTestResult],
    page: Callable[[SendTestResult, Link | None], ResponseReturnValue],
    link: Callable[[SendTestResult], Link | None],
) -> ResponseReturnValue:
    """Stream the progress of a test email to HTMX; otherwise wait for the result and return the page with it."""
    first = next(results)  # an error before the first step is answered like any other
    results = chain([first], results)
    if first.state != "running" or not request.htmx:
        result = test_email.final_result(results)
        return page(result, link(result))
    fragments = {True: TEST_STEPS, False: TEST_RESULT}
    return stream(
        render_template(fragments[result.state == "running"], result=result, link=link(result)) for result in results
    )
