"""A tenant's pages of its email templates, each with an editor and a live preview, and the page of its branding.

The HTML of an email is a separate response, shown in a frame without scripts: the pages' content security policy
allows no inline styles, of which emails are full.
"""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from uuid import UUID

from flask import Blueprint, abort, current_app, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.exceptions import NotFound

from portal.accounts import rate_limits
from portal.accounts.access import current_account, kept_as
from portal.errors import Refusal
from portal.events.event_type import EventType
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.mime import MessageContent
from portal.mail_templates import versions as template_versions
from portal.mail_templates.branding import DEFAULT_COLOUR, Branding, save_branding
from portal.mail_templates.compiler import CompiledTemplate, default_template
from portal.mail_templates.forms import BrandingForm, TemplateForm
from portal.mail_templates.lint import template_warnings, unknown_in, unknown_warnings
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.placeholders import MailContext, placeholder_help
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.preview import PREVIEWS, render_preview, sample_image_url, sample_message, sample_values
from portal.mail_templates.source import check_source, compiled_version, default_source
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace
from portal.web import security_headers

templates = Blueprint("mail_templates", __name__, url_prefix="/tenants/<domain>/templates")
branding = Blueprint("branding", __name__, url_prefix="/tenants/<domain>/appearance")
BLUEPRINTS = (templates, branding)

PAGE, PREVIEW, RESULT = "mail_templates/edit.html", "mail_templates/_preview.html", "mail_servers/_test_result.html"
# Images are loaded from where the author put them, as they will be by the email's reader.
FRAME_HEADERS = security_headers.email_headers("https: data:") | {"Referrer-Policy": "no-referrer"}
DEFAULT_VERSION = "default"  # in a URL, in place of a version's id

BRANDING_FIELDS = ("sender_name", "colour", "footer", "language")
FIRST_EVENT_TYPE = "queue.call_lost"  # in the preview of the branding


@templates.get("")
def index(domain: str) -> ResponseReturnValue:
    """List the templates of all event types."""
    tenant, current = workspace(domain), template_versions.current_versions()
    rows = [
        (event_type, current.get(event_type.type), _sample_subject(tenant, event_type, current.get(event_type.type)))
        for event_type in EVENT_TYPES.values()
    ]
    return respond_in_workspace(tenant, "mail_templates/index.html", templates=rows)


@templates.route("/<type_name>", methods=["GET", "POST"])
@kept_as(".edit")
def edit(domain: str, type_name: str) -> ResponseReturnValue:
    """Show the template of an event type, in the version in use or another one; save a new version."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    if request.method == "GET":
        return _editor(tenant, event_type)
    form = TemplateForm()
    if form.validate() and form.confirms(unknown_in(event_type, form.entered())):
        with PREVIEWS.hold(current_account().id):
            saved = template_versions.save_version(tenant, event_type, form.entered(), form.based_on_version())
        if isinstance(saved, Refusal):
            return _editor(tenant, event_type, form, status=422, refusal=saved)
        flash(gettext("The template is saved and will be used from the next email."), "success")
        return _back_to_editor(domain, event_type)
    return _editor(tenant, event_type, form, status=422)


@templates.post("/<type_name>/preview")
@kept_as(".edit")
def preview(domain: str, type_name: str) -> ResponseReturnValue:
    """Show a preview of what is in the editor."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    return _editor(tenant, event_type, TemplateForm(), PREVIEW)


@templates.route("/<type_name>/preview/html", methods=["GET", "POST"])
@kept_as(".edit")
def html(domain: str, type_name: str) -> ResponseReturnValue:
    """Serve the HTML of what is in the editor, or of a version, for the preview's frame."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    is_typed = request.method == "POST"
    form = TemplateForm() if is_typed else _form_showing(tenant, event_type, _requested_version(event_type))
    with PREVIEWS.hold(current_account().id):
        compiled = _compile_form(tenant, event_type, form)
        if isinstance(compiled, Refusal):
            return "", 422, FRAME_HEADERS
        return render_preview(event_type, compiled, tenant).html, FRAME_HEADERS


@templates.post("/<type_name>/sample")
@kept_as(".edit")
def sample(domain: str, type_name: str) -> ResponseReturnValue:
    """Send what is in the editor, with the event type's sample, to the signed-in account."""
    rate_limits.enforce(test_email.RATE_LIMIT, account=current_account().email)
    tenant, event_type = workspace(domain), _event_type(type_name)
    form = TemplateForm()
    result = _send_sample(tenant, event_type, form)
    settings = gettext("Mail Server"), url_for("mail_servers.edit", domain=domain)
    link = settings if result.field and not form.errors else None
    return _editor(tenant, event_type, form, RESULT, 422 if form.errors else 200, result=result, link=link)


