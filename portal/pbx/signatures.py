"""Signed requests, as Standard Webhooks defines them: an HMAC of id, time and body with a secret that is never sent."""

import base64
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence

from portal.database import clock
from portal.pbx.rejection_reasons import RejectionReason

MAX_CLOCK_DIFFERENCE = 5 * 60  # seconds
SECRET_BYTES = 32
MAX_SIGNATURES = 10  # each is compared with that of each secret
PREFIX = "whsec_"
# What is signed is "id.time.body". An id without a brace cannot contain the beginning of a body: a body begins with a
# brace, or with blanks, which an id does not contain either.
_ID = re.compile(r"[!-z|}~]{1,200}")
_TIMESTAMP = re.compile(r"[0-9]{1,11}")


def new_secret() -> str:
    """Return a random signing secret in the form that Standard Webhooks libraries take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_signature(body: bytes, headers: Mapping[str, str], signing_secrets: Sequence[str]) -> RejectionReason | None:
    """Return why the signature of a request is not accepted; None if one of the secrets made it."""
    id_, timestamp, sent = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (id_ and timestamp and sent):
        return RejectionReason.NO_SIGNATURE
    if not (_ID.fullmatch(id_) and _TIMESTAMP.fullmatch(timestamp)):
        return RejectionReason.WRONG_SIGNATURE
    if abs(clock.now().timestamp() - int(timestamp)) > MAX_CLOCK_DIFFERENCE:
        return RejectionReason.LATE_SIGNATURE
    content = f"{id_}.{timestamp}.".encode() + body
    signatures = [signature.encode() for signature in sent.split(" ")[:MAX_SIGNATURES]]
    for secret in signing_secrets:
        # The library of Standard Webhooks signs only UTF-8.
        digest = hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), content, "sha256")
        expected = b"v1," + base64.b64encode(digest)
        if any(hmac.compare_digest(expected, signature) for signature in signatures):
            return None
    return RejectionReason.WRONG_SIGNATURE
