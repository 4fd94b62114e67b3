"""What an author should know about a template that may be saved all the same."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from flask_babel import gettext

from portal.languages import to_translate
from portal.notifications.kinds import EventKind
from portal.notifications.own_html import taken_out
from portal.notifications.placeholders import feeds
from portal.notifications.templates import placeholders_in, unknown_placeholders
from portal.notifications.unfit import PICTURE
from portal.notifications.wording import Format, Wording

# Without these a new user cannot do what the mail is for.
NEEDED = {
    PICTURE: to_translate("%(name)s is missing: nobody can set up a phone by scanning."),
    "EXTENSION_PASSWORD": to_translate("%(name)s is missing: nobody can sign in by hand."),
}
NEAR = 0.6  # of 1, which is the same


def remarks(kind: EventKind, wording: Wording) -> Sequence[str]:
    """Return sentences about the template, each of them something to look at."""
    return [*_unknown(kind, wording), *_missing(kind, wording), *_read_by_all(kind, wording), *_removed(wording)]


def _unknown(kind: EventKind, wording: Wording) -> Iterator[str]:
    for name in unknown_placeholders(wording.subject, wording.body, kind.placeholders):
        written, near = f"%%{name}%%", get_close_matches(name.upper(), kind.placeholders, 1, NEAR)
        if name == PICTURE:
            yield gettext("%(name)s stays empty: this event has no QR code.", name=written)
        elif near:
            yield gettext(
                "%(name)s is unknown and stays empty. Did you mean %(near)s?", name=written, near=f"%%{near[0]}%%"
            )
        else:
            yield gettext("%(name)s is unknown and stays empty.", name=written)


def _missing(kind: EventKind, wording: Wording) -> Iterator[str]:
    used = placeholders_in(wording.body)
    for name, sentence in NEEDED.items():
        if name in kind.placeholders and name not in used:
            yield gettext(sentence, name=f"%%{name}%%")


def _read_by_all(kind: EventKind, wording: Wording) -> Iterator[str]:
    marks, secret = feeds(kind.fields), kind.fields.secret_names()
    secrets = {mark.placeholder for field, mark in marks.items() if field in secret}
    for name in sorted(placeholders_in(wording.subject) & secrets):
        yield gettext(
            "%(name)s in the subject is read by everybody who sees the list of mails. Move it into the text.",
            name=f"%%{name}%%",
        )


def _removed(wording: Wording) -> Iterator[str]:
    if wording.format is Format.HTML and (removed := taken_out(wording.body)):
        yield gettext("Not sent, because no mail needs it: %(removed)s.", removed=", ".join(removed))
