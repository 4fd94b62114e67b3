"""A template as it will be read: filled in with the kind's sample, for the preview and for a mail to oneself."""

import html
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from markupsafe import Markup

from portal import config
from portal.config import ROOT
from portal.mail_servers.composing import InlineImage, Words
from portal.notifications.kinds import EventKind
from portal.notifications.placeholders import Context, values
from portal.notifications.rendering import qr_code
from portal.notifications.samples import PREFIX
from portal.notifications.templates import BRAND, Rich, Template
from portal.notifications.unfit import PICTURE
from portal.tenants.models import Tenant

IMAGE = ROOT / "static" / "sample-qr.png"  # which says in words that it is a sample
CONTENT_ID = "qr-code"

_BEGIN, _END = "\ue000", "\ue001"  # of a value in text, for private use: no event brings them along
_IN_ADDRESS = ("%EE%80%80", "%EE%80%81")
_MARK = '<mark style="background:#fde68a;color:#1c2430;border-radius:3px">'
_IN_A_TAB = '<base target="_blank">'


@dataclass(frozen=True, slots=True)
class Preview:
    """A mail's subject, text and HTML, with what placeholders became marked. The HTML is a page of its own."""

    subject: Markup
    text: Markup
    html: str


def sample_values(kind: EventKind, tenant: Tenant, image: str = "") -> Mapping[str, str | Rich]:
    """Return the value of each placeholder; `image` is where the QR code's picture is. It signs nobody in."""
    now, context = datetime.now(UTC), Context.of(tenant)
    found = values(kind.sample_data(now), now, context)
    found |= context.brand.values(found)
    if kind.qr_code:
        address = f"{config.current().portal_url}/provision/sample"
        found[PICTURE] = qr_code(image, address, context.locale, context.brand)
    return found


def of(kind: EventKind, template: Template, tenant: Tenant) -> Preview:
    """Return the template filled in with the kind's sample."""
    filled = sample_values(kind, tenant, f"data:image/png;base64,{b64encode(_png()).decode()}")
    as_it_is = {name for name in filled if name == PICTURE or name.startswith(BRAND)}
    words = template.render({name: value if name in as_it_is else _marked(value) for name, value in filled.items()})
    page = words.html.replace("<head>", f"<head>{_IN_A_TAB}", 1)
    return Preview(_as_markup(words.subject), _as_markup(_plain_addresses(words.text)), _without_marks(page))


def mail(kind: EventKind, template: Template, tenant: Tenant) -> tuple[Words, list[InlineImage]]:
    """Return the same as a mail to send, with its pictures. Its subject says that it is a sample."""
    words = template.render(sample_values(kind, tenant, f"cid:{CONTENT_ID}"))
    images = [InlineImage(CONTENT_ID, "sample-qr.png", _png())] if f"cid:{CONTENT_ID}" in words.html else []
    return words._replace(subject=f"{PREFIX}{words.subject}"), images


@cache
def _png() -> bytes:
    return IMAGE.read_bytes()


def _marked(value: str | Rich) -> Rich:
    shown = value if isinstance(value, Rich) else Rich(html.escape(value), value)
    return Rich(f"{_MARK}{shown.html}</mark>", f"{_BEGIN}{shown.text}{_END}") if shown.text else shown


def _as_markup(text: str) -> Markup:
    escaped = html.escape(text).replace(_BEGIN, "<mark>").replace(_END, "</mark>")
    return Markup(escaped)  # noqa: S704 (escaped above)


def _plain_addresses(text: str) -> str:
    for mark in _IN_ADDRESS:
        text = text.replace(mark, "")
    return text


def _without_marks(page: str) -> str:
    """Return the page without the marks that stand in attributes, where nothing can be marked."""
    return _plain_addresses(page).replace(_BEGIN, "").replace(_END, "")
