"""An entry as a sentence: "ann@acme.example changed the mail server: host mail.old → mail.new; password changed"."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, TypeAlias

from flask_babel import format_date, gettext, ngettext

from portal.audit.labels import (
    ACTIONS,
    DAY_FIELDS,
    EVENT_TYPE_SUBJECTS,
    FIELD_LABELS,
    PORTAL_ACTOR,
    ROLE_LABELS,
    SYSTEM_MAIL_SERVER,
    TIME_FIELDS,
    UNKNOWN_ACCOUNT,
    UNKNOWN_ACTOR,
)
from portal.audit.models import AuditEntry
from portal.web.filters import long_list
from portal.web.i18n import to_translate

SECRET_CHANGES: Final = (to_translate("set"), to_translate("changed"), to_translate("removed"))
TRANSLATED_NAMES: Final = (PORTAL_ACTOR, UNKNOWN_ACTOR, SYSTEM_MAIL_SERVER, UNKNOWN_ACCOUNT)

# What the pages call the values of fields: by field, then by value. The types of events are below "event_type".
ValueLabels: TypeAlias = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class FormattedChange:
    """How a field changed: from its old value to its new one, or for a secret only the word "set" or "changed"."""

    field: str
    word: str = ""
    old: str | datetime = ""
    new: str | datetime = ""


@dataclass(frozen=True, slots=True)
class FormattedEntry:
    """Who did what, in the language of the page: the text before the subject, the subject, and the text after it."""

    actor: str
    before: str
    subject: str
    after: str
    changes: Sequence[FormattedChange]


def format_entry(entry: AuditEntry, labels: ValueLabels) -> FormattedEntry:
    """Return the entry in the words of the pages, its changes in the order of the form."""
    before, _, after = gettext(ACTIONS.get(entry.action, entry.action)).partition("{}")
    changes = [change for field, values in entry.changes.items() for change in _format(field, values, labels)]
    return FormattedEntry(_translated_name(entry.actor), before, _subject(entry, labels), after, changes)


def sentence(entry: FormattedEntry) -> str:
    """Return the entry as plain text, with times in ISO 8601."""
    changes = "; ".join(_as_text(change) for change in entry.changes)
    return f"{entry.actor} {entry.before}{entry.subject}{entry.after}" + (f": {changes}" if changes else "")


def action_label(name: str) -> str:
    """Return an action without a subject, for a list of choices: "Changed the account …"."""
    text = gettext(ACTIONS[name]).replace("{}", "…")
    return text[0].upper() + text[1:]


def _subject(entry: AuditEntry, labels: ValueLabels) -> str:
    """Return what it was done to. A subject that is a text of the portal is stored in English and translated here."""
    _, message_ids = entry.changes.get("message_ids", (None, None))
    if message_ids:
        return ngettext("%(num)s email", "%(num)s emails", len(message_ids))
    if entry.action.startswith(EVENT_TYPE_SUBJECTS) and (label := labels["event_type"].get(entry.subject)):
        return gettext("“%(text)s”", text=label)
    return _translated_name(entry.subject)


def _translated_name(name: str) -> str:
    return gettext(name) if name in TRANSLATED_NAMES else name


def _format(field: str, change: Any, labels: ValueLabels) -> Iterator[FormattedChange]:
    label = gettext(FIELD_LABELS[field]) if field in FIELD_LABELS else field.replace("_", " ")
    if isinstance(change, str):
        yield FormattedChange(label, word=gettext(change))
        return
    old, new = change
    if isinstance(old, list) and isinstance(new, list):
        added, removed = [item for item in new if item not in old], [item for item in old if item not in new]
        if added:
            yield FormattedChange(gettext("added"), new=_value(field, added, labels))
        if removed:
            yield FormattedChange(gettext("removed"), new=_value(field, removed, labels))
        return
    yield FormattedChange(label, old="" if old is None else _value(field, old, labels), new=_value(field, new, labels))


def _value(field: str, value: Any, labels: ValueLabels) -> str | datetime:
    if value is None:
        return gettext("none")
    if isinstance(value, bool):
        return gettext("on") if value else gettext("off")
    if field == "role":
        return gettext(ROLE_LABELS.get(value, value))
    if field in TIME_FIELDS:
        return gettext("default") if value == "default" else datetime.fromisoformat(value)
    if field in DAY_FIELDS:
        return str(format_date(date.fromisoformat(value)))
    known = labels.get(field, {})
    return long_list([known.get(item, str(item)) for item in (value if isinstance(value, list) else [value])])


def _as_text(change: FormattedChange) -> str:
    old, new = (value.isoformat() if isinstance(value, datetime) else value for value in (change.old, change.new))
    return " ".join(filter(None, (change.field, change.word, old and f"{old} →", new)))
