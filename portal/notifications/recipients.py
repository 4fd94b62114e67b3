"""The tenant's "Emails of Recipients": who they are, which events each of them gets, and until when one is paused."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from flask_babel import gettext
from sqlalchemy import select

from portal.audit.entries import note
from portal.errors import Refusal
from portal.extensions import db
from portal.forms import address
from portal.notifications.kinds import KINDS
from portal.notifications.models import Recipient
from portal.signals import mend
from portal.tenants.models import Tenant

MAXIMUM = 50
SEPARATORS = re.compile(r"[;,\n\r]+")


def listed() -> Sequence[Recipient]:
    """Return the recipients of the tenant in scope, in the order in which they were entered."""
    return db.session.scalars(select(Recipient).order_by(Recipient.id)).all()


def addresses() -> Sequence[str]:
    """Return the addresses of the tenant in scope, in the order in which they were entered."""
    return [each.address for each in listed()]


def wanting(event_type: str) -> Sequence[str]:
    """Return the addresses that get this event now."""
    return [each.address for each in listed() if not each.is_paused and event_type not in each.excluded_events]


def to_change(tenant: Tenant) -> Sequence[Recipient]:
    """Return the recipients; who else wants to change them waits. Events of the tenant go on."""
    db.session.execute(select(Tenant.id).where(Tenant.id == tenant.id).with_for_update(key_share=True))
    return listed()


def parse(text: str) -> list[str] | Refusal:
    """Return the addresses in `text`, separated by semicolons, commas or new lines, each once."""
    found: dict[str, str] = {}
    for part in SEPARATORS.split(text):
        if part.strip():
            try:
                canonical = address(part)
            except ValueError as error:
                return Refusal("recipients", str(error))
            found.setdefault(canonical.lower(), canonical)
    if not found:
        return Refusal("recipients", gettext("Enter at least one e-mail address."))
    if len(found) > MAXIMUM:
        too_many = gettext(
            "Enter at most %(most)s e-mail addresses; these are %(count)s.", most=MAXIMUM, count=len(found)
        )
        return Refusal("recipients", too_many)
    return list(found.values())


def replace(tenant: Tenant, new: Sequence[str]) -> None:
    """Make `new` the recipients of the tenant in scope. Those that remain keep what they get."""
    rows = {row.address.lower(): row for row in to_change(tenant)}
    _note_list(tenant, rows.values(), new)
    wanted = {each.lower(): each for each in new}
    for key in rows.keys() - wanted.keys():
        db.session.delete(rows[key])
    for key, each in wanted.items():
        if key in rows:
            rows[key].address = each
        else:
            db.session.add(Recipient(tenant_id=tenant.id, address=each))
    mend(tenant.id)
    db.session.commit()


def add(tenant: Tenant, new: str) -> Refusal | None:
    """Add an address, which gets every event, to the recipients of the tenant in scope."""
    rows = to_change(tenant)
    if any(row.address.lower() == new.lower() for row in rows):
        return Refusal("address", gettext("This address is a recipient already."))
    if len(rows) >= MAXIMUM:
        full = gettext("There are %(most)s recipients already. Remove one first.", most=MAXIMUM)
        return Refusal("address", full)
    _note_list(tenant, rows, [*(row.address for row in rows), new])
    db.session.add(Recipient(tenant_id=tenant.id, address=new))
    mend(tenant.id)
    db.session.commit()
    return None


def remove(tenant: Tenant, recipient: Recipient) -> Refusal | None:
    """Remove one of the recipients of the tenant in scope, but not the last one."""
    rest = [row for row in to_change(tenant) if row.id != recipient.id]
    if not rest:
        return Refusal("address", gettext("Somebody has to get the mail. Add another recipient first."))
    _note_list(tenant, [*rest, recipient], [row.address for row in rest])
    db.session.delete(recipient)
    db.session.commit()
    return None


def choose_events(tenant: Tenant, recipient: Recipient, event_types: Collection[str]) -> None:
    """Have a recipient get these events and no others that there are today."""
    before = list(recipient.excluded_events)
    # What is excluded of kinds that are not there just now stays so.
    others = [each for each in before if each not in KINDS]
    recipient.excluded_events = [*others, *(each for each in KINDS if each not in event_types)]
    gets = [[each for each in KINDS if each not in excluded] for excluded in (before, recipient.excluded_events)]
    note("recipient.events_chosen", recipient.address, tenant_id=tenant.id, changes={"events": gets})
    mend(tenant.id)
    db.session.commit()


def pause(tenant: Tenant, recipient: Recipient, until: date) -> None:
    """Send a recipient nothing before this day begins in the tenant's time zone."""
    recipient.paused_until = datetime.combine(until, time(), ZoneInfo(tenant.time_zone)).astimezone(UTC)
    changes = {"until": [None, until.isoformat()]}
    note("recipient.paused", recipient.address, tenant_id=tenant.id, changes=changes)
    db.session.commit()


def resume(tenant: Tenant, recipient: Recipient) -> None:
    """End the pause of a recipient."""
    if recipient.is_paused:
        note("recipient.resumed", recipient.address, tenant_id=tenant.id)
    recipient.paused_until = None
    mend(tenant.id)
    db.session.commit()


def _note_list(tenant: Tenant, before: Collection[Recipient], after: Sequence[str]) -> None:
    changes = {"recipients": [sorted(row.address for row in before), sorted(after)]}
    note("recipients.changed", tenant_id=tenant.id, changes=changes)
