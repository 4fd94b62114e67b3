"""An entry in words: ann@acme.example changed the mail server: host mail.old → mail.new; password changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from flask_babel import format_date, gettext, ngettext

from portal.audit.actions import ACTIONS, SYSTEM_MAIL_SERVER
from portal.audit.fields import DAYS, LABELS, MOMENTS
from portal.audit.models import AuditEntry
from portal.languages import to_translate

OF_SECRETS: Final = (to_translate("set"), to_translate("changed"), to_translate("removed"))


@dataclass(frozen=True, slots=True)
class Told:
    """What happened to a field: it went from old to new. Of a secret a word says it, of a list's members the field."""

    field: str
    word: str = ""
    old: str | datetime = ""
    new: str | datetime = ""


def action(entry: AuditEntry) -> tuple[str, str]:
    """Return what was done, in the words before and behind its subject."""
    before, _, after = gettext(ACTIONS.get(entry.action, entry.action)).partition("{}")
    return before, after


def subject(entry: AuditEntry) -> str:
    """Return what it was done to. Words of the portal's own, which are stored in English, are the reader's."""
    _, mails = entry.changes.get("message_ids", (None, None))
    if mails:
        return ngettext("%(num)s mail", "%(num)s mails", len(mails))
    return gettext(entry.subject) if entry.subject == SYSTEM_MAIL_SERVER else entry.subject


def label(name: str) -> str:
    """Return an action's words without a subject, for a choice: "Changed the account …"."""
    words = gettext(ACTIONS[name]).replace("{}", "…")
    return words[0].upper() + words[1:]


def changes(entry: AuditEntry) -> Sequence[Told]:
    """Return what changed, in the order of the form."""
    return [told for field, change in entry.changes.items() for told in _told(field, change)]


def _told(field: str, change: Any) -> Sequence[Told]:
    label = gettext(LABELS[field]) if field in LABELS else field.replace("_", " ")
    if isinstance(change, str):
        return [Told(label, word=gettext(change))]
    old, new = change
    if isinstance(old, list) and isinstance(new, list):
        added, removed = ([each for each in one if each not in other] for one, other in ((new, old), (old, new)))
        both = ((gettext("added"), added), (gettext("removed"), removed))
        return [Told(word, new=", ".join(members)) for word, members in both if members]
    return [Told(label, old="" if old is None else _value(field, old), new=_value(field, new))]


def _value(field: str, value: Any) -> str | datetime:
    if value is None:
        return gettext("none")
    if isinstance(value, bool):
        return gettext("on") if value else gettext("off")
    if field in MOMENTS:
        return gettext("default") if value == "default" else datetime.fromisoformat(value)
    if field in DAYS:
        return str(format_date(date.fromisoformat(value)))
    return ", ".join(value) if isinstance(value, list) else str(value)
