"""Rejects placeholders in positions where the value from an event could do more than be read."""

import re

from flask_babel import gettext

from portal.mail_templates.markdown import EVENT_URL, PLACEHOLDER, remove_url_prefixes
from portal.web.i18n import to_translate

ALLOWED_SCHEME = re.compile(r"(https?|mailto|tel|sips?):", re.IGNORECASE)
# Set by the operator, or sent by the PBX about itself and validated as a host name or an IP address.
HOST_PLACEHOLDERS = ("DOMAIN", "PBX_WEB_DOMAIN", "SIP_PUBLIC_IP", "SIP_PRIVATE_IP")
QR_CODE = "QR_CODE"

IMAGE_IN_SUBJECT = to_translate("%(name)s is an image, which a subject cannot contain. Move it to the body.")
LINK_WITHOUT_SCHEME = to_translate(
    "A link cannot begin with %(name)s. Type its beginning yourself, for example https://acme.example/."
)
IMAGE_IN_LINK = to_translate("%(name)s is an image, which cannot be part of a link. Move it to the text.")
LINK_WITHOUT_HOST = to_translate(
    "%(name)s would decide which website a link opens. Type the website yourself, up to the slash after it."
)

SPLIT = to_translate("Formatting begins or ends inside %(name)s, so it stays empty. Type it again without formatting.")
TOO_COMPLEX = to_translate("This template is too complex. Simplify it.")

_HOST = re.compile(r"https?:[/\\]*([^/\\?#]*)", re.IGNORECASE)


class MisplacedPlaceholder(ValueError):
    """A placeholder is in a position where no value is safe, or the template takes too long to compile.

    The text is a message for the author, in which `%(name)s` is the placeholder.
    """

    def __init__(self, message: str, name: str = "", **values: str) -> None:
        super().__init__(gettext(message, name=f"%%{name}%%", **values))


def check_subject(subject: str) -> None:
    """Raise MisplacedPlaceholder if the subject contains the QR code: its text form would show the one-time URL."""
    if QR_CODE in PLACEHOLDER.findall(subject):
        raise MisplacedPlaceholder(IMAGE_IN_SUBJECT, QR_CODE)


def check_url(url: str) -> None:
    """Raise MisplacedPlaceholder if a value would decide where a link leads: authors write its scheme and host."""
    url = remove_url_prefixes(url)
    if url == f"%%{EVENT_URL}%%":
        return
    names = PLACEHOLDER.findall(url)
    if names and ALLOWED_SCHEME.match(url) is None:
        raise MisplacedPlaceholder(LINK_WITHOUT_SCHEME, names[0])
    if QR_CODE in names:
        raise MisplacedPlaceholder(IMAGE_IN_LINK, QR_CODE)
    host = _HOST.match(url)
    for name in PLACEHOLDER.findall(host[1]) if host else []:
        if name not in HOST_PLACEHOLDERS:
            raise MisplacedPlaceholder(LINK_WITHOUT_HOST, name)
