"""The states of a mail, and what the states of its parts add up to."""

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """What became of a recipient, a mail or an event."""

    PENDING = "pending"  # being sent right now, under a lease
    SENT = "sent"
    PARTIAL = "partial"
    DEFERRED = "deferred"
    FAILED = "failed"
    HELD = "held"
    EXPIRED = "expired"  # not sent in time
    DISCARDED = "discarded"  # by a person
    IGNORED = "ignored"


class Reason(StrEnum):
    """Why a mail is held, or an event ignored."""

    NO_MAIL_SERVER = "no_mail_server"
    NO_RECIPIENTS = "no_recipients"
    MAIL_SERVER_REJECTED = "mail_server_rejected"
    MAY_HAVE_BEEN_SENT = "may_have_been_sent"
    THROTTLED = "throttled"
    SWITCHED_OFF = "switched_off"
    TENANT_SUSPENDED = "tenant_suspended"
    NO_RECIPIENT_WANTS_IT = "no_recipient_wants_it"


OPEN = (Status.PENDING, Status.DEFERRED, Status.HELD)
ENDED = (Status.FAILED, Status.EXPIRED, Status.DISCARDED)


def sum_up(parts: Iterable[Status]) -> Status:
    """Return the one status of several: partial where only some were sent, else what is still to happen first."""
    found = set(parts)
    if len(found) == 1:
        return found.pop()
    if found & {Status.SENT, Status.PARTIAL}:
        return Status.PARTIAL
    return next(status for status in (*OPEN, *ENDED) if status in found)
