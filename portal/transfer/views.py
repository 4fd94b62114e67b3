"""The system administrator's pages that import tenants, export one, and delete one."""

from typing import Final

from flask import Blueprint, Response, flash, make_response, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, ngettext
from werkzeug.exceptions import NotFound

from portal.accounts.access import require_system_administrator
from portal.accounts.models import Account
from portal.accounts.views import password_confirmed
from portal.audit.labels import FIELD_LABELS
from portal.crypto import UnreadableSecret
from portal.errors import Refusal
from portal.mail_servers import account_email
from portal.people import listing
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.tenants.views import url_of_place
from portal.transfer import csv_import, csv_reader, deletion, tenant_document, tenant_export, tenant_import
from portal.transfer.csv_import import CsvPreview
from portal.transfer.forms import START_AGAIN, ConfirmForm, DeleteForm, ExportForm, ImportForm
from portal.transfer.tenant_document import Document
from portal.transfer.tenant_import import Imported
from portal.web.filters import decimal
from portal.web.responses import respond
from portal.web.slots import Bound, Slots

blueprint = Blueprint("transfer", __name__)
MAX_SHOWN: Final = 100  # changes or bad lines
# A large file takes a process a few seconds.
IMPORTS: Final = Slots(Bound(per_account=1, total=1), waiting=Bound(per_account=1, total=2), max_wait=10)


@blueprint.route("/system/tenants/import", methods=["GET", "POST"])
def new_import() -> ResponseReturnValue:
    """Enter the content of a file, and see what importing it would do."""
    account = require_system_administrator()
    form = ImportForm()
    if not form.validate_on_submit():
        return _import_page(form)
    with IMPORTS.hold(account.id):
        return _preview(form.content, form)


@blueprint.post("/system/tenants/import/confirm")
def confirm() -> ResponseReturnValue:
    """Import what was previewed, unless that would do something else by now."""
    account = require_system_administrator()
    form = ConfirmForm()
    if not form.validate():
        again = ImportForm(formdata=None)
        again.refuse(Refusal("text", str(START_AGAIN)))
        return _import_page(again)
    with IMPORTS.hold(account.id):
        done = _import(form, account)
        if isinstance(done, Refusal):
            return _preview(form.unpacked, ImportForm(formdata=None), refusal=done)
    if done.email_count:
        text = ngettext(
            "%(number)s invitation will be emailed.",
            "%(number)s invitations will be emailed.",
            done.email_count,
            number=decimal(done.email_count),
        )
        flash(text, "info")
    if isinstance(done, CsvPreview):
        counts = {"added": decimal(len(done.added)), "changed": decimal(len(done.changed))}
        flash(gettext("Imported. Tenants added: %(added)s, changed: %(changed)s.", **counts), "success")
        return redirect(url_for("tenants.index"), 303)
    flash(gettext("%(name)s has been imported.", name=done.name), "success")
    for text in done.to_do:
        flash(text, "warning")
    return redirect(url_for("tenants.next_steps", domain=done.domain), 303)


def _import_page(form: ImportForm) -> Response:
    return respond(
        "transfer/import.html",
        None,
        422 if form.errors or form.form_errors else 200,
        form=form,
        columns=list(csv_reader.COLUMNS),
        max_rows=csv_reader.MAX_ROWS,
        max_size=csv_reader.MAX_BYTES // 1000,
        tenants_url=url_of_place(),
    )


def _preview(content: bytes, form: ImportForm, refusal: Refusal | None = None) -> Response:
    """Show what an import would do and, after an attempt, why it was refused."""
    is_document = tenant_document.looks_like_document(content)
    found = tenant_document.read(content) if is_document else csv_import.preview(content)
    tried = tenant_import.preview(found) if isinstance(found, Document) else found
    if isinstance(tried, Refusal):
        form.refuse(tried)
        return _import_page(form)
    confirm_form = ConfirmForm.for_content(content, tried.version if isinstance(tried, CsvPreview) else "")
    if not (isinstance(found, Document) and found.secrets):
        del confirm_form.passphrase
    if refusal:
        confirm_form.refuse(refusal)
    return respond(
        "transfer/document_preview.html" if is_document else "transfer/csv_preview.html",
        None,
        422 if refusal or (isinstance(tried, CsvPreview) and tried.bad) else 200,
        form=confirm_form,
        preview=tried,
        max_shown=MAX_SHOWN,
        field_labels=FIELD_LABELS,
        obstacle=account_email.obstacle(),
        tenants_url=url_of_place(),
    )


def _import(form: ConfirmForm, account: Account) -> CsvPreview | Imported | Refusal:
    if not tenant_document.looks_like_document(form.unpacked):
        return csv_import.apply(form.unpacked, form.version.data or "", by=account)
    found = tenant_document.read(form.unpacked)
    if isinstance(found, Refusal):
        return found
    return tenant_import.apply(found, form.passphrase.data, by=account)


@blueprint.route("/system/tenants/<domain>/export", methods=["GET", "POST"])
def export(domain: str) -> ResponseReturnValue:
    """Download a tenant as a file."""
    page: ResponseReturnValue = _export(_tenant(domain))
    return page


@password_confirmed
def _export(tenant: Tenant) -> ResponseReturnValue:
    form = ExportForm()
    if form.validate_on_submit():
        try:
            content = tenant_document.to_json(tenant_export.export(tenant, form.chosen_passphrase))
        except UnreadableSecret:
            text = gettext(
                "A saved secret cannot be read: its key is missing in ENCRYPTION_KEYS. Leave the secrets out."
            )
            form.refuse(Refusal("secrets", text))
        else:
            return _download(content, f"{tenant.domain}.json")
    status = 422 if form.is_submitted() else 200
    return respond("transfer/export.html", None, status, form=form, exported=tenant, tenants_url=url_of_place())


def _download(content: bytes, filename: str) -> Response:
    response = make_response(content)
    response.mimetype = "application/json"
    response.headers.set("Content-Disposition", "attachment", filename=filename)
    response.cache_control.no_store = True
    return response


@blueprint.route("/system/tenants/<domain>/delete", methods=["GET", "POST"])
def delete(domain: str) -> ResponseReturnValue:
    """Ask for the tenant's name, and delete it with everything that belongs to it."""
    page: ResponseReturnValue = _delete(_tenant(domain))
    return page


@password_confirmed
def _delete(tenant: Tenant) -> ResponseReturnValue:
    if tenant.deletion_requested_at:
        return redirect(url_for("tenants.edit", domain=tenant.domain), 303)
    form = DeleteForm(tenant.name)
    if form.validate_on_submit():
        counts = deletion.request(tenant)
        texts = {"name": tenant.name, "events": decimal(counts.event_count), "emails": decimal(counts.email_count)}
        flash(gettext("%(name)s is being deleted, with %(events)s events and %(emails)s emails.", **texts), "success")
        return redirect(url_of_place(), 303)
    return respond(
        "transfer/delete.html",
        None,
        422 if form.is_submitted() else 200,
        form=form,
        deleted=tenant,
        counts=deletion.count(tenant.id),
        people=[member.account.email for member in listing.members(tenant)],
        tenants_url=url_of_place(),
    )


def _tenant(domain: str) -> Tenant:
    require_system_administrator()
    tenant = tenant_service.find(domain)
    if tenant is None:
        raise NotFound
    return tenant
