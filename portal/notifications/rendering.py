"""From a checked event to the words of its mail."""

from datetime import datetime

from portal.languages import translated
from portal.mail_servers.composing import Words
from portal.notifications.brand import PLAIN, Brand
from portal.notifications.fields import EventData
from portal.notifications.kinds import EventKind
from portal.notifications.placeholders import Context, values
from portal.notifications.templates import Rich, Template, compile_template, rich


def default_template(kind: EventKind, language: str = "en") -> Template:
    """Return the kind's own template in a language, compiled once."""
    subject, body, why = (translated(language, text) for text in (kind.subject, kind.body, kind.why))
    return compile_template(subject, body, kind.look, why, language)


def render(
    kind: EventKind,
    data: EventData,
    time: datetime,
    context: Context,
    qr: Rich | None = None,
    template: Template | None = None,
) -> Words:
    """Return the words of an event's mail, by the kind's own template unless another is given.

    Without `qr` everything about the QR code is left out.
    """
    filled = values(data, time, context)
    filled |= context.brand.values(filled)
    if qr is not None:
        filled["QR_CODE"] = qr
    return (template or default_template(kind, context.locale)).render(filled)


def sample_words(
    kind: EventKind, time: datetime, context: Context, qr: Rich | None = None, template: Template | None = None
) -> Words:
    """Return the words of the mail that the kind's sample makes."""
    return render(kind, kind.sample_data(time), time, context, qr, template)


def qr_code(image: str, address: str, language: str = "en", brand: Brand = PLAIN) -> Rich:
    """Return the value of `%%QR_CODE%%`: the picture, and below it a button and a link with the same address.

    Args:
        image: where the picture is, such as `cid:…` for one that is attached.
        address: the one-time HTTPS address that the picture holds.
        language: the language tag of the words around it.
        brand: whose colour the button has.
    """
    text = translated(language, "linphone-config:%(address)s\nor open %(address)s", address=address)
    return rich("_qr_code.html", text, language, brand.palette, image=image, address=address)
