"""The words of an event kind's mail, the default ones or a tenant's own, and what they are compiled to.

On an event's way only the id of a version is known. A version is never changed, so what it was compiled to is kept by
that id, and only the first event in a process costs a statement.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from jinja2 import TemplateError

from portal import statements
from portal.languages import translated
from portal.notifications import markup
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.own_html import compile_html
from portal.notifications.templates import Template, compile_template
from portal.notifications.unfit import INTRICATE, Unfit, check_address, check_subject

logger = logging.getLogger(__name__)

DEEPEST = 30  # emphasis in emphasis, which is looked at by functions that call themselves
KEPT = 512  # compiled versions in a process
FIND = "SELECT format, subject, body FROM mail_templates WHERE id = %(id)s"

# Whatever may be wrong with a template that was saved, and maybe by an older version of the portal.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError)


class Format(StrEnum):
    """What a body is written in."""

    MARKDOWN = "markdown"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Wording:
    """Subject and body of a mail, with placeholders."""

    format: Format
    subject: str
    body: str


def default(kind: EventKind, language: str = "en") -> Wording:
    """Return the kind's own words in a language."""
    return Wording(Format.MARKDOWN, translated(language, kind.subject), translated(language, kind.body))


def compiled(kind: EventKind, wording: Wording, language: str = "en") -> Template:
    """Return the words compiled.

    Raises:
        Unfit: a placeholder stands where no value can be made safe, or they are too intricate.
    """
    check_subject(wording.subject)
    if wording.format is Format.HTML:
        return compile_html(wording.subject, wording.body, language)
    tokens = markup.parse(wording.body)
    if markup.depth(tokens) > DEEPEST:
        raise Unfit(INTRICATE)
    for address in markup.addresses(tokens):
        check_address(address)
    return compile_template(wording.subject, wording.body, kind.look, translated(language, kind.why), language)


def in_use(version: UUID | None, kind: EventKind, language: str = "en") -> Template | None:
    """Return a version compiled, None for the default: for None, and for a version that cannot be compiled."""
    return _compiled(version, kind.type, language) if version else None


@lru_cache(maxsize=KEPT)
def _compiled(version: UUID, event_type: str, language: str) -> Template | None:
    row = statements.run(FIND, {"id": version})
    assert row is not None  # a foreign key says so
    try:
        return compiled(KINDS[event_type], Wording(Format(row["format"]), row["subject"], row["body"]), language)
    except _FAULTS:  # a mail in other words is better than none
        logger.exception("Version %s of the template of %s does not compile: the default is sent", version, event_type)
        return None
