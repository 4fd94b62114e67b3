"""An entry in words: ann@acme.example changed the mail server: host mail.old → mail.new; password changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from portal.audit.actions import ACTIONS
from portal.audit.models import AuditEntry


@dataclass(frozen=True, slots=True)
class Told:
    """What happened to a field: it went from old to new. Of a secret a word says it, of a list's members the field."""

    field: str
    word: str = ""
    old: str = ""
    new: str = ""


def action(entry: AuditEntry) -> tuple[str, str]:
    """Return what was done, in the words before and behind its subject."""
    before, _, after = ACTIONS.get(entry.action, entry.action).partition("{}")
    return before, after


def label(name: str) -> str:
    """Return an action's words without a subject, for a choice: "Changed the account …"."""
    words = ACTIONS[name].replace("{}", "…")
    return words[0].upper() + words[1:]


def changes(entry: AuditEntry) -> Sequence[Told]:
    """Return what changed, in the order of the form."""
    return [told for field, change in entry.changes.items() for told in _told(field.replace("_", " "), change)]


def _told(field: str, change: Any) -> Sequence[Told]:
    if isinstance(change, str):
        return [Told(field, word=change)]
    old, new = change
    if isinstance(old, list) and isinstance(new, list):
        added, removed = ([each for each in one if each not in other] for one, other in ((new, old), (old, new)))
        both = (("added", added), ("removed", removed))
        return [Told(word, new=_value(members)) for word, members in both if members]
    return [Told(field, old="" if old is None else _value(old), new="none" if new is None else _value(new))]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(value) if isinstance(value, list) else str(value)
