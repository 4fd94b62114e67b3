"""The source of an email template, the default or a tenant's own: its repair, its checks and its compilation.

While an event is processed, only the id of a version is known. A version never changes, so its compiled form is cached
by that id, and only its first event in a process costs a query.
"""

import html
import logging
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from uuid import UUID

from jinja2 import TemplateError

from portal.database import fast_sql
from portal.events.event_type import EventType
from portal.events.types import EVENT_TYPES
from portal.mail_templates import markdown
from portal.mail_templates.compiler import CompiledTemplate, compile_markdown
from portal.mail_templates.custom_html.sanitizer import compile_html, sanitize
from portal.mail_templates.placement import SPLIT, TOO_COMPLEX, MisplacedPlaceholder, check_subject, check_url
from portal.web.i18n import translated

logger = logging.getLogger(__name__)

MAX_NESTING = 30  # of emphasis, which is processed by recursive functions
CACHE_SIZE = 512  # compiled versions in a process
SELECT_VERSION = "SELECT format, subject, body FROM mail_templates WHERE id = %(id)s"

# What may be wrong with a saved template, perhaps one saved by an older release of the portal.
COMPILE_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TemplateError, TypeError, ValueError)

# What editors make of a placeholder.
_INVISIBLE = r"(?:\\|[\u00ad\u200b-\u200d\u2060\ufeff]|&shy;|&ZeroWidthSpace;|&#8203;|&#x200b;|<wbr\s*/?>)"
_PERCENT = r"(?:[%\uff05]|&#37;|&#x25;|&percnt;)"
_WORD = r"(?:[A-Za-z0-9_\uff3f]|&#95;|&#x5f;|&lowbar;)"
_CHANGED: Final = re.compile(
    f"{_PERCENT}{_INVISIBLE}*{_PERCENT}((?:{_INVISIBLE}*{_WORD}){{1,60}}){_INVISIBLE}*{_PERCENT}{_INVISIBLE}*{_PERCENT}",
    re.IGNORECASE,
)
_INVISIBLES: Final = re.compile(_INVISIBLE, re.IGNORECASE)
_FULL_WIDTH_UNDERSCORE: Final = "\uff3f"
# The tags of formatting, which do not end a word.
_FORMATTING: Final = re.compile(
    r"</?(?:a|abbr|b|bdi|bdo|big|code|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|var)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG: Final = re.compile(r"<[^<>]*>")


class TemplateFormat(StrEnum):
    """The format of a template's body."""

    MARKDOWN = "markdown"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """The subject and body of an email, with placeholders."""

    format: TemplateFormat
    subject: str
    body: str

    def __post_init__(self) -> None:
        """Repair the placeholders that an editor has escaped."""
        object.__setattr__(self, "subject", repair_placeholders(self.subject))
        object.__setattr__(self, "body", repair_placeholders(self.body))


def default_source(event_type: EventType, language: str = "en") -> TemplateSource:
    """Return the source of the default template of an event type."""
    subject, body = (translated(language, text) for text in (event_type.subject, event_type.body))
    return TemplateSource(TemplateFormat.MARKDOWN, subject, body)


def compile_source(event_type: EventType, source: TemplateSource, language: str = "en") -> CompiledTemplate:
    """Return the compiled template. MisplacedPlaceholder: a value would be unsafe there, or it is too complex."""
    check_subject(source.subject)
    if source.format is TemplateFormat.HTML:
        return compile_html(source.subject, source.body, language)
    if markdown.is_too_complex(source.body):
        raise MisplacedPlaceholder(TOO_COMPLEX)
    tokens = markdown.parse(source.body)
    if markdown.nesting_depth(tokens) > MAX_NESTING:
        raise MisplacedPlaceholder(TOO_COMPLEX)
    for url in markdown.link_urls(tokens):
        check_url(url)
    footnote = translated(language, event_type.footnote)
    return compile_markdown(source.subject, source.body, event_type.style, footnote, language)


def check_source(event_type: EventType, source: TemplateSource, language: str = "en") -> CompiledTemplate:
    """Return the compiled template if it may be saved: as `compile_source`, if no formatting splits a placeholder."""
    compiled = compile_source(event_type, source, language)
    is_html = source.format is TemplateFormat.HTML
    page = sanitize(source.body) if is_html else markdown.to_html(markdown.parse(source.body))
    if name := split_placeholder(page):
        raise MisplacedPlaceholder(SPLIT, name)
    return compiled


def compiled_version(
    tenant_id: int, version_id: UUID | None, event_type: EventType, language: str = "en"
) -> CompiledTemplate | None:
    """Return a compiled version of the tenant; None means the default, also if the version cannot be compiled."""
    return _compile_version(tenant_id, version_id, event_type.type, language) if version_id else None


@lru_cache(maxsize=CACHE_SIZE)
def _compile_version(tenant_id: int, version_id: UUID, event_type: str, language: str) -> CompiledTemplate | None:
    row = fast_sql.run(SELECT_VERSION, {"id": version_id}, scope=str(tenant_id))
    assert row is not None  # guaranteed by a foreign key
    source = TemplateSource(TemplateFormat(row["format"]), row["subject"], row["body"])
    try:
        return compile_source(EVENT_TYPES[event_type], source, language)
    except COMPILE_ERRORS:  # an email with the default text is better than none
        logger.exception(
            "Version %s of the template of %s does not compile: the default is sent", version_id, event_type
        )
        return None


def repair_placeholders(text: str) -> str:
    r"""Return a template with placeholders like `%%CALLER\_NUMBER%%` as their author meant them."""
    return _CHANGED.sub(lambda match: f"%%{_name(match[1])}%%", text)


def split_placeholder(page: str) -> str | None:
    """Return the name of a placeholder in this HTML that is split by formatting, or None."""
    whole = Counter(markdown.PLACEHOLDER.findall(_TAG.sub("\n", page)))
    as_read = repair_placeholders(html.unescape(_TAG.sub("\n", _FORMATTING.sub("", page))))
    counts = Counter(markdown.PLACEHOLDER.findall(as_read))
    return next((name for name, count in counts.items() if count > whole[name]), None)


def _name(changed: str) -> str:
    return html.unescape(_INVISIBLES.sub("", changed)).replace(_FULL_WIDTH_UNDERSCORE, "_")
