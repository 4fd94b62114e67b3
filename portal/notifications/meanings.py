"""What each placeholder of a kind stands for, in words, and with the value that the kind's sample gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portal.notifications.kinds import EventKind
from portal.notifications.placeholders import feeds
from portal.notifications.templates import Rich
from portal.notifications.unfit import PICTURE

COMMON = {
    "TENANT_NAME": "Your name as a tenant",
    "DOMAIN": "The PBX domain",
    "PBX_WEB_DOMAIN": "Where the PBX's own portal is",
    "DATE_TIME": "When it happened",
    PICTURE: "The QR code that sets up a phone, with its button",
}
# By the field of an event that feeds it. A field that is not here is told by its name.
OF_FIELDS = {
    "extension_number": "The user's extension",
    "extension_password": "The extension's password",
    "user_name": "The name to sign in with",
    "user_password": "The password to sign in with",
    "display_name": "The user's name",
    "voicemail_pin": "The PIN of the voicemail",
    "sip_domain": "The PBX domain",
    "login_ip": "The IP address to sign in at",
    "private_ip": "The same inside your network",
    "udp_port": "The port for UDP",
    "tcp_port": "The port for TCP",
    "tls_port": "The port for TLS",
    "queue_number": "The queue's number",
    "queue_name": "The queue's name, else its number",
    "caller_number": "The caller's number",
    "caller_name": "The caller's name",
    "sla_seconds": "The queue's SLA threshold",
    "waited_seconds": "How long the caller waited",
    "callers_waiting": "How many callers wait",
    "callers_breached": "How many wait too long",
    "callback_number": "The number to call back",
    "requested_at": "How long ago the callback was asked for",
    "agent_extension": "The agent's extension",
    "attempts": "How often it was tried",
    "attempt": "Which attempt it was",
    "reason": "Why",
    "position": "The caller's place in the queue",
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
    return [Offered(name, meanings[name], _shown(name, sample.get(name, ""))) for name in own_first]


def _meanings(kind: EventKind) -> Mapping[str, str]:
    of_fields = {
        mark.placeholder: OF_FIELDS.get(field, field.replace("_", " ").capitalize())
        for field, mark in feeds(kind.fields).items()
    }
    return COMMON | of_fields


def _shown(name: str, value: str | Rich) -> str:
    if name == PICTURE:
        return "a picture"
    return value.text if isinstance(value, Rich) else value
