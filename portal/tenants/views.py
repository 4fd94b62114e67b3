"""The system administrator's pages of tenants, and the way into a workspace."""

from collections.abc import Sequence

from flask import Blueprint, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import NotFound

from portal.accounts.access import signed_in, system_administrator
from portal.errors import Refusal
from portal.tenants import directory
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.ui import respond

blueprint = Blueprint("tenants", __name__)

WORKSPACE = "workspace"  # in the session: the tenant in whose workspace one is


def is_entering(tenant: Tenant) -> bool:
    """Return whether this is the first page of the tenant's workspace since one came in, and note that it was."""
    before = session.get(WORKSPACE)
    session[WORKSPACE] = tenant.id
    return bool(before != tenant.id)


@blueprint.get("/")
def home() -> ResponseReturnValue:
    """Lead an account to where its work is."""
    account = signed_in()
    if account.is_system_administrator:
        return redirect(url_for("overview.of_system"))
    tenants = directory.administered_by(account)
    if len(tenants) == 1:
        return redirect(url_for("tenants.enter", domain=tenants[0].domain))
    return respond("tenants/choose.html", tenants=tenants)


@blueprint.get("/tenants/<domain>/")
def enter(domain: str) -> ResponseReturnValue:
    """Open a tenant's workspace at its first page."""
    session.pop(WORKSPACE, None)
    return redirect(url_for("overview.of_tenant", domain=domain))


@blueprint.get("/system/tenants")
def index() -> ResponseReturnValue:
    """List the tenants, narrowed by a search."""
    system_administrator()
    text, after = request.args.get("q", "").strip(), request.args.get("after", "")
    tenants, more = directory.search(text, after)
    return respond("tenants/index.html", "tenants/_list.html", tenants=tenants, more=more, q=text, after=after)


@blueprint.route("/system/tenants/new", methods=["GET", "POST"])
def new() -> ResponseReturnValue:
    """Add a tenant."""
    system_administrator()
    form = TenantForm()
    if form.validate_on_submit():
        added = directory.add(form.name.data, form.domain.data, form.time_zone.data)
        if isinstance(added, Tenant):
            flash(gettext("%(name)s is added.", name=added.name), "success")
            return redirect(url_for("tenants.index"), 303)
        form.refuse(added)
    return respond("tenants/edit.html", form=form, edited=None, status=422 if form.is_submitted() else 200)


@blueprint.route("/system/tenants/<domain>", methods=["GET", "POST"])
def edit(domain: str) -> ResponseReturnValue:
    """Edit a tenant."""
    tenant = _tenant(domain)
    form = TenantForm(obj=tenant)
    if form.validate_on_submit():
        saved = directory.edit(tenant, form.name.data, form.domain.data, form.time_zone.data)
        if not isinstance(saved, Refusal):
            flash(gettext("%(name)s is saved.", name=saved.name), "success")
            return redirect(url_for("tenants.index"), 303)
        form.refuse(saved)
    return respond("tenants/edit.html", form=form, edited=tenant, status=422 if form.is_submitted() else 200)


@blueprint.post("/system/tenants/<domain>/suspend")
def suspend(domain: str) -> ResponseReturnValue:
    """Stop a tenant's mails."""
    tenant = _tenant(domain)
    directory.suspend(tenant)
    flash(gettext("%(name)s is suspended. Its events are recorded, and no mail is sent.", name=tenant.name), "success")
    return redirect(url_for("tenants.edit", domain=domain), 303)


@blueprint.post("/system/tenants/<domain>/resume")
def resume(domain: str) -> ResponseReturnValue:
    """Let a suspended tenant's events send mail again."""
    tenant = _tenant(domain)
    directory.resume(tenant)
    flash(gettext("%(name)s is active again.", name=tenant.name), "success")
    return redirect(url_for("tenants.edit", domain=domain), 303)


@blueprint.app_template_global("workspaces")
def workspaces() -> Sequence[Tenant]:
    """Return the tenants between which the account may switch."""
    return directory.administered_by(signed_in())


def _tenant(domain: str) -> Tenant:
    system_administrator()
    tenant = directory.find(domain)
    if tenant is None:
        raise NotFound
    return tenant
