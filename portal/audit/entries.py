"""Writing entries: within the transaction of what they tell of, so that there is neither one without the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert

from portal.audit.actions import ACTIONS
from portal.audit.models import AuditEntry
from portal.audit.who import actor
from portal.database import every_tenant
from portal.extensions import db

Change = Sequence[Any] | str  # [old, new], or what happened to a secret


def note(
    action: str, subject: str = "", *, tenant_id: int | None = None, changes: Mapping[str, Change] | None = None
) -> None:
    """Write that somebody did something, without a commit. What changed nothing is nothing to tell of.

    Args:
        action: one of `ACTIONS`.
        subject: what it was done to.
        tenant_id: whose administrators may read it; None for the system's alone.
        changes: by field the old and the new value. Never a secret's.
    """
    told = {field: change for field, change in (changes or {}).items() if isinstance(change, str) or _differs(change)}
    if changes and not told:
        return
    assert action in ACTIONS, action
    who = actor()
    entry = {
        "tenant_id": tenant_id,
        "actor": who.name,
        "actor_account_id": who.account_id,
        "from_address": who.address,
        "action": action,
        "subject": subject,
        "changes": told,
    }
    with every_tenant():  # the entry may be the system's, or of a tenant in nobody's scope
        db.session.execute(insert(AuditEntry), [entry])


def _differs(change: Sequence[Any]) -> bool:
    old, new = change
    return bool(old != new)
