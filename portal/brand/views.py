"""A tenant's page "Brand", with a mail as it will look beside the form."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from flask import Blueprint, current_app, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from htmx_flask import request
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.exceptions import NotFound

from portal import headers
from portal.brand import brand
from portal.brand.forms import BrandForm
from portal.mail_servers.composing import Words
from portal.notifications.brand import Brand
from portal.notifications.colours import DEFAULT
from portal.notifications.digest import EVERY_KIND
from portal.notifications.placeholders import Context
from portal.notifications.rendering import qr_code, sample_words
from portal.provisioning import qr, tokens
from portal.tenants.models import Tenant
from portal.tenants.workspace import workspace
from portal.ui import respond

blueprint = Blueprint("brand", __name__, url_prefix="/tenants/<domain>/brand")

LOOK = ("sender_name", "colour", "footer", "locale")
FIRST = "queue.call_lost"  # whose mail is shown unless another is asked for


@blueprint.route("", methods=["GET", "POST"])
def edit(domain: str) -> ResponseReturnValue:
    """Show and save how the tenant's mails look."""
    tenant = workspace(domain)
    if request.method == "GET":
        return _page(tenant, BrandForm.showing(tenant))
    form = BrandForm()
    if form.validate():
        brand.save(tenant, form.sender_name.data, form.colour.data, form.footer.data, form.locale.data)
        flash(gettext("The brand is saved."), "success")
        return redirect(url_for("brand.edit", domain=domain), 303)
    return _page(tenant, form, 422)


@blueprint.post("/preview")
def preview(domain: str) -> ResponseReturnValue:
    """Show a mail by what is in the form, which is not saved."""
    tenant, form = workspace(domain), BrandForm()
    if "default_colour" in request.form:
        form.colour.data = DEFAULT
    refused = not form.validate() and not request.htmx
    return _page(tenant, form, 422 if refused else 200)


@blueprint.get("/mail/<look>")
def mail(domain: str, look: str) -> ResponseReturnValue:
    """Serve the mail for the frame of the preview. `look` comes from `preview` alone: it is signed."""
    tenant = workspace(domain)
    try:
        words = _words(tenant, _signer(tenant).loads(look))
    except BadSignature:
        raise NotFound from None
    return words.html, headers.of_mail("'self' data:")


def _page(tenant: Tenant, form: BrandForm, status: int = 200) -> ResponseReturnValue:
    kind = request.form.get("kind", FIRST)
    look = {**_entered(tenant, form), "kind": kind if kind in EVERY_KIND else FIRST}
    return respond(
        "brand/page.html",
        "brand/_preview.html",
        status,
        tenant=tenant,
        form=form,
        default=DEFAULT,
        kinds=EVERY_KIND.values(),
        kind=look["kind"],
        subject=_words(tenant, look).subject,
        address=url_for("brand.mail", domain=tenant.domain, look=_signer(tenant).dumps(look)),
    )


def _entered(tenant: Tenant, form: BrandForm) -> Mapping[str, str]:
    """Return what is in the form, and of what is refused there what is saved."""
    saved = BrandForm.showing(tenant)
    return {each.name: (saved[each.name] if each.errors else each).data or "" for each in form if each.name in LOOK}


def _signer(tenant: Tenant) -> URLSafeSerializer:
    return URLSafeSerializer(current_app.secret_key or "", salt=f"brand of tenant {tenant.id}")


def _words(tenant: Tenant, look: Mapping[str, str]) -> Words:
    """Return a sample's mail in this look."""
    shown = Brand(look["colour"] or None, look["footer"] or None)
    name = look["sender_name"] or tenant.name
    context = replace(Context.of(tenant), tenant_name=name, locale=look["locale"], brand=shown)
    address = qr.address(tokens.SAMPLE)
    picture = f"data:image/png;base64,{b64encode(qr.png(address)).decode()}"
    kind = EVERY_KIND[look["kind"]]
    code = qr_code(picture, address, context.locale, shown) if kind.qr_code else None
    return sample_words(kind, datetime.now(UTC), context, code)
