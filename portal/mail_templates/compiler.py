"""Compiles an email template once per version, and fills it in for each event.

Values are never interpreted as markup: each is escaped for its position, and invisible breaks keep its dots and signs
from becoming links. HTML comes only from a `RichValue`, which the portal itself creates.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache, partial
from typing import NamedTuple
from urllib.parse import quote

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2 import Template as CompiledPartial
from markupsafe import Markup

from portal.config import ROOT
from portal.events.event_type import EmailStyle, EventData, EventType
from portal.events.values import RichValue, Values, is_same_text, plain_text, prevent_autolinks
from portal.mail_servers.smtp.mime import MessageContent
from portal.mail_templates import markdown
from portal.mail_templates.branding import DEFAULT_BRANDING, Branding, Palette
from portal.mail_templates.markdown import (
    ATTRIBUTE_PREFIX,
    BRANDING_PREFIX,
    LINK_PREFIX,
    PLAIN_PREFIX,
    TEL_PREFIX,
    URL_PREFIX,
)
from portal.mail_templates.placeholders import MailContext, placeholder_values
from portal.mail_templates.placement import QR_CODE
from portal.web.i18n import html_language, to_translate, translated

TEMPLATES = ROOT / "templates"
MAX_SUBJECT_VALUE_LENGTH = 80  # characters of one value
MAX_COMBINATIONS = 64  # of values that are there or missing, which a text remembers

_PLACEHOLDER_OR_EDGE = re.compile(
    r"%%(?P<name>(?:(?:url|tel|link|attr|plain|branding):)?\w+)%%(?: \(%%(?P<bracket>(?:plain:)?\w+)%%\))?"
    r"|(?P<edge>[\x02\x03])",
    re.ASCII,
)
_ANY_PLACEHOLDER = re.compile(r"%%((?:\w+:)?\w+)%%", re.ASCII)
_PLAIN_ELEMENT = re.compile(r"(<(?:a|title)\b[^<>]*>|</(?:a|title)>)", re.IGNORECASE)  # no element fits into it
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROL_CHARACTERS_EXCEPT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_INLINER = css_inline.CSSInliner(keep_style_tags=False, load_remote_stylesheets=False)
_BRANDING_PARTS = (*Palette._fields, "footer")
SETTINGS_LINK = f"{BRANDING_PREFIX}settings_link"
SETTINGS_LINK_TEXT = to_translate("Pause or change these emails")
_LAYOUT_PLACEHOLDERS = frozenset({"TENANT_NAME", SETTINGS_LINK, *(BRANDING_PREFIX + part for part in _BRANDING_PARTS)})
# Keeps an email program from showing more than the first paragraph next to the subject.
_PREHEADER_FILLER = "\u034f\u200c\u00a0" * 60


class _Slot(NamedTuple):
    """The position of a value. A second one, `bracket`, follows in brackets if it differs from the first."""

    name: str
    bracket: str | None


class _Block(NamedTuple):
    parts: tuple["str | _Slot | _Block", ...]


@dataclass(frozen=True, eq=False, slots=True)
class CompiledText:
    """The subject, plain text or HTML of a template, and the names of the values in it."""

    root: _Block
    names: frozenset[str]
    # By the names that have a value: events of one type mostly carry the same fields.
    _visible_parts: dict[frozenset[str], Sequence[str | _Slot]] = field(default_factory=dict)

    def fill(self, values: Values, escape: Callable[[str | RichValue], str]) -> str:
        """Return the text with these values, each as `escape` returns it."""
        texts = {name: text for name in self.names if name in values and (text := escape(values[name]))}
        names = frozenset(texts)
        if (parts := self._visible_parts.get(names)) is None:
            if len(self._visible_parts) == MAX_COMBINATIONS:
                self._visible_parts.clear()
            parts = self._visible_parts[names] = _filter_block(self.root, names)[0]
        return "".join([part if isinstance(part, str) else _fill_slot(part, texts, values) for part in parts])


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """A compiled template; `placeholders` are the names that it uses, `prefixed_names` those within links and tags."""

    subject: CompiledText
    text: CompiledText
    html: CompiledText
    placeholders: frozenset[str]
    prefixed_names: tuple[tuple[str, str, str], ...]  # prefix, name, and both together

    @classmethod
    def of(cls, subject: str, text: str, page: str, placeholders: frozenset[str]) -> "CompiledTemplate":
        """Return the template with these parts; `page` is its HTML."""
        parts = compile_text(subject), compile_text(text), compile_text(_use_plain_text_in_links(page))
        names = {name for part in parts for name in part.names if ":" in name and not name.startswith(BRANDING_PREFIX)}
        split = (name.rpartition(":") for name in sorted(names))
        prefixed_names = tuple((f"{prefix}:", name, f"{prefix}:{name}") for prefix, _, name in split)
        return cls(*parts, placeholders, prefixed_names)

    def render(self, values: Values) -> MessageContent:
        """Return the filled-in email.

        A block is left out if none of its placeholders has a value; elsewhere a placeholder without a value is empty.
        """
        used = {name: values[name] for name in self.placeholders if name in values}
        safe = {n: value if isinstance(value, RichValue) else prevent_autolinks(value) for n, value in used.items()}
        for prefix, name, prefixed_name in self.prefixed_names:
            if name in used:
                value = (safe if prefix == PLAIN_PREFIX else used)[name]
                safe[prefixed_name] = _TEXTS_BY_PREFIX[prefix](plain_text(value))
        return MessageContent(
            subject=" ".join(self.subject.fill(used, _for_subject).split()),
            text=self.text.fill(safe, plain_text).strip() + "\n",
            html=self.html.fill(safe, _for_html),
        )


def compile_markdown(
    subject: str, body: str, style: EmailStyle, footnote: str, language: str = "en"
) -> CompiledTemplate:
    """Return the compiled template of an email in the portal's layout.

    The body is Markdown (CommonMark without HTML and images). The footnote says why the reader gets this email.
    """
    subject = _CONTROL_CHARACTERS.sub(" ", subject).strip()
    tokens = markdown.parse(_CONTROL_CHARACTERS_EXCEPT_LINES.sub("", body))
    parts = {
        "subject": subject,
        "preheader": _use_plain_text(markdown.first_paragraph(tokens)) + _PREHEADER_FILLER,
        "style": style.value,
        "footnote": footnote,
        "language": html_language(language),
        "_": partial(translated, language),
        "branding": {part: f"%%{BRANDING_PREFIX}{part}%%" for part in _BRANDING_PARTS},
        "settings_link": f"%%{SETTINGS_LINK}%%",
        "open": Markup(markdown.OPEN_COMMENT),  # noqa: S704
        "close": Markup(markdown.CLOSE_COMMENT),  # noqa: S704
    }
    text_parts = {"open": markdown.OPEN, "close": markdown.CLOSE, "body": markdown.to_text(tokens)}
    text = _layouts().get_template("email/layout.txt").render(parts | text_parts)
    page = _layouts().get_template("email/layout.html").render(parts, body=Markup(markdown.to_html(tokens)))  # noqa: S704
    page = _INLINER.inline(page)
    page = page.replace(markdown.OPEN_COMMENT, markdown.OPEN).replace(markdown.CLOSE_COMMENT, markdown.CLOSE)
    placeholders = placeholders_in(subject, body, footnote) | _LAYOUT_PLACEHOLDERS
    return CompiledTemplate.of(subject, text, page, placeholders)


@lru_cache(maxsize=64)
def default_template(event_type: EventType, language: str = "en") -> CompiledTemplate:
    """Return the compiled default template of an event type."""
    texts = (event_type.subject, event_type.body, event_type.footnote)
    subject, body, footnote = (translated(language, text) for text in texts)
    return compile_markdown(subject, body, event_type.style, footnote, language)


def placeholders_in(*texts: str) -> frozenset[str]:
    """Return the names of the placeholders in the texts."""
    return frozenset(name for text in texts for name in markdown.PLACEHOLDER.findall(text))


def unknown_placeholders(subject: str, body: str, known: Iterable[str]) -> list[str]:
    """Return the placeholders of a template that are not among the known ones, sorted by name."""
    return sorted(placeholders_in(subject, body) - frozenset(known))


def render_message(
    event_type: EventType,
    data: EventData,
    time: datetime,
    context: MailContext,
    qr_code: RichValue | None = None,
    template: CompiledTemplate | None = None,
    settings_url: str = "",
) -> MessageContent:
    """Return the content of an event's email, by the given or the default template.

    Without `qr_code` everything about the QR code is left out, and without `settings_url` the link below the email with
    which a recipient changes what they get.
    """
    values = placeholder_values(data, time, context)
    values |= context.branding.template_values(values)
    if qr_code is not None:
        values[QR_CODE] = qr_code
    if settings_url:
        text = translated(context.language, SETTINGS_LINK_TEXT)
        link = f'<a href="{html.escape(settings_url)}" class="link" style="color: inherit">{html.escape(text)}</a>'
        values[SETTINGS_LINK] = RichValue(link, f"{text}: {settings_url}")
    return (template or default_template(event_type, context.language)).render(values)


def qr_code_value(image_url: str, url: str, language: str = "en", branding: Branding = DEFAULT_BRANDING) -> RichValue:
    """Return the value of `%%QR_CODE%%`: the image, a button in the branding's colour and a link, all with this URL.

    The image is at `image_url`, such as `cid:…` for an attached one.
    """
    values = {"image_url": image_url, "url": url, "branding": branding.palette, "_": partial(translated, language)}
    return RichValue(_qr_code_partial().render(values), url)


def _use_plain_text_in_links(page: str) -> str:
    """Return the HTML with values as plain text in the title and in links, which cannot be nested."""
    parts, is_inside = _PLAIN_ELEMENT.split(page), False
    for index, part in enumerate(parts):
        if index % 2:
            is_inside = part[1] != "/"
        elif is_inside:
            parts[index] = _use_plain_text(part)
    return "".join(parts)


def _use_plain_text(text: str) -> str:
    """Return the text with values as plain text, except the QR code."""
    return _ANY_PLACEHOLDER.sub(
        lambda match: match[0] if ":" in match[1] or match[1] == QR_CODE else f"%%{PLAIN_PREFIX}{match[1]}%%", text
    )


_TEXTS_BY_PREFIX: Mapping[str, Callable[[str], str]] = {
    URL_PREFIX: partial(quote, safe=":"),
    TEL_PREFIX: partial(quote, safe="+"),
    LINK_PREFIX: str,
    ATTRIBUTE_PREFIX: prevent_autolinks,
    PLAIN_PREFIX: str,
}


@cache
def _layouts() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"], default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _qr_code_partial() -> CompiledPartial:
    colours = {part: f"{{{{ branding.{part} }}}}" for part in Palette._fields}
    css = _layouts().get_template("email/style.css").render(branding=colours, language="en")
    source = (TEMPLATES / "email/_qr_code.html").read_text()
    return _layouts().from_string(_INLINER.inline_fragment(source, css).strip())


def compile_text(text: str) -> CompiledText:
    """Return a text split at its placeholders and at the edges of its blocks."""
    stack: list[list[str | _Slot | _Block]] = [[]]
    names: set[str] = set()
    start = 0
    for match in _PLACEHOLDER_OR_EDGE.finditer(text):
        stack[-1].append(text[start : match.start()])
        start = match.end()
        if match["edge"] == markdown.OPEN:
            stack.append([])
        elif match["edge"] == markdown.CLOSE:
            parts = stack.pop()
            stack[-1].append(_Block(tuple(filter(None, parts))))
        else:
            stack[-1].append(_Slot(match["name"], match["bracket"]))
            names |= {match["name"], match["bracket"]} - {None}
    return CompiledText(_Block(tuple(filter(None, (*stack[0], text[start:])))), frozenset(names))


def _filter_block(block: _Block, names: frozenset[str]) -> tuple[list[str | _Slot], bool]:
    """Return the parts to show if these placeholders have a value, and whether any is: not if they all have none."""
    parts: list[str | _Slot] = []
    has_placeholder = has_value = False
    for part in block.parts:
        if isinstance(part, str):
            parts.append(part)
            continue
        has_placeholder = True
        if isinstance(part, _Slot):
            if part.name in names or part.bracket in names:
                parts.append(part)
                has_value = True
        else:
            inner, is_shown = _filter_block(part, names)
            if is_shown:
                parts += inner
                has_value = True
    return parts, has_value or not has_placeholder


def _fill_slot(slot: _Slot, texts: Mapping[str, str], values: Values) -> str:
    text = texts.get(slot.name, "")
    if slot.bracket is None:
        return text
    bracket = texts.get(slot.bracket, "")
    if text and bracket and not is_same_text(values[slot.name], values[slot.bracket]):
        return f"{text} ({bracket})"
    return bracket or text


def _for_html(value: str | RichValue) -> str:
    return value.html if isinstance(value, RichValue) else html.escape(value)


def _for_subject(value: str | RichValue) -> str:
    text = _CONTROL_CHARACTERS.sub(" ", plain_text(value))
    return text if len(text) <= MAX_SUBJECT_VALUE_LENGTH else text[: MAX_SUBJECT_VALUE_LENGTH - 1] + "…"
