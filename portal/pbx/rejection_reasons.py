"""Why a request is rejected: one table with the status, title and advice of each reason.

Responses, the pages, the OpenAPI description and the documentation are made from it.
"""

from enum import Enum

from portal.web.i18n import to_translate

SEND_A_KEY = "Send a valid key of this portal, as “Authorization: Bearer KEY”."


class RejectionReason(Enum):
    """Why a request is rejected: the HTTP status, a title, advice for the key's owner, and the detail in the response.

    Where the detail depends on the request, this one is an example: see `webhook.Rejection`.
    """

    NO_KEY = (
        401,
        to_translate("No key"),
        to_translate("Configure the PBX to send its key in the Authorization header."),
    )
    UNKNOWN_KEY = (401, to_translate("Unknown key"), to_translate("Check the key in the PBX, or issue a new one."))
    EXPIRED_KEY = (401, to_translate("Expired key"), to_translate("Issue a new key and enter it in the PBX."))
    REVOKED_KEY = (
        401,
        to_translate("Revoked key"),
        to_translate("Enter a valid key in the PBX, or stop the program that uses the revoked one."),
    )
    NO_SIGNATURE = (
        401,
        to_translate("No signature"),
        to_translate("Configure the PBX to sign its requests: this key requires it."),
        "This key requires a signature: send webhook-id, webhook-timestamp and webhook-signature.",
    )
    WRONG_SIGNATURE = (
        401,
        to_translate("Wrong signature"),
        to_translate("Sign exactly the bytes that are sent, with the signing secret of this key."),
        "The signature is wrong: it does not match webhook-id, webhook-timestamp and body with any secret of this key.",
    )
    LATE_SIGNATURE = (
        401,
        to_translate("Late signature"),
        to_translate("Set the clock of the PBX, and sign each request when it is sent."),
        "The signature is late: webhook-timestamp is more than 5 minutes from the portal's clock.",
    )
    FOREIGN_TENANT = (
        403,
        to_translate("Another tenant"),
        to_translate("Use a key of the tenant that the event names, or leave “tenant” out."),
        "This key reports events of its own tenant only.",
    )
    CONFLICT = (
        409,
        to_translate("Same id, other content"),
        to_translate("Give each event its own id."),
        "An event with the id call-4711 and other content was recorded before.",
    )
    MALFORMED = (
        400,
        to_translate("Not JSON"),
        to_translate("Send one JSON object, in UTF-8."),
        "The body is not valid JSON: syntax error at line 1, column 2.",
    )
    TOO_LARGE = (
        413,
        to_translate("Too large"),
        to_translate("Send only the fields of the event."),
        "An event may have at most 65536 bytes.",
    )
    MEDIA_TYPE = (
        415,
        to_translate("Wrong media type"),
        to_translate("Send Content-Type: application/json."),
        "Send the event as application/json or application/cloudevents+json.",
    )
    INVALID = (
        422,
        to_translate("Wrong fields"),
        to_translate("Send the fields as the API reference describes them."),
        "The event has fields that are missing or wrong.",
    )
    TOO_MANY = (
        429,
        to_translate("Too many events"),
        to_translate("Check whether a script runs out of control. Otherwise wait as long as Retry-After says."),
        "A tenant may post 6000 per minute, and so may all system keys together.",
    )

    def __init__(self, status: int, title: str, advice: str, detail: str = SEND_A_KEY) -> None:
        self.status, self.title, self.advice, self.detail = status, title, advice, detail

    @property
    def key(self) -> str:
        """Its name in the database and in the OpenAPI description."""
        return self.name.lower()

    @property
    def told_to_client(self) -> "RejectionReason":
        """The reason in the response. Without a valid key, a client does not learn whether the key ever existed."""
        is_old_key = self in (RejectionReason.EXPIRED_KEY, RejectionReason.REVOKED_KEY)
        return RejectionReason.UNKNOWN_KEY if is_old_key else self

    @property
    def is_about_the_client(self) -> bool:
        """Whether anything else that the client sends now would be rejected too."""
        return self.status in (401, 403, 429)
