"""Models whose changes are recorded in the audit trail with each flush, wherever they were made."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import FromClause, event, inspect
from sqlalchemy.orm import Session
from sqlalchemy.orm.unitofwork import UOWTransaction

from portal.audit.log import Change, record
from portal.database.scope import every_tenant
from portal.extensions import Base


class Audited:
    """A model whose changes are recorded. Fields that are in none of its lists are not recorded."""

    audited_as: ClassVar[str]  # the first half of the action: "mail_server" of "mail_server.changed"
    audited_fields: ClassVar[Sequence[str]] = ()
    audited_secrets: ClassVar[Sequence[str]] = ()  # only that they changed
    # A time whose setting and clearing are actions of their own: "suspended_at": ("suspended", "resumed").
    audited_states: ClassVar[Mapping[str, tuple[str, str]]] = {}
    audited_verbs: ClassVar[Mapping[str, str]] = {}  # replacements for "added", "changed" and "removed"

    @property
    def audited_subject(self) -> str:
        """What the entry is about, if the action alone does not say it."""
        return ""

    @property
    def audited_tenant_id(self) -> int | None:
        """The tenant that the entry belongs to."""
        tenant_id: int | None = getattr(self, "tenant_id", None)
        return tenant_id


@event.listens_for(Session, "after_flush")
def _record_changes(session: Session, context: UOWTransaction) -> None:
    rows = [
        (state.mapper.local_table, row, is_removed)
        for state, (is_removed, is_only_listed) in context.states.items()  # with orphans, unlike the session's lists
        if isinstance(row := state.obj(), Audited) and not is_only_listed
    ]
    if not rows:
        return
    with every_tenant():
        for _, row, is_removed in sorted(rows, key=lambda item: _ranks()[item[0]]):
            _record_row(row, "removed" if is_removed else "added" if row in session.new else "changed")


@cache
def _ranks() -> Mapping[FromClause, int]:
    """Return the order in which rows are recorded: an account before its roles."""
    return {table: number for number, table in enumerate(Base.metadata.sorted_tables)}


def _record_row(row: Audited, verb: str) -> None:
    verbs, changes = [], {}
    for field, change in _changes(row, verb):
        if field in row.audited_states:
            when_set, when_cleared = row.audited_states[field]
            verbs.append(when_cleared if change[1] is None else when_set)
        else:
            changes[field.removesuffix("_encrypted")] = change
    verb = row.audited_verbs.get(verb, verb)
    if changes or verb != "changed":  # a row that is added with what was the default changes nothing
        verbs.insert(0, verb)
    for action in verbs:
        record(f"{row.audited_as}.{action}", row.audited_subject, tenant_id=row.audited_tenant_id, changes=changes)
        changes = {}


def _changes(row: Audited, verb: str) -> Iterator[tuple[str, Change]]:
    states = row.audited_states if verb == "changed" else ()
    for field in (*row.audited_fields, *row.audited_secrets, *states):
        old, new = _before_and_after(row, field, verb)
        if old == new:
            continue
        if field in row.audited_secrets:
            yield field, "set" if old is None else "removed" if new is None else "changed"
        else:
            yield field, [_json_value(old), _json_value(new)]


def _before_and_after(row: Audited, field: str, verb: str) -> tuple[Any, Any]:
    """Return the field's value before and after the flush, None if there is none."""
    history = inspect(row, raiseerr=True).attrs[field].history
    value = getattr(row, field)
    if verb == "added":
        return None, None if value is False else value  # a switch that is off in a new row is not worth recording
    if verb == "removed":
        return value, None
    return (history.deleted[0] if history.deleted else None, value) if history.added else (value, value)


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