@templates.post("/<type_name>/versions/<uuid:version_id>/use")
def use(domain: str, type_name: str, version_id: UUID) -> ResponseReturnValue:
    """Use a version from now on."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    version = template_versions.find_version(event_type, version_id) or abort(404)
    template_versions.use_version(tenant, event_type, version)
    flash(gettext("This version is now in use."), "success")
    return _back_to_editor(domain, event_type)


@templates.post("/<type_name>/restore")
def restore(domain: str, type_name: str) -> ResponseReturnValue:
    """Use the default from now on."""
    tenant, event_type = workspace(domain), _event_type(type_name)
    template_versions.use_version(tenant, event_type, None)
    flash(gettext("The default is now in use. Your own versions are kept in the list below."), "success")
    return _back_to_editor(domain, event_type)


def _event_type(type_name: str) -> EventType:
    return EVENT_TYPES.get(type_name) or abort(404)


def _back_to_editor(domain: str, event_type: EventType) -> ResponseReturnValue:
    return redirect(url_for("mail_templates.edit", domain=domain, type_name=event_type.type), 303)


def _sample_subject(tenant: Tenant, event_type: EventType, version: MailTemplate | None) -> str:
    """Return the subject of the email with the event type's sample."""
    template = compiled_version(tenant.id, version.id if version else None, event_type, tenant.language)
    template = template or default_template(event_type, tenant.language)
    return template.render(sample_values(event_type, MailContext.for_tenant(tenant))).subject


def _requested_version(event_type: EventType) -> MailTemplate | None:
    """Return the version that the URL asks for; None means the default. Without a parameter it is the one in use."""
    requested = request.args.get("version")
    if requested is None:
        return template_versions.current_version(event_type)
    if requested == DEFAULT_VERSION:
        return None
    return template_versions.find_version(event_type, _uuid(requested)) or abort(404)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound from None


def _form_showing(tenant: Tenant, event_type: EventType, version: MailTemplate | None) -> TemplateForm:
    in_use = template_versions.current_version(event_type)
    source = template_versions.source_of(event_type, version, tenant.language)
    return TemplateForm.showing(source, in_use.id if in_use else None)


def _compile_form(tenant: Tenant, event_type: EventType, form: TemplateForm) -> CompiledTemplate | Refusal:
    """Return the compiled template in the form, or what is wrong with it."""
    if form.is_submitted() and not form.validate():
        return Refusal("", form.first_error or "")
    try:
        return check_source(event_type, form.entered(), tenant.language)
    except MisplacedPlaceholder as error:
        return Refusal("body", str(error))


def _send_sample(tenant: Tenant, event_type: EventType, form: TemplateForm) -> test_email.SendTestResult:
    server = mail_server_service.effective_server(tenant.id)
    with PREVIEWS.hold(current_account().id):
        compiled = _compile_form(tenant, event_type, form)
    if isinstance(compiled, Refusal) or server is None:
        reason = compiled.text if isinstance(compiled, Refusal) else gettext("Set up a mail server first.")
        return test_email.SendTestResult("failed", gettext("The sample was not sent."), reason)
    sample = sample_message(event_type, compiled, tenant)
    results = test_email.send_with_saved_server(tenant, server, [current_account().email], sample)
    return replace(test_email.final_result(results), steps=())


