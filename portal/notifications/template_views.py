"""A tenant's pages of its mail templates: the list, and for each event kind an editor with a live preview.

A mail's HTML is an answer of its own, for a frame without scripts: the pages' policy allows no inline style, and a
mail has little else.
"""

from dataclasses import replace
from typing import Any
from uuid import UUID

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from werkzeug.exceptions import NotFound

from portal import headers
from portal.accounts.access import signed_in
from portal.errors import Refusal
from portal.mail_servers import selection, testing
from portal.mail_servers.views import limit_tests
from portal.notifications import mail_templates, previews, wording
from portal.notifications.forms import TemplateForm
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.mail_templates import InUse
from portal.notifications.meanings import offered
from portal.notifications.models import MailTemplate
from portal.notifications.remarks import remarks
from portal.notifications.rendering import default_template
from portal.notifications.templates import Template
from portal.notifications.unfit import Unfit
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("mail_templates", __name__, url_prefix="/tenants/<domain>/templates")

PAGE, PREVIEW, RESULT = "mail_templates/edit.html", "mail_templates/_preview.html", "mail_servers/_result.html"
# Pictures come from where the author put them, as they will for the mail's reader.
FRAME = headers.of_mail("https: data:") | {"Referrer-Policy": "no-referrer"}
DEFAULT = "default"  # in an address, in place of a version


@blueprint.get("")
def index(domain: str) -> ResponseReturnValue:
    """List the mails of all event kinds."""
    tenant = workspace(domain)
    mails = [(each, _subject(each, tenant)) for each in mail_templates.in_use()]
    return respond("mail_templates/index.html", tenant=tenant, mails=mails)


@blueprint.route("/<event_type>", methods=["GET", "POST"])
def edit(domain: str, event_type: str) -> ResponseReturnValue:
    """Show a kind's template, in the version in use or another one; save a new version."""
    tenant, kind = workspace(domain), _kind(event_type)
    if request.method == "GET":
        return _editor(tenant, kind)
    form = TemplateForm()
    if form.validate():
        saved = mail_templates.save(tenant, kind, form.entered(), form.began_with())
        if isinstance(saved, Refusal):
            return _editor(tenant, kind, form, status=422, refused=saved)
        flash(gettext("The template is saved. The next mail is written with it."), "success")
        return _back(domain, kind)
    return _editor(tenant, kind, form, status=422)


@blueprint.post("/<event_type>/preview")
def preview(domain: str, event_type: str) -> ResponseReturnValue:
    """Show what is in the editor as it will be read."""
    tenant, kind = workspace(domain), _kind(event_type)
    return _editor(tenant, kind, TemplateForm(), PREVIEW)


@blueprint.route("/<event_type>/preview/html", methods=["GET", "POST"])
def html(domain: str, event_type: str) -> ResponseReturnValue:
    """Serve the HTML of what is in the editor, or of a version, for the preview's frame."""
    tenant, kind = workspace(domain), _kind(event_type)
    form = TemplateForm() if request.method == "POST" else _shown(tenant, kind, _version(kind))
    compiled = _compiled(tenant, kind, form)
    if isinstance(compiled, Refusal):
        return "", 422, FRAME
    return previews.of(kind, compiled, tenant).html, FRAME


@blueprint.post("/<event_type>/sample")
@limit_tests
def sample(domain: str, event_type: str) -> ResponseReturnValue:
    """Send what is in the editor to the signed-in account, with the kind's sample."""
    tenant, kind = workspace(domain), _kind(event_type)
    form = TemplateForm()
    result = _send_sample(tenant, kind, form)
    return _editor(tenant, kind, form, RESULT, 422 if form.errors else 200, result=result, tested="sample")


@blueprint.post("/<event_type>/versions/<uuid:version_id>/use")
def use(domain: str, event_type: str, version_id: UUID) -> ResponseReturnValue:
    """Use a version from now on."""
    tenant, kind = workspace(domain), _kind(event_type)
    version = mail_templates.find(kind, version_id)
    if version is None:
        raise NotFound
    mail_templates.use(tenant, kind, version)
    flash(gettext("This version is in use. The next mail is written with it."), "success")
    return _back(domain, kind)


