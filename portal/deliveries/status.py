"""The statuses of recipients, emails and events, and the reasons why an email is held."""

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """The status of a recipient, of an email or of an event."""

    PENDING = "pending"  # in progress: an attempt holds its lease
    SENT = "sent"
    PARTIAL = "partial"  # sent to some of the recipients
    DEFERRED = "deferred"  # queued for another attempt
    FAILED = "failed"
    HELD = "held"  # until its reason is gone, or a person decides
    EXPIRED = "expired"  # not sent in time
    DISCARDED = "discarded"  # by a person
    IGNORED = "ignored"  # an event that is not emailed


class HoldReason(StrEnum):
    """Why an email is held, or an event is ignored."""

    NO_MAIL_SERVER = "no_mail_server"
    NO_RECIPIENTS = "no_recipients"
    MAIL_SERVER_REJECTED = "mail_server_rejected"
    MAY_HAVE_BEEN_SENT = "may_have_been_sent"
    THROTTLED = "throttled"
    SWITCHED_OFF = "switched_off"
    TENANT_SUSPENDED = "tenant_suspended"
    NO_RECIPIENT_WANTS_IT = "no_recipient_wants_it"
    SHARED_SERVER_LIMIT = "shared_server_limit"
    QUIET_HOURS = "quiet_hours"


UNFINISHED = (Status.PENDING, Status.DEFERRED, Status.HELD)
NOT_SENT = (Status.FAILED, Status.EXPIRED, Status.DISCARDED)


def combine(statuses: Iterable[Status]) -> Status:
    """Return one status for several: partial if only some were sent, else the one that still has to change first."""
    different = set(statuses)
    if len(different) == 1:
        return different.pop()
    if different & {Status.SENT, Status.PARTIAL}:
        return Status.PARTIAL
    return next(status for status in (*UNFINISHED, *NOT_SENT) if status in different)
