"""An entry as a sentence: "ann@acme.example changed the mail server: host mail.old → mail.new; password changed"."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from flask_babel import format_date, gettext, ngettext

from portal.audit.labels import ACTIONS, DAY_FIELDS, FIELD_LABELS, SYSTEM_MAIL_SERVER, TIME_FIELDS, UNKNOWN_ACCOUNT
from portal.audit.models import AuditEntry
from portal.web.i18n import to_translate

SECRET_CHANGES: Final = (to_translate("set"), to_translate("changed"), to_translate("removed"))


@dataclass(frozen=True, slots=True)
class FormattedChange:
    """How a field changed: from its old value to its new one, or for a secret only the word "set" or "changed"."""

    field: str
    word: str = ""
    old: str | datetime = ""
    new: str | datetime = ""


def action(entry: AuditEntry) -> tuple[str, str]:
    """Return what was done: the text before the subject, and the text after it."""
    before, _, after = gettext(ACTIONS.get(entry.action, entry.action)).partition("{}")
    return before, after


def subject(entry: AuditEntry) -> str:
    """Return what it was done to. A subject that is a text of the portal is stored in English and translated here."""
    _, message_ids = entry.changes.get("message_ids", (None, None))
    if message_ids:
        return ngettext("%(num)s email", "%(num)s emails", len(message_ids))
    return gettext(entry.subject) if entry.subject in (SYSTEM_MAIL_SERVER, UNKNOWN_ACCOUNT) else entry.subject


def action_label(name: str) -> str:
    """Return an action without a subject, for a list of choices: "Changed the account …"."""
    text = gettext(ACTIONS[name]).replace("{}", "…")
    return text[0].upper() + text[1:]


def changes(entry: AuditEntry) -> Sequence[FormattedChange]:
    """Return the entry's changes, in the order of the form."""
    return [formatted for field, change in entry.changes.items() for formatted in _format(field, change)]


def _format(field: str, change: Any) -> Iterator[FormattedChange]:
    label = gettext(FIELD_LABELS[field]) if field in FIELD_LABELS else field.replace("_", " ")
    if isinstance(change, str):
        yield FormattedChange(label, word=gettext(change))
        return
    old, new = change
    if isinstance(old, list) and isinstance(new, list):
        added, removed = [item for item in new if item not in old], [item for item in old if item not in new]
        if added:
            yield FormattedChange(gettext("added"), new=", ".join(added))
        if removed:
            yield FormattedChange(gettext("removed"), new=", ".join(removed))
        return
    yield FormattedChange(label, old="" if old is None else _value(field, old), new=_value(field, new))


def _value(field: str, value: Any) -> str | datetime:
    if value is None:
        return gettext("none")
    if isinstance(value, bool):
        return gettext("on") if value else gettext("off")
    if field in TIME_FIELDS:
        return gettext("default") if value == "default" else datetime.fromisoformat(value)
    if field in DAY_FIELDS:
        return str(format_date(date.fromisoformat(value)))
    return ", ".join(value) if isinstance(value, list) else str(value)
