"""The audit trail as CSV (RFC 4180)."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from portal.audit import trail
from portal.audit.models import AuditEntry
from portal.audit.trail import Wanted
from portal.comma_separated import lines
from portal.extensions import db

COLUMNS: Final = ("at", "tenant", "actor", "actor_account_id", "from_address", "action", "subject", "changes", "id")


def content(
    owner: int | None, wanted: Wanted, domains: Callable[[Collection[int]], Mapping[int, str]]
) -> Iterator[str]:
    """Give a tenant's entries, or everybody's for None, some at a time. `domains` finds tenants' by their ids.

    Each time is a transaction of its own, over before its lines are given: who reads slowly keeps no connection.
    """
    yield lines([COLUMNS])
    before = trail.NEWEST
    while True:
        entries = trail.batch(owner, wanted, before)
        text = lines(rows(entries, domains({each.tenant_id for each in entries if each.tenant_id})))
        db.session.commit()
        if not entries:
            return
        yield text
        before = entries[-1].id


def rows(entries: Iterable[AuditEntry], tenants: Mapping[int, str]) -> Iterator[Sequence[Any]]:
    """Give the cells of each entry, in the order of `COLUMNS`; `tenants` holds domains by id."""
    for entry in entries:
        tenant = "" if entry.tenant_id is None else tenants.get(entry.tenant_id, str(entry.tenant_id))
        at = entry.at.astimezone(UTC).isoformat(timespec="milliseconds")
        told = json.dumps(entry.changes, ensure_ascii=False)
        who = (entry.actor, entry.actor_account_id, entry.from_address)
        yield (at, tenant, *who, entry.action, entry.subject, told, entry.id)
