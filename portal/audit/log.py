"""Writing entries, in the transaction of the change: both are stored, or neither. Who acts is set for each context."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from flask import g
from sqlalchemy import insert

from portal.audit.labels import ACTIONS, PORTAL_ACTOR
from portal.audit.models import AuditEntry
from portal.database.scope import every_tenant
from portal.extensions import db

BATCH: Final = "audit_entries"  # in the `info` of a session: the entries that are written later
Change = Sequence[Any] | str  # [old, new], or what happened to a secret


@dataclass(frozen=True, slots=True)
class Actor:
    """The name of who acts, their account, and the IP address of their client, if there is one."""

    name: str
    account_id: int | None = None
    ip_address: str | None = None


PORTAL = Actor(PORTAL_ACTOR)


def set_actor(find: Callable[[], Actor]) -> None:
    """Set who acts for the rest of this application context. `find` is called only when an entry is written."""
    g.actor = find


def current_actor() -> Actor:
    """Return who acts: the portal, unless `set_actor` was called."""
    find: Callable[[], Actor] | None = g.get("actor")
    return find() if find else PORTAL


def record(
    action: str, subject: str = "", *, tenant_id: int | None = None, changes: Mapping[str, Change] | None = None
) -> None:
    """Write an entry without committing it. Changes that changed nothing are left out, and so is an entry without any.

    Args:
        action: one of `ACTIONS`.
        subject: what it was done to.
        tenant_id: the tenant whose administrators may read it; None for system administrators alone.
        changes: the old and the new value by field. Never a secret's value.
    """
    changed = {
        field: change for field, change in (changes or {}).items() if isinstance(change, str) or change[0] != change[1]
    }
    if changes and not changed:
        return
    assert action in ACTIONS, action
    actor = current_actor()
    entry = {
        "tenant_id": tenant_id,
        "actor": actor.name,
        "actor_account_id": actor.account_id,
        "ip_address": actor.ip_address,
        "action": action,
        "subject": subject,
        "changes": changed,
    }
    batch: list[dict[str, Any]] | None = db.session.info.get(BATCH)
    if batch is None:
        _write([entry])
    else:
        batch.append(entry)


@contextmanager
def batched() -> Iterator[None]:
    """Write the entries of the block with one statement at its end, which is quicker for hundreds of them."""
    entries: list[dict[str, Any]] = []
    db.session.info[BATCH] = entries
    try:
        yield
        db.session.flush()
    finally:
        del db.session.info[BATCH]
    if entries:
        _write(entries)


def _write(entries: Sequence[dict[str, Any]]) -> None:
    with every_tenant():  # an entry may be the system's, or a tenant's that is not in scope
        db.session.execute(insert(AuditEntry), entries)
