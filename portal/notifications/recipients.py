"""The tenant's "Emails of Recipients": the list, the events that each of them gets, and pauses."""

import calendar
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time
from itertools import islice
from zoneinfo import ZoneInfo

from flask_babel import gettext
from sqlalchemy import select

from portal.audit.log import Change, record
from portal.database import clock
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.notifications.decision import Decision, QuietHours, RecipientRules, decide
from portal.notifications.models import INDEFINITELY, Recipient
from portal.signals import notify_settings_changed
from portal.tenants.models import Tenant
from portal.web.forms import Edit, compare_edit, normalize_email
from portal.web.pasted_emails import split_emails

MAX_RECIPIENTS = 50  # of a tenant
MAX_TEXT_LENGTH = 100_000  # of what is pasted


def list_recipients() -> Sequence[Recipient]:
    """Return the recipients of the tenant in scope, in the order of entry."""
    return db.session.scalars(select(Recipient).order_by(Recipient.id)).all()


def list_emails() -> Sequence[str]:
    """Return the email addresses of the recipients of the tenant in scope, in the order of entry."""
    return [recipient.email for recipient in list_recipients()]


def decide_about(tenant: Tenant, event_type: str, queue: Collection[str]) -> tuple[Decision, bool]:
    """Decide who gets an event of the tenant in scope, as the event path does, and return whether it has recipients."""
    rows = list_recipients()
    rules = [row.rules for row in rows if not row.is_paused and event_type not in row.excluded_event_types]
    return decide((), rules, event_type, queue, clock.now(), tenant.time_zone), bool(rows)


def lock_recipients(tenant: Tenant) -> Sequence[Recipient]:
    """Return the recipients, locked against other changes until the next commit. Events are not blocked."""
    db.session.execute(select(Tenant.id).where(Tenant.id == tenant.id).with_for_update(key_share=True))
    return list_recipients()


def parse_emails(text: str) -> list[str] | Refusal:
    """Return the email addresses in `text`, as people paste them, without duplicates."""
    if len(text) > MAX_TEXT_LENGTH:
        return Refusal("recipients", gettext("Enter at most %(most)s characters.", most=MAX_TEXT_LENGTH))
    parts = list(islice(split_emails(text), 10 * MAX_RECIPIENTS + 1))
    if len(parts) > 10 * MAX_RECIPIENTS:  # duplicates included: splitting and validating more takes a while
        return Refusal("recipients", gettext("Enter at most %(most)s email addresses.", most=MAX_RECIPIENTS))
    emails: dict[str, str] = {}
    for part in parts:
        try:
            email = normalize_email(part)
        except ValueError as error:
            return Refusal("recipients", str(error))
        emails.setdefault(email.lower(), email)
    if not emails:
        return Refusal("recipients", gettext("Enter at least one email address."))
    if len(emails) > MAX_RECIPIENTS:
        text = gettext(
            "Enter at most %(most)s email addresses. You entered %(count)s.", most=MAX_RECIPIENTS, count=len(emails)
        )
        return Refusal("recipients", text)
    return list(emails.values())


def version(emails: Collection[str]) -> str:
    """Return what tells this list of recipients from another one, without their order."""
    return ",".join(sorted(email.lower() for email in emails))


def replace(tenant: Tenant, emails: Sequence[str], based_on: str | None = None) -> Refusal | None:
    """Replace the recipients of the tenant in scope. Those that remain keep their events and pauses.

    `based_on` is the version that the author started from. If the recipients are others by now, nothing is saved, and
    what the author changed is refused.
    """
    rows = {row.email.lower(): row for row in lock_recipients(tenant)}
    edit = compare_edit(based_on, version(rows), version(emails))
    if edit is not Edit.SAVE:
        db.session.commit()  # ends the lock
        return _conflict(rows.values()) if edit is Edit.CONFLICT else None
    _record_change(tenant, rows.values(), emails)
    new = {email.lower(): email for email in emails}
    for key in rows.keys() - new.keys():
        db.session.delete(rows[key])
    for key, email in new.items():
        if key in rows:
            rows[key].email = email
        else:
            db.session.add(Recipient(tenant_id=tenant.id, email=email))
    notify_settings_changed(tenant.id)
    db.session.commit()
    return None


def _conflict(rows: Collection[Recipient]) -> Refusal:
    saved = ", ".join(row.email for row in rows) or gettext("None")
    return Refusal(
        "recipients_based_on",
        gettext("The recipients have changed since you opened this page. Now saved: %(emails)s.", emails=saved),
    )


def add(tenant: Tenant, emails: Sequence[str]) -> Refusal | None:
    """Add recipients of the tenant in scope, who get all events."""
    rows = lock_recipients(tenant)
    existing = {row.email.lower() for row in rows}
    new = [email for email in emails if email.lower() not in existing]
    if not new:
        return Refusal("email", gettext("This email address is already a recipient."))
    if len(rows) + len(new) > MAX_RECIPIENTS:
        message = gettext("You already have the maximum of %(most)s recipients. Remove one first.", most=MAX_RECIPIENTS)
        return Refusal("email", message)
    extend(tenant, rows, new)
    notify_settings_changed(tenant.id)
    db.session.commit()
    return None


