"""What may be said of a mail and its recipients, whether it has rows already or is yet to be recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from portal import config
from portal.deliveries.states import Reason, Status, sum_up
from portal.notifications.switches import Audience


class Recipient:
    """One address of a mail, and the mail server's last word about it."""

    address: str
    status: str
    stage: str | None
    code: int | None
    enhanced_code: str | None
    text: str | None


class Mail:
    """One mail of an event, to the tenant's recipients or to the new user."""

    id: UUID
    event_id: UUID
    audience: str
    message_id: str
    status: str
    reason: str | None
    mail_server: str | None
    attempts: int
    lease_until: datetime | None
    next_attempt_at: datetime | None
    expires_at: datetime
    recipients: Sequence[Recipient]

    @property
    def to_try(self) -> list[Recipient]:
        """The recipients that the next attempt goes to."""
        return [each for each in self.recipients if each.status in {Status.PENDING, Status.DEFERRED}]

    def hold(self, reason: Reason) -> None:
        """Keep the mail back from those it has not reached."""
        self._stop(Status.HELD)
        self.reason, self.next_attempt_at = reason, None

    def wait_until(self, moment: datetime) -> None:
        """Have the mail tried again from then on, or expire before."""
        self._stop(Status.DEFERRED)
        self.next_attempt_at = min(moment, self.expires_at)

    def _stop(self, status: Status) -> None:
        for each in self.to_try:
            each.status = status
        self.status = sum_up([Status(each.status) for each in self.recipients] or [status])
        self.lease_until = None


@dataclass
class NewRecipient(Recipient):
    """One of a mail that is yet to be recorded."""

    address: str
    status: str = Status.PENDING
    stage: str | None = None
    code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None


@dataclass
class NewMail(Mail):
    """A mail that is yet to be recorded: SQLAlchemy, which takes its time, need not know of it."""

    id: UUID
    event_id: UUID
    audience: str
    message_id: str
    expires_at: datetime
    recipients: Sequence[Recipient]
    status: str = Status.PENDING
    reason: str | None = None
    mail_server: str | None = None
    attempts: int = 0
    lease_until: datetime | None = None
    next_attempt_at: datetime | None = None

    @classmethod
    def about(cls, event_id: UUID, expiry: timedelta, audience: Audience | str, addresses: Sequence[str]) -> "NewMail":
        """Return a mail about an event that is yet to be prepared. Its Message-ID is made of its id."""
        mail_id = uuid7()
        message_id = f"<{mail_id.hex}@{config.current().host}>"
        expires_at = datetime.now(UTC) + expiry
        return cls(mail_id, event_id, audience, message_id, expires_at, [NewRecipient(each) for each in addresses])
