"""The audit trail as CSV (RFC 4180)."""

import csv
import json
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from io import StringIO
from typing import Any, Final

from portal.audit import trail
from portal.audit.models import AuditEntry
from portal.audit.trail import Wanted
from portal.extensions import db

COLUMNS: Final = ("at", "tenant", "actor", "actor_account_id", "from_address", "action", "subject", "changes", "id")
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


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


def lines(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as lines of CSV whose cells no spreadsheet takes for a formula."""
    buffer = StringIO()
    csv.writer(buffer).writerows([as_text(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def rows(entries: Iterable[AuditEntry], tenants: Mapping[int, str]) -> Iterator[Sequence[Any]]:
    """Give the cells of each entry, in the order of `COLUMNS`; `tenants` holds domains by id."""
    for entry in entries:
        tenant = "" if entry.tenant_id is None else tenants.get(entry.tenant_id, str(entry.tenant_id))
        at = entry.at.astimezone(UTC).isoformat(timespec="milliseconds")
        told = json.dumps(entry.changes, ensure_ascii=False)
        who = (entry.actor, entry.actor_account_id, entry.from_address)
        yield (at, tenant, *who, entry.action, entry.subject, told, entry.id)


def as_text(cell: Any) -> str:
    """Return a cell with an apostrophe in front where a spreadsheet would take it for a formula.

    That is OWASP's advice on CSV injection; some spreadsheets also take the wide forms of the signs, and skip blanks.
    """
    text = "" if cell is None else str(cell)
    begins = text if text.startswith(FORMULA) else unicodedata.normalize("NFKC", text.lstrip())
    return f"'{text}" if begins.startswith(FORMULA) else text