def _editor(
    tenant: Tenant,
    event_type: EventType,
    form: TemplateForm | None = None,
    fragment: str | None = None,
    status: int = 200,
    refusal: Refusal | None = None,
    **result: object,
) -> ResponseReturnValue:
    version = _requested_version(event_type) if form is None else None
    in_use = template_versions.current_version(event_type)
    form, is_typed = form or _form_showing(tenant, event_type, version), form is not None
    before = _uuid(request.args["before"]) if "before" in request.args else None
    versions, has_older = template_versions.list_versions(event_type, before)
    shown, error, warnings = None, None, list[str]()
    with PREVIEWS.hold(current_account().id):
        compiled = _compile_form(tenant, event_type, form)
        if isinstance(compiled, Refusal):
            error, form.accepted.data = compiled.text, ""
            refusal = refusal or (compiled if status == HTTPStatus.UNPROCESSABLE_ENTITY and not form.errors else None)
        else:
            shown, warnings = (
                render_preview(event_type, compiled, tenant),
                template_warnings(event_type, form.entered()),
            )
    if refusal:
        form.refuse(refusal)
    context: dict[str, Any] = {
        "event_type": event_type,
        "versions": versions,
        "has_older": has_older,
        "form": form,
        "is_typed": is_typed,
        "version": version,
        "in_use": in_use,
        "default_subject": default_source(event_type, tenant.language).subject,
        "is_other_version": "version" in request.args and version is not in_use,
        "placeholders": placeholder_help(event_type, sample_values(event_type, MailContext.for_tenant(tenant))),
        "preview": shown,
        "error": error,
        "warnings": warnings,
        "result": None,
        "link": None,
        "unconfirmed": unknown_warnings(event_type, form.entered()) if form.accepted.data and not error else [],
        **result,
    }
    return respond_in_workspace(tenant, PAGE, fragment, status, **context)


@branding.route("", methods=["GET", "POST"], endpoint="edit")
@kept_as(".edit")
def edit_branding(domain: str) -> ResponseReturnValue:
    """Show and save the tenant's branding."""
    tenant = workspace(domain)
    if request.method == "GET":
        return _branding_page(tenant, BrandingForm.showing(tenant))
    form = BrandingForm()
    if form.validate():
        save_branding(tenant, form.sender_name.data, form.colour.data, form.footer.data, form.language.data)
        flash(gettext("The appearance is saved."), "success")
        return redirect(url_for("branding.edit", domain=domain), 303)
    return _branding_page(tenant, form, 422)


@branding.post("/preview", endpoint="preview")
@kept_as(".edit")
def preview_branding(domain: str) -> ResponseReturnValue:
    """Show an email with the branding in the form, without saving it."""
    tenant, form = workspace(domain), BrandingForm()
    if "default_colour" in request.form:
        form.colour.data = DEFAULT_COLOUR
    is_rejected = not form.validate() and not request.htmx
    return _branding_page(tenant, form, 422 if is_rejected else 200)


@branding.get("/email/<settings>", endpoint="email")
def branded_email(domain: str, settings: str) -> ResponseReturnValue:
    """Serve the email in the preview's frame. Its settings are in the URL, signed by the page with the preview."""
    tenant = workspace(domain)
    try:
        content = _branded_sample(tenant, _signer(tenant).loads(settings))
    except BadSignature:
        raise NotFound from None
    return content.html, security_headers.email_headers("'self' data:")


def _branding_page(tenant: Tenant, form: BrandingForm, status: int = 200) -> ResponseReturnValue:
    type_name = request.form.get("event_type", FIRST_EVENT_TYPE)
    type_name = type_name if type_name in ALL_EVENT_TYPES else FIRST_EVENT_TYPE
    settings = {**_valid_branding(tenant, form), "event_type": type_name}
    return respond_in_workspace(
        tenant,
        "mail_templates/branding.html",
        "mail_templates/_branding_preview.html",
        status,
        form=form,
        default_colour=DEFAULT_COLOUR,
        event_types=ALL_EVENT_TYPES.values(),
        selected_type=type_name,
        subject=_branded_sample(tenant, settings).subject,
        email_url=url_for("branding.email", domain=tenant.domain, settings=_signer(tenant).dumps(settings)),
    )


def _valid_branding(tenant: Tenant, form: BrandingForm) -> Mapping[str, str]:
    """Return the values in the form, with the saved value in place of an invalid one."""
    saved = BrandingForm.showing(tenant)
    return {name: (saved[name] if form[name].errors else form[name]).data or "" for name in BRANDING_FIELDS}


def _signer(tenant: Tenant) -> URLSafeSerializer:
    return URLSafeSerializer(current_app.secret_key or "", salt=f"branding of tenant {tenant.id}")


def _branded_sample(tenant: Tenant, settings: Mapping[str, str]) -> MessageContent:
    """Return the email with an event type's sample and this branding."""
    event_type = ALL_EVENT_TYPES[settings["event_type"]]
    look = Branding(settings["colour"] or None, settings["footer"] or None)
    sender, language = settings["sender_name"] or tenant.name, settings["language"]
    context = replace(MailContext.for_tenant(tenant), tenant_name=sender, language=language, branding=look)
    return default_template(event_type, language).render(sample_values(event_type, context, sample_image_url()))
