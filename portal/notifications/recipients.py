"""The tenant's "Emails of Recipients"."""

import re
from collections.abc import Sequence

from sqlalchemy import delete, select

from portal.audit.entries import note
from portal.errors import Refusal
from portal.extensions import db
from portal.forms import address
from portal.notifications.models import Recipient
from portal.signals import mend
from portal.tenants.models import Tenant

MAXIMUM = 50
SEPARATORS = re.compile(r"[;,\n\r]+")


def addresses() -> Sequence[str]:
    """Return the addresses of the tenant in scope, in the order in which they were entered."""
    return db.session.scalars(select(Recipient.address).order_by(Recipient.id)).all()


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
        return Refusal("recipients", "Enter at least one e-mail address.")
    if len(found) > MAXIMUM:
        return Refusal("recipients", f"Enter at most {MAXIMUM} e-mail addresses; these are {len(found)}.")
    return list(found.values())


def replace(tenant: Tenant, new: Sequence[str]) -> None:
    """Make `new` the recipients of the tenant in scope."""
    note("recipients.changed", tenant_id=tenant.id, changes={"recipients": [sorted(addresses()), sorted(new)]})
    db.session.execute(delete(Recipient))
    db.session.add_all(Recipient(tenant_id=tenant.id, address=each) for each in new)
    mend(tenant.id)
    db.session.commit()
