"""The system administrator's pages of tenants, and the start page of each account."""

from typing import Any

from flask import Blueprint, Response, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import NotFound

from portal.accounts import kept_forms
from portal.accounts.access import current_account, kept_as, require_system_administrator
from portal.deliveries import recent
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.tenants import service as tenant_service
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.web.responses import respond, wants_fragment

blueprint = Blueprint("tenants", __name__)

WORKSPACE = "workspace"  # in the cookie: the id of the tenant whose workspace was opened last


def respond_in_workspace(
    tenant: Tenant | None, page: str, fragment: str | None = None, /, status: int = 200, **context: Any
) -> Response:
    """Return a page of the tenant's workspace, or the fragment to HTMX: see `respond`. None is the system's workspace.

    A whole page also gets what every page of a tenant's workspace shows around its content: the tenants to switch to,
    the mail server, the last email and the reminder.
    """
    if tenant is None:
        return respond(page, fragment, status, **context)
    if fragment is None or not wants_fragment():
        context = {
            "workspaces": tenant_service.administered_by(current_account()),
            "mail_server_status": context.get("mail_server_status") or mail_server_service.tenant_status(tenant),
            "last_attempt": recent.last_attempt(),
            "shows_reminder": _is_entering(tenant) and mail_server_service.is_reminder_due(tenant, current_account()),
        } | context
    return respond(page, fragment, status, tenant=tenant, **context)


def _is_entering(tenant: Tenant) -> bool:
    """Return whether this is the account's first page since it opened the workspace, and remember that it was."""
    before = session.get(WORKSPACE)
    session[WORKSPACE] = tenant.id
    return bool(before != tenant.id)


@blueprint.get("/")
def home() -> ResponseReturnValue:
    """Redirect to the account's workspace, or list the tenants to choose from."""
    account = current_account()
    if (form_id := kept_forms.find_newest(account)) is not None:  # to be saved or discarded first
        return redirect(url_for("account.kept_form", form_id=form_id))
    if account.is_system_administrator:
        return redirect(url_for("overview.of_system"))
    tenants = tenant_service.administered_by(account)
    if len(tenants) == 1:
        return redirect(url_for("tenants.enter", domain=tenants[0].domain))
    return respond("tenants/choose.html", tenants=tenants)


@blueprint.get("/tenants/<domain>/")
def enter(domain: str) -> ResponseReturnValue:
    """Enter a tenant's workspace at its first page."""
    session.pop(WORKSPACE, None)
    return redirect(url_for("overview.of_tenant", domain=domain))


@blueprint.get("/system/tenants")
def index() -> ResponseReturnValue:
    """List the tenants, all or those that a search finds."""
    require_system_administrator()
    text, after = request.args.get("q", "").strip(), request.args.get("after", "")
    page = tenant_service.search(text, after)
    context: dict[str, Any] = {"tenants": page.rows, "next_key": page.next_key, "q": text, "after": after}
    return respond("tenants/index.html", "tenants/_list.html", **context)


@blueprint.route("/system/tenants/new", methods=["GET", "POST"])
@kept_as(".new")
def new() -> ResponseReturnValue:
    """Add a tenant."""
    require_system_administrator()
    return _edit(None)


@blueprint.route("/system/tenants/<domain>", methods=["GET", "POST"])
@kept_as(".edit")
def edit(domain: str) -> ResponseReturnValue:
    """Edit a tenant."""
    return _edit(_tenant(domain))


def _edit(tenant: Tenant | None) -> ResponseReturnValue:
    form = TenantForm(obj=tenant)
    if form.validate_on_submit():
        values = (form.name.data, form.domain.data, form.time_zone.data, form.realm.data)
        saved = tenant_service.edit(tenant, *values) if tenant else tenant_service.add(*values)
        if not isinstance(saved, Refusal):
            done = gettext("%(name)s has been saved.") if tenant else gettext("%(name)s has been added.")
            flash(done % {"name": saved.name}, "success")
            return redirect(url_for("tenants.index"), 303)
        form.refuse(saved)
    return respond("tenants/edit.html", form=form, edited=tenant, status=422 if form.is_submitted() else 200)


@blueprint.post("/system/tenants/<domain>/suspend")
def suspend(domain: str) -> ResponseReturnValue:
    """Turn a tenant's email off."""
    tenant = _tenant(domain)
    tenant_service.suspend(tenant)
    flash(gettext("%(name)s is suspended. Its events are recorded, but no email is sent.", name=tenant.name), "success")
    return redirect(url_for("tenants.edit", domain=domain), 303)


@blueprint.post("/system/tenants/<domain>/resume")
def resume(domain: str) -> ResponseReturnValue:
    """Turn a suspended tenant's email on again."""
    tenant = _tenant(domain)
    tenant_service.resume(tenant)
    flash(gettext("%(name)s is active again.", name=tenant.name), "success")
    return redirect(url_for("tenants.edit", domain=domain), 303)


def _tenant(domain: str) -> Tenant:
    require_system_administrator()
    tenant = tenant_service.find(domain)
    if tenant is None:
        raise NotFound
    return tenant
