"""The system administrator's pages of tenants, and the start page of each account."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flask import Blueprint, Response, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import BadRequest, NotFound

from portal.accounts import kept_forms
from portal.accounts.access import current_account, kept_as, require_system_administrator
from portal.accounts.models import Account
from portal.database.scope import enter_scope
from portal.deliveries import recent
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.overview import checklist, tenant_list
from portal.overview.forms import COLUMN_LABELS, HEALTH_LABELS, TenantFilterForm
from portal.overview.tenant_list import ListedTenant, TenantList
from portal.tenants import service as tenant_service
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.web import csv_export, pagination
from portal.web.i18n import current_language
from portal.web.pagination import Page
from portal.web.responses import flash_result, flash_undo, respond, wants_fragment

blueprint = Blueprint("tenants", __name__)

# In the cookie:
WORKSPACE = "workspace"  # the id of the tenant whose workspace was opened last
PLACE = "tenants"  # the filters, the order and the page of the list of tenants that was seen last


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
            "workspaces": _workspaces(tenant, current_account()),
            "mail_server_status": context.get("mail_server_status") or mail_server_service.tenant_status(tenant),
            "last_attempt": recent.last_attempt(),
            "tenants_url": url_of_place(),
            "shows_reminder": _is_entering(tenant)
            and current_account().administers(tenant.id)
            and mail_server_service.is_reminder_due(tenant, current_account()),
        } | context
    return respond(page, fragment, status, tenant=tenant, **context)


def _workspaces(tenant: Tenant, account: Account) -> Sequence[Tenant]:
    """Return the tenants between which the account can switch. Most administer one: that costs no query."""
    return tenant_service.tenants_of(account) if len(account.memberships) > 1 else [tenant]


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
    tenants = tenant_service.tenants_of(account)
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
    """List the tenants that match the filters in the URL."""
    require_system_administrator()
    form, after = TenantFilterForm(formdata=request.args, meta={"csrf": False}), request.args.get("after", "")
    is_valid, count = form.validate(), 0
    page: Page[ListedTenant, str] = Page(())
    tenants = TenantList(form.filters(), form.sort.data) if is_valid else None
    if tenants is not None:
        page, count = tenants.page(after, size=pagination.PAGE_SIZE), tenants.count(most=tenant_list.MAX_COUNTED + 1)
        _remember_place({**_filters(form), "after": after} if after else _filters(form))
    context: dict[str, Any] = {
        "form": form,
        "page": page,
        "count": count,
        "number": tenant_list.capped(count, tenant_list.MAX_COUNTED),
        "after": after,
        "list_url": partial(_list_url, _filters(form)),
        "csv_url": url_for("tenants.csv", **_filters(form)),
        "columns": COLUMN_LABELS,
        "health_labels": HEALTH_LABELS,
        "is_filtered": bool(set(_filters(form)) - {"sort"}),
        "is_valid": is_valid,
    }
    response = respond("tenants/index.html", "tenants/_list.html", 200 if is_valid else 422, **context)
    response.headers["HX-Replace-Url"] = url_for("tenants.index", **_filters(form))
    return response


@blueprint.get("/system/tenants.csv")
def csv() -> ResponseReturnValue:
    """Download the tenants that match the filters in the URL."""
    require_system_administrator()
    form = TenantFilterForm(formdata=request.args, meta={"csrf": False})
    if not form.validate():
        raise BadRequest
    columns, tenants = tuple(tenant_list.CSV_COLUMNS), TenantList(form.filters(), form.sort.data)
    return csv_export.download(current_account().id, "tenants.csv", columns, tenants.read_cells)


def _filters(form: TenantFilterForm) -> dict[str, Any]:
    """Return the filters and the order in the URL."""
    return {name: value for name, value in request.args.items() if value and name in form}


def _list_url(filters: Mapping[str, Any], **changes: Any) -> str:
    """Return the URL of the list with these filters and changes; its first page unless the changes say otherwise."""
    return url_for("tenants.index", **{**filters, **changes})


def _remember_place(place: Mapping[str, Any]) -> None:
    """Remember which tenants are listed, for the link that leads back to them."""
    if session.get(PLACE) != place:
        session[PLACE] = place


def url_of_place() -> str:
    """Return the URL of the list of tenants as it was seen last."""
    return url_for("tenants.index", **session.get(PLACE, {}))


@blueprint.route("/system/tenants/new", methods=["GET", "POST"])
@kept_as(".new")
def new() -> ResponseReturnValue:
    """Add a tenant."""
    require_system_administrator()
    form = TenantForm()
    if request.method == "GET":
        form.time_zone.data, form.language.data = tenant_service.newest_time_zone(), current_language()
    if form.validate_on_submit():
        values = (form.name.data, form.domain.data, form.time_zone.data, form.realm.data, form.language.data)
        added = tenant_service.add(*values)
        if not isinstance(added, Refusal):
            flash(gettext("%(name)s has been added.", name=added.name), "success")
            return redirect(url_for("tenants.next_steps", domain=added.domain), 303)
        form.refuse(added)
    status = 422 if form.is_submitted() else 200
    return respond("tenants/edit.html", form=form, edited=None, tenants_url=url_of_place(), status=status)


@blueprint.get("/system/tenants/<domain>/next-steps")
def next_steps(domain: str) -> ResponseReturnValue:
    """Show what is left to do until a new tenant's events are emailed."""
    tenant = _tenant(domain)
    enter_scope(tenant.id)
    administrators = tenant_list.administrators_of([tenant.id])[tenant.id]
    steps = [
        checklist.administrator_step(administrators),
        *checklist.all_steps(checklist.tenant_setup(tenant)),
    ]
    return respond("tenants/next_steps.html", added=tenant, steps=steps, tenants_url=url_of_place())