def extend(tenant: Tenant, rows: Collection[Recipient], new: Sequence[str]) -> None:
    """Add recipients to the rows that the tenant has, without committing it."""
    _record_change(tenant, rows, [*(row.email for row in rows), *new])
    db.session.add_all(Recipient(tenant_id=tenant.id, email=email) for email in new)


def remove(tenant: Tenant, recipient: Recipient) -> Refusal | None:
    """Remove a recipient of the tenant in scope, unless it is the last one."""
    rest = [row for row in lock_recipients(tenant) if row.id != recipient.id]
    if not rest:
        return Refusal("email", gettext("At least one recipient is required. Add another one first."))
    _record_change(tenant, [*rest, recipient], [row.email for row in rest])
    db.session.delete(recipient)
    db.session.commit()
    return None


def choose_events(tenant: Tenant, recipient: Recipient, event_types: Collection[str]) -> None:
    """Send a recipient these events and no others of the existing types."""
    _choose_events(tenant, recipient, event_types)
    notify_settings_changed(tenant.id)
    db.session.commit()


def choose_event_for_all(tenant: Tenant, event_type: str, text: str = "", *, on: bool) -> None:
    """Send the recipients whose email address contains this text an event type, or do not."""
    for row in lock_recipients(tenant):
        if text.lower() in row.email.lower():
            _choose_events(tenant, row, (_included(row) | {event_type}) if on else (_included(row) - {event_type}))
    notify_settings_changed(tenant.id)
    db.session.commit()


def _included(row: Recipient) -> set[str]:
    return {event_type for event_type in EVENT_TYPES if event_type not in row.excluded_event_types}


def _choose_events(tenant: Tenant, recipient: Recipient, event_types: Collection[str]) -> None:
    before = list(recipient.excluded_event_types)
    unknown = [event_type for event_type in before if event_type not in EVENT_TYPES]  # these stay excluded
    after = [*unknown, *(event_type for event_type in EVENT_TYPES if event_type not in event_types)]
    recipient.excluded_event_types = after
    included = [
        [event_type for event_type in EVENT_TYPES if event_type not in excluded] for excluded in (before, after)
    ]
    record("recipient.events_chosen", recipient.email, tenant_id=tenant.id, changes={"events": included})


def change_rules(tenant: Tenant, recipient: Recipient, event_types: Collection[str], rules: RecipientRules) -> None:
    """Set the events, the queues and the quiet hours of a recipient.

    What is held for it until its current quiet hours end stays held until then: the delivery log says so.
    """
    _choose_events(tenant, recipient, event_types)
    quiet = rules.quiet_hours
    changes: dict[str, Change] = {
        "queues": [list(recipient.queues), [*rules.queues]],
        "quiet_hours": [_as_text(recipient.quiet_hours), _as_text(quiet)],
        "urgent_events": [list(recipient.urgent_event_types), [*rules.urgent_event_types]],
    }
    record("recipient.changed", recipient.email, tenant_id=tenant.id, changes=changes)
    recipient.queues, recipient.urgent_event_types = [*rules.queues], [*rules.urgent_event_types]
    recipient.quiet_days = sorted(quiet.days) if quiet else []
    recipient.quiet_from, recipient.quiet_until = (quiet.begin, quiet.end) if quiet else (None, None)
    notify_settings_changed(tenant.id)
    db.session.commit()


def _as_text(quiet: QuietHours | None) -> str | None:
    """Return quiet hours in English, for the audit trail: "22:00 to 07:00 on Mon, Tue"."""
    if quiet is None:
        return None
    days = ", ".join(calendar.day_abbr[day] for day in sorted(quiet.days))
    return f"{quiet.begin:%H:%M} to {quiet.end:%H:%M} on {days}"


def pause(tenant: Tenant, recipient: Recipient, until: date | datetime | None) -> None:
    """Send a recipient nothing until this day begins in the tenant's time zone, until this time, or until resumed."""
    zone = ZoneInfo(tenant.time_zone)
    if until is not None and not isinstance(until, datetime):
        until = datetime.combine(until, time(), zone)
    before, recipient.paused_until = recipient.paused_until, until.astimezone(UTC) if until else INDEFINITELY
    if recipient.paused_until != before:
        changes = {"until": [None, until.astimezone(zone).date().isoformat()]} if until else None
        record("recipient.paused", recipient.email, tenant_id=tenant.id, changes=changes)
    db.session.commit()


def resume(tenant: Tenant, recipient: Recipient) -> None:
    """End the pause of a recipient."""
    if recipient.is_paused:
        record("recipient.resumed", recipient.email, tenant_id=tenant.id)
    recipient.paused_until = None
    notify_settings_changed(tenant.id)
    db.session.commit()


def _record_change(tenant: Tenant, before: Collection[Recipient], after: Sequence[str]) -> None:
    changes = {"recipients": [sorted(row.email for row in before), sorted(after)]}
    record("recipients.changed", tenant_id=tenant.id, changes=changes)
