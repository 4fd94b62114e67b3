"""Where no value may stand, because what an event brings along could then do more than be read."""

import re

from flask_babel import gettext

from portal.languages import to_translate
from portal.notifications.markup import PLACEHOLDER, bare

SCHEME = re.compile(r"(https?|mailto|tel|sips?):", re.IGNORECASE)
# What is the operator's or sent by the PBX as its own, and was checked to be a host name or an IP address.
HOSTS = ("DOMAIN", "PBX_WEB_DOMAIN", "SIP_PUBLIC_IP", "SIP_PRIVATE_IP")
PICTURE = "QR_CODE"

NO_SUBJECT = to_translate("%(name)s is a picture, which no subject can show. Put it into the text.")
NO_BEGINNING = to_translate(
    "A link cannot begin with %(name)s. Write its beginning yourself, like https://acme.example/."
)
NO_ADDRESS = to_translate("%(name)s is a picture, which cannot stand in a link's address. Put it into the text.")
NO_SITE = to_translate("%(name)s would decide which site a link opens. Write the site yourself, up to its slash.")

INTRICATE = to_translate("This is too intricate to become a mail. Make it simpler.")

_HOST = re.compile(r"https?:[/\\]*([^/\\?#]*)", re.IGNORECASE)


class Unfit(ValueError):
    """A placeholder stands where it cannot be made safe, or the whole would take too long to become a mail.

    The text is a sentence for the author, with the placeholder's `%(name)s`.
    """

    def __init__(self, sentence: str, name: str = "", **values: str) -> None:
        super().__init__(gettext(sentence, name=f"%%{name}%%", **values))


def check_subject(subject: str) -> None:
    """Raise Unfit where the subject has the picture in it, whose address would be read by who is not to have it."""
    if PICTURE in PLACEHOLDER.findall(subject):
        raise Unfit(NO_SUBJECT, PICTURE)


def check_address(address: str) -> None:
    """Look at an address with placeholders in it: its scheme and its host are the author's.

    Raises:
        Unfit: a value of an event would decide where the link leads.
    """
    address = bare(address)
    names = PLACEHOLDER.findall(address)
    if names and SCHEME.match(address) is None:
        raise Unfit(NO_BEGINNING, names[0])
    if PICTURE in names:
        raise Unfit(NO_ADDRESS, PICTURE)
    host = _HOST.match(address)
    in_host = PLACEHOLDER.findall(host[1]) if host else []
    for name in in_host:
        if name not in HOSTS:
            raise Unfit(NO_SITE, name)
