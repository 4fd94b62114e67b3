"""Signatures of calls as Standard Webhooks has them: an HMAC of id, time and body, with a secret that is never sent."""

import base64
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from standardwebhooks import Webhook, WebhookVerificationError

from portal.pbx.reasons import Reason

WINDOW = 5 * 60  # seconds
SECRET_BYTES = 32
MOST_SIGNATURES = 10  # each costs an HMAC of the body for each secret
PREFIX = "whsec_"
# What is signed is "id.time.body". An id without a brace cannot be taken for one with a piece of the body in it: a body
# begins with a brace, or with blanks, which an id has not either.
_ID = re.compile(r"[!-z|}~]{1,200}")
_TIME = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class Stamp:
    """The headers webhook-id, webhook-timestamp and webhook-signature of a call, as far as they were sent."""

    id: str | None
    time: str | None
    signature: str | None


def new_secret() -> str:
    """Return a random signing secret in the form that libraries of Standard Webhooks take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def fault(body: bytes, stamp: Stamp, keys: Sequence[str]) -> Reason | None:
    """Return what is wrong with the signature of a body as it was received; None where one of the secrets made it."""
    if not (stamp.id and stamp.time and stamp.signature):
        return Reason.NO_SIGNATURE
    if not (_ID.fullmatch(stamp.id) and _TIME.fullmatch(stamp.time)):
        return Reason.WRONG_SIGNATURE
    if abs(time.time() - int(stamp.time)) > WINDOW:
        return Reason.LATE_SIGNATURE
    signed = {"webhook-id": stamp.id, "webhook-timestamp": stamp.time}
    given = stamp.signature.split(" ")[:MOST_SIGNATURES]  # the library takes all of them, but trips over a broken one
    fits = any(_fits(key, body, signed | {"webhook-signature": each}) for each in given for key in keys)
    return None if fits else Reason.WRONG_SIGNATURE


def _fits(key: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(key).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # the latter for what is no base64, no pair or no UTF-8
        return False
    return True
