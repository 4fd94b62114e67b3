"""Why a call is rejected, and what its key's owner can do about it: one list for the answer, the table and the page."""

from dataclasses import dataclass
from enum import StrEnum

from portal.languages import to_translate

SEND_A_KEY = "Send a live key of this portal, as “Authorization: Bearer KEY”."


class Reason(StrEnum):
    """Why a call is rejected."""

    NO_KEY = "no_key"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED_KEY = "expired_key"
    REVOKED_KEY = "revoked_key"
    NO_SIGNATURE = "no_signature"
    WRONG_SIGNATURE = "wrong_signature"
    LATE_SIGNATURE = "late_signature"
    FOREIGN_TENANT = "foreign_tenant"
    CONFLICT = "conflict"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"
    INVALID = "invalid"
    TOO_MANY = "too_many"

    @property
    def words(self) -> "Words":
        """What is said about it."""
        return WORDS[self]

    @property
    def is_about_the_caller(self) -> bool:
        """Whether it is the same for whatever this caller sends just now."""
        return self.words.status in (401, 403, 429)


@dataclass(frozen=True, slots=True)
class Words:
    """The HTTP status; what the owner of the key reads, with what to do; what the caller is told if always the same."""

    status: int
    title: str
    remedy: str
    told: str = ""


WORDS = {
    Reason.NO_KEY: Words(
        401, to_translate("No key"), to_translate("Have the PBX send its key in the Authorization header."), SEND_A_KEY
    ),
    Reason.UNKNOWN_KEY: Words(
        401, to_translate("Unknown key"), to_translate("Compare the key in the PBX, or issue a new one."), SEND_A_KEY
    ),
    Reason.EXPIRED_KEY: Words(
        401, to_translate("Expired key"), to_translate("Give the PBX a key that is live."), SEND_A_KEY
    ),
    Reason.REVOKED_KEY: Words(
        401,
        to_translate("Revoked key"),
        to_translate("Give the PBX a key that is live, or turn the sender off."),
        SEND_A_KEY,
    ),
    Reason.NO_SIGNATURE: Words(
        401,
        to_translate("No signature"),
        to_translate("Have the PBX sign its calls: this key requires it."),
        "This key requires a signature: send webhook-id, webhook-timestamp and webhook-signature.",
    ),
    Reason.WRONG_SIGNATURE: Words(
        401,
        to_translate("Wrong signature"),
        to_translate("Sign the very bytes that are sent, with the signing secret of this key."),
        "The signature is wrong: it does not fit webhook-id, webhook-timestamp and body, with any secret of this key.",
    ),
    Reason.LATE_SIGNATURE: Words(
        401,
        to_translate("Late signature"),
        to_translate("Set the clock of the PBX, and sign each call anew."),
        "The signature is late: webhook-timestamp is more than 5 minutes from the portal's clock.",
    ),
    Reason.FOREIGN_TENANT: Words(
        403,
        to_translate("Another tenant"),
        to_translate("Use a key of the tenant that the event names, or leave “tenant” out."),
        "This key reports events of its own tenant only.",
    ),
    Reason.CONFLICT: Words(
        409, to_translate("Same id, other content"), to_translate("Give each event an id of its own.")
    ),
    Reason.MALFORMED: Words(400, to_translate("Not JSON"), to_translate("Send one JSON object, in UTF-8.")),
    Reason.TOO_LARGE: Words(
        413, to_translate("Too large"), to_translate("Send the fields of the event, and nothing else.")
    ),
    Reason.MEDIA_TYPE: Words(
        415, to_translate("Wrong media type"), to_translate("Send Content-Type: application/json.")
    ),
    Reason.INVALID: Words(
        422, to_translate("Wrong fields"), to_translate("Send the fields as the OpenAPI description names them.")
    ),
    Reason.TOO_MANY: Words(
        429,
        to_translate("Too many events"),
        to_translate("Look for a script that runs away, and wait as Retry-After says."),
    ),
}
