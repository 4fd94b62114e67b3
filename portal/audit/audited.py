"""Models whose rows are written about when they change: with each flush, whoever changed them and by whichever way."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session
from sqlalchemy.orm.unitofwork import UOWTransaction

from portal.audit.entries import Change, note
from portal.extensions import Base


class Audited:
    """A model whose changes are told in the audit trail. What is named in no list is not told."""

    audited_as: ClassVar[str]  # begins the action: "mail_server" of "mail_server.changed"
    audited_fields: ClassVar[Sequence[str]] = ()
    audited_secrets: ClassVar[Sequence[str]] = ()  # only that they changed
    # A time that is set or cleared is an action of its own: "suspended_at": ("suspended", "resumed").
    audited_states: ClassVar[Mapping[str, tuple[str, str]]] = {}
    audited_verbs: ClassVar[Mapping[str, str]] = {}  # other words for "added", "changed" and "removed"

    @property
    def audited_subject(self) -> str:
        """What the entry is about, where the action alone does not say it."""
        return ""

    @property
    def audited_tenant_id(self) -> int | None:
        """Whose entry it is."""
        tenant_id: int | None = getattr(self, "tenant_id", None)
        return tenant_id


@event.listens_for(Session, "after_flush")
def _tell(session: Session, context: UOWTransaction) -> None:
    rank = {table: number for number, table in enumerate(Base.metadata.sorted_tables)}  # an account, then what it may
    states = sorted(context.states.items(), key=lambda item: rank[item[0].mapper.local_table])
    for state, (is_removed, is_only_listed) in states:  # unlike the session's, with orphans
        row = state.obj()
        if isinstance(row, Audited) and not is_only_listed:
            _tell_of(row, "removed" if is_removed else "added" if row in session.new else "changed")


def _tell_of(row: Audited, verb: str) -> None:
    changes = dict(_changes(row, verb))
    actions = [_state(row, field, change) for field, change in changes.items() if field in row.audited_states]
    told = {_name(field): change for field, change in changes.items() if field not in row.audited_states}
    if told or verb != "changed":
        actions.insert(0, row.audited_verbs.get(verb, verb))
    for action in actions:
        note(f"{row.audited_as}.{action}", row.audited_subject, tenant_id=row.audited_tenant_id, changes=told)
        told = {}


def _changes(row: Audited, verb: str) -> Iterator[tuple[str, Change]]:
    states = row.audited_states if verb == "changed" else ()
    for field in (*row.audited_fields, *row.audited_secrets, *states):
        old, new = _before_and_after(row, field, verb)
        if old == new:
            continue
        if field in row.audited_secrets:
            yield field, "set" if old is None else "removed" if new is None else "changed"
        else:
            yield field, [_plain(old), _plain(new)]


def _before_and_after(row: Audited, field: str, verb: str) -> tuple[Any, Any]:
    """Return the field's value before and after the flush, None where there is none."""
    history = inspect(row, raiseerr=True).attrs[field].history
    now = getattr(row, field)
    if verb == "added":
        return None, None if now is False else now  # what was never on is nothing to tell of
    if verb == "removed":
        return now, None
    return (history.deleted[0] if history.deleted else None, now) if history.added else (now, now)


def _state(row: Audited, field: str, change: Change) -> str:
    when_set, when_cleared = row.audited_states[field]
    return when_cleared if change[1] is None else when_set


def _plain(value: Any) -> Any:
    """Return a value for JSON."""
    return value.isoformat() if isinstance(value, datetime) else value


def _name(field: str) -> str:
    return field.removesuffix("_encrypted")
