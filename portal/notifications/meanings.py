"""What each placeholder of a kind stands for, in words, and with the value that the kind's sample gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask_babel import gettext

from portal.languages import to_translate
from portal.notifications.kinds import EventKind
from portal.notifications.placeholders import feeds
from portal.notifications.templates import Rich
from portal.notifications.unfit import PICTURE

COMMON = {
    "TENANT_NAME": to_translate("Your name as a tenant"),
    "DOMAIN": to_translate("The PBX domain"),
    "PBX_WEB_DOMAIN": to_translate("Where the PBX's own portal is"),
    "DATE_TIME": to_translate("When it happened"),
    PICTURE: to_translate("The QR code that sets up a phone, with its button"),
}
# By the field of an event that feeds it. A field that is not here is told by its name.
OF_FIELDS = {
    "extension_number": to_translate("The user's extension"),
    "extension_password": to_translate("The extension's password"),
    "user_name": to_translate("The name to sign in with"),
    "user_password": to_translate("The password to sign in with"),
    "display_name": to_translate("The user's name"),
    "voicemail_pin": to_translate("The PIN of the voicemail"),
    "sip_domain": to_translate("The PBX domain"),
    "login_ip": to_translate("The IP address to sign in at"),
    "private_ip": to_translate("The same inside your network"),
    "udp_port": to_translate("The port for UDP"),
    "tcp_port": to_translate("The port for TCP"),
    "tls_port": to_translate("The port for TLS"),
    "queue_number": to_translate("The queue's number"),
    "queue_name": to_translate("The queue's name, else its number"),
    "caller_number": to_translate("The caller's number"),
    "caller_name": to_translate("The caller's name"),
    "sla_seconds": to_translate("The queue's SLA threshold"),
    "waited_seconds": to_translate("How long the caller waited"),
    "callers_waiting": to_translate("How many callers wait"),
    "callers_breached": to_translate("How many wait too long"),
    "callback_number": to_translate("The number to call back"),
    "requested_at": to_translate("How long ago the callback was asked for"),
    "agent_extension": to_translate("The agent's extension"),
    "attempts": to_translate("How often it was tried"),
    "attempt": to_translate("Which attempt it was"),
    "reason": to_translate("Why"),
    "position": to_translate("The caller's place in the queue"),
}


@dataclass(frozen=True, slots=True)
class Offered:
    """A placeholder that a template may use; `sample` is empty where the sample has no value for it."""

    name: str
    meaning: str
    sample: str


def offered(kind: EventKind, sample: Mapping[str, str | Rich]) -> Sequence[Offered]:
    """Return the placeholders of a kind in the order of its fields, with these values."""
    meanings = _meanings(kind)
    own_first = sorted(kind.placeholders, key=lambda name: name in COMMON)
    return [Offered(name, gettext(meanings[name]), _shown(name, sample.get(name, ""))) for name in own_first]


def _meanings(kind: EventKind) -> Mapping[str, str]:
    of_fields = {
        mark.placeholder: OF_FIELDS.get(field, field.replace("_", " ").capitalize())
        for field, mark in feeds(kind.fields).items()
    }
    return COMMON | of_fields


def _shown(name: str, value: str | Rich) -> str:
    if name == PICTURE:
        return str(gettext("a picture"))
    return value.text if isinstance(value, Rich) else value