@blueprint.route("/system/tenants/<domain>", methods=["GET", "POST"])
@kept_as(".edit")
def edit(domain: str) -> ResponseReturnValue:
    """Edit a tenant."""
    tenant = _tenant(domain)
    form = TenantForm(obj=tenant)
    del form.language  # which the tenant chooses
    if form.validate_on_submit():
        values = (form.name.data, form.domain.data, form.time_zone.data, form.realm.data)
        saved = tenant_service.edit(tenant, *values)
        if not isinstance(saved, Refusal):
            flash(gettext("%(name)s has been saved.", name=saved.name), "success")
            return redirect(url_of_place(), 303)
        form.refuse(saved)
    status = 422 if form.is_submitted() else 200
    return respond("tenants/edit.html", form=form, edited=tenant, tenants_url=url_of_place(), status=status)


@blueprint.route("/system/tenants/<domain>/suspend", methods=["GET", "POST"])
def suspend(domain: str) -> ResponseReturnValue:
    """Ask whether to turn a tenant's email off, and do it."""
    tenant = _tenant(domain)
    if request.method == "GET":
        enter_scope(tenant.id)
        listed, setup = tenant_list.load([tenant.id])[0], checklist.tenant_setup(tenant)
        return respond("tenants/suspend.html", suspended=tenant, listed=listed, events_on=setup.events_on)
    tenant_service.suspend(tenant)
    text = gettext("%(name)s is suspended. Its events are recorded, but no email is sent.", name=tenant.name)
    flash_undo(text, url_for("tenants.resume", domain=domain))
    return redirect(url_for("tenants.edit", domain=domain), 303)


@blueprint.post("/system/tenants/<domain>/resume")
def resume(domain: str) -> ResponseReturnValue:
    """Turn a suspended tenant's email on again."""
    tenant = _tenant(domain)
    flash_result(tenant_service.resume(tenant), gettext("%(name)s is active again.", name=tenant.name))
    return redirect(url_for("tenants.edit", domain=domain), 303)


def _tenant(domain: str) -> Tenant:
    require_system_administrator()
    tenant = tenant_service.find(domain)
    if tenant is None:
        raise NotFound
    return tenant