@blueprint.post("/<event_type>/restore")
def restore(domain: str, event_type: str) -> ResponseReturnValue:
    """Use the default from now on."""
    tenant, kind = workspace(domain), _kind(event_type)
    mail_templates.use(tenant, kind, None)
    flash(gettext("The default is in use. Your versions are still here, below."), "success")
    return _back(domain, kind)


def _kind(event_type: str) -> EventKind:
    if event_type not in KINDS:
        raise NotFound
    return KINDS[event_type]


def _back(domain: str, kind: EventKind) -> ResponseReturnValue:
    return redirect(url_for("mail_templates.edit", domain=domain, event_type=kind.type), 303)


def _subject(mail: InUse, tenant: Tenant) -> str:
    template = wording.in_use(mail.version.id if mail.version else None, mail.kind, tenant.locale)
    template = template or default_template(mail.kind, tenant.locale)
    return template.render(previews.sample_values(mail.kind, tenant)).subject


def _version(kind: EventKind) -> MailTemplate | None:
    """Return the version that the address asks for: the one in use without a word, None for the default."""
    asked = request.args.get("version")
    if asked is None:
        return mail_templates.in_use_of(kind)
    if asked == DEFAULT:
        return None
    found = mail_templates.find(kind, _uuid(asked))
    if found is None:
        raise NotFound
    return found


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound from None


def _shown(tenant: Tenant, kind: EventKind, version: MailTemplate | None) -> TemplateForm:
    in_use = mail_templates.in_use_of(kind)
    return TemplateForm.showing(InUse(kind, version).wording(tenant.locale), in_use.id if in_use else None)


def _compiled(tenant: Tenant, kind: EventKind, form: TemplateForm) -> Template | Refusal:
    """Return the form's words compiled, or what is wrong with them."""
    if form.is_submitted() and not form.validate():
        return Refusal("", form.first_error or "")
    try:
        return wording.compiled(kind, form.entered(), tenant.locale)
    except Unfit as unfit:
        return Refusal("body", str(unfit))


def _send_sample(tenant: Tenant, kind: EventKind, form: TemplateForm) -> testing.Result:
    server, compiled = selection.in_force(tenant.id), _compiled(tenant, kind, form)
    if isinstance(compiled, Refusal):
        return testing.Result("failed", gettext("No sample was sent."), compiled.text)
    if server is None:
        return testing.Result("failed", gettext("No sample was sent."), gettext("Set up a mail server first."))
    sample = testing.Sample(*previews.mail(kind, compiled, tenant))
    result = testing.ended(testing.send_saved(tenant, server, [signed_in().email], sample))
    return replace(result, steps=())


def _editor(
    tenant: Tenant,
    kind: EventKind,
    form: TemplateForm | None = None,
    fragment: str | None = None,
    status: int = 200,
    refused: Refusal | None = None,
    **result: object,
) -> ResponseReturnValue:
    version = _version(kind) if form is None else None
    in_use = mail_templates.in_use_of(kind)
    form, is_typed = form or _shown(tenant, kind, version), form is not None
    compiled = _compiled(tenant, kind, form)
    shown = None if isinstance(compiled, Refusal) else previews.of(kind, compiled, tenant)
    if refused:
        form.refuse(refused)
    versions, older = mail_templates.versions(kind, _uuid(request.args["before"]) if "before" in request.args else None)
    context: dict[str, Any] = {
        "tenant": tenant,
        "kind": kind,
        "versions": versions,
        "older": older,
        "form": form,
        "is_typed": is_typed,
        "version": version,
        "in_use": in_use,
        "default_subject": wording.default(kind, tenant.locale).subject,
        "is_other": "version" in request.args and version is not in_use,
        "placeholders": offered(kind, previews.sample_values(kind, tenant)),
        "preview": shown,
        "refusal": compiled if isinstance(compiled, Refusal) else None,
        "remarks": remarks(kind, form.entered()) if shown else (),
        "result": None,
        "tested": "sample",
        **result,
    }
    return respond(PAGE, fragment, status, **context)
