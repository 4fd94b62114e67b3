"""Renders a template with the event type's sample: for the preview, and for an email to its author."""

import html
import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from portal import config
from portal.config import ROOT
from portal.events.event_type import EventType
from portal.events.samples import SUBJECT_PREFIX
from portal.events.values import RichValue, Values
from portal.mail_servers.smtp.mime import InlineImage, MessageContent
from portal.mail_templates.compiler import CompiledTemplate, qr_code_value
from portal.mail_templates.markdown import BRANDING_PREFIX
from portal.mail_templates.placeholders import MailContext, placeholder_values
from portal.mail_templates.placement import QR_CODE
from portal.tenants.models import Tenant
from portal.web.slots import Bound, Slots

SAMPLE_IMAGE = ROOT / "static" / "sample-qr.png"  # it contains the text that it is a sample
CONTENT_ID = "qr-code"

_MARK_START, _MARK_END = "\ue000", "\ue001"  # around a value in text; for private use, so no event contains them
_MARK_IN_URL = re.compile("%EE%80%8[01]")
_MARK = re.compile(f"{_MARK_START}|{_MARK_END}|{_MARK_IN_URL.pattern}")
_MARK_TAG = '<mark style="background:#fde68a;color:#1c2430;border-radius:3px">'
_LINKS_IN_NEW_TAB = '<base target="_blank">'


# For compiling and rendering a template. An author types on while the previews of what was typed before are made.
PREVIEWS: Final = Slots(Bound(per_account=1, total=4), waiting=Bound(per_account=7, total=8), max_wait=2)


@dataclass(frozen=True, slots=True)
class Preview:
    """The subject, text and HTML of an email in which the values of placeholders are highlighted."""

    subject: Markup
    text: Markup
    html: str  # a complete page


def sample_values(event_type: EventType, context: MailContext, image_url: str = "") -> Values:
    """Return the value of each placeholder. The QR code sets up no phone, and the link to the event leads to the log.

    The QR code's image is at `image_url`.
    """
    now, portal_url = datetime.now(UTC), config.current().portal_url
    log_url = f"{portal_url}/tenants/{quote(context.tenant_domain)}/deliveries"
    values = placeholder_values(event_type.sample_data(now), now, context, log_url)
    values |= context.branding.template_values(values)
    if event_type.qr_code:
        url = f"{portal_url}/provision/sample"
        values[QR_CODE] = qr_code_value(image_url, url, context.language, context.branding)
    return values


def render_preview(event_type: EventType, template: CompiledTemplate, tenant: Tenant) -> Preview:
    """Return the template filled in with the event type's sample."""
    values = sample_values(event_type, MailContext.for_tenant(tenant), sample_image_url())
    unmarked = {name for name in values if name == QR_CODE or name.startswith(BRANDING_PREFIX)}
    content = template.render({name: value if name in unmarked else _mark(value) for name, value in values.items()})
    page = content.html.replace("<head>", f"<head>{_LINKS_IN_NEW_TAB}", 1)
    text = _marks_to_html(_MARK_IN_URL.sub("", content.text))
    # In attributes nothing can be highlighted; elsewhere in the page tags do.
    return Preview(_marks_to_html(content.subject), text, _MARK.sub("", page))


def sample_message(event_type: EventType, template: CompiledTemplate, tenant: Tenant) -> MessageContent:
    """Return an email with the event type's sample. The subject says that it is a sample."""
    content = template.render(sample_values(event_type, MailContext.for_tenant(tenant), f"cid:{CONTENT_ID}"))
    has_image = f"cid:{CONTENT_ID}" in content.html
    images = [InlineImage(CONTENT_ID, SAMPLE_IMAGE.name, SAMPLE_IMAGE.read_bytes())] if has_image else []
    return content._replace(subject=f"{SUBJECT_PREFIX}{content.subject}", images=images)


@cache
def sample_image_url() -> str:
    """Return the sample of a QR code as a `data:` URL."""
    return f"data:image/png;base64,{b64encode(SAMPLE_IMAGE.read_bytes()).decode()}"


def _mark(value: str | RichValue) -> RichValue:
    rich = value if isinstance(value, RichValue) else RichValue(html.escape(value), value)
    return RichValue(f"{_MARK_TAG}{rich.html}</mark>", f"{_MARK_START}{rich.text}{_MARK_END}") if rich.text else rich


def _marks_to_html(text: str) -> Markup:
    escaped = html.escape(text).replace(_MARK_START, "<mark>").replace(_MARK_END, "</mark>")
    return Markup(escaped)  # noqa: S704 (escaped above)
