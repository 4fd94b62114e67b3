"""Compiles an email template once per version, and fills it in for each event.

Values are never interpreted as markup: each is escaped for its position, and invisible breaks keep its dots and signs
from becoming links. HTML comes only from a `RichValue`, which the portal itself creates.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache, partial
from html import escape
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2 import Template as CompiledPartial
from markupsafe import Markup

from portal.config import ROOT
from portal.events.event_type import EmailStyle, EventData, EventType
from portal.events.values import (
    RichValue,
    Values,
    is_same_text,
    placeholders_by_field,
    plain_text,
    prevent_autolinks,
)
from portal.mail_servers.smtp.mime import MessageContent, quoted_printable_part
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
from portal.mail_templates.placeholders import MailContext, event_values, tenant_values
from portal.mail_templates.placement import QR_CODE
from portal.web.i18n import html_language, to_translate, translated

TEMPLATES = ROOT / "templates"
MAX_SUBJECT_VALUE_LENGTH = 80  # characters of one value
MAX_TENANTS = 4_000  # of which a template remembers two kilobytes each
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
FOOTER = f"{BRANDING_PREFIX}footer"
SETTINGS_LINK = f"{BRANDING_PREFIX}settings_link"
SETTINGS_LINK_TEXT = to_translate("Pause or change these emails")
_LAYOUT_PLACEHOLDERS = frozenset({"TENANT_NAME", SETTINGS_LINK, *(BRANDING_PREFIX + part for part in _BRANDING_PARTS)})
# Keeps an email program from showing more than the first paragraph next to the subject.
_PREHEADER_FILLER = "\u034f\u200c\u00a0" * 60


class _Slot(NamedTuple):
    """The position of a value. A second one, `bracket`, follows in brackets if it differs from the first."""

    name: str
    bracket: str | None

    @property
    def key(self) -> str:
        """Its name in a format string."""
        return f"{self.name} {self.bracket}" if self.bracket else self.name

    def fill(self, texts: Mapping[str, str], encode: Callable[[str], str], *, is_same: bool) -> str:
        """Return its text. Of two values that read the same, the one in brackets is shown."""
        text, bracket = texts.get(self.name, ""), texts.get(self.bracket or "", "")
        both = text and bracket and not is_same
        return f"{text}{encode(' (')}{bracket}{encode(')')}" if both else bracket or text


class _Block(NamedTuple):
    parts: tuple["str | _Slot | _Block", ...]


class _Layout(NamedTuple):
    """What is shown of a text if some names have a value: a format string, and the slots in it that have a bracket."""

    format: str
    slots: Mapping[str, _Slot]  # by their names in the format string

    @classmethod
    def of(cls, parts: Iterable[str | _Slot], names: Collection[str], encode: Callable[[str], str] = str) -> "_Layout":
        """Return the layout of these parts, in which a slot without a value is empty."""
        shown = [part for part in parts if isinstance(part, str) or part.bracket or part.name in names]
        texts = (encode(part).replace("%", "%%") if isinstance(part, str) else f"%({part.key})s" for part in shown)
        return cls("".join(texts), {part.key: part for part in shown if isinstance(part, _Slot) and part.bracket})


@dataclass(frozen=True, eq=False, slots=True)
class CompiledText:
    """The subject, plain text or HTML of a template, and the names of the values in it.

    What it says and the values are encoded apart, so that an event's email does not encode the template again.
    """

    root: _Block
    names: frozenset[str]
    pairs: frozenset[_Slot]  # slots with a bracket
    encode: Callable[[str], str] = str
    # By the names that have a value: events of one type mostly carry the same fields.
    _layouts: dict[frozenset[str], _Layout] = field(default_factory=dict)

    def fill(self, texts: Mapping[str, str], same: Collection[_Slot]) -> str:
        """Return the text with these values, none of them empty. At the slots in `same`, both values read the same."""
        names = self.names.intersection(texts)
        if (layout := self._layouts.get(names)) is None:
            if len(self._layouts) >= MAX_COMBINATIONS:  # threads may add at the same time
                self._layouts.clear()
            layout = self._layouts[names] = _Layout.of(_filter_block(self.root, names)[0], names, self.encode)
        if layout.slots:
            slots = layout.slots.items()
            texts = {**texts, **{key: slot.fill(texts, self.encode, is_same=slot in same) for key, slot in slots}}
        return layout.format % texts


class Texts(NamedTuple):
    """Values as they are filled in, by their names, those that are not empty. Those for HTML are quoted-printable."""

    subject: Mapping[str, str]
    text: Mapping[str, str]
    html: Mapping[str, str]


NO_TEXTS: Final = Texts({}, {}, {})


@dataclass(frozen=True, eq=False, slots=True)
class CompiledTemplate:
    """A compiled template; `placeholders` are the names that it uses, `prefixed_names` those within links and tags."""

    subject: CompiledText
    text: CompiledText
    html: CompiledText
    placeholders: frozenset[str]
    prefixed_names: tuple[tuple[str, str, str], ...]  # prefix, name, and both together
    pairs: frozenset[_Slot]
    prepared: dict[Any, tuple[Texts, Values]] = field(default_factory=dict)  # by type of data and tenant

    @classmethod
    def of(cls, subject: str, text: str, page: str, placeholders: frozenset[str]) -> "CompiledTemplate":
        """Return the template with these parts; `page` is its HTML."""
        html = compile_text(_use_plain_text_in_links(page), quoted_printable_part)
        parts = compile_text(subject), compile_text(text), html
        names = {name for part in parts for name in part.names if ":" in name and not name.startswith(BRANDING_PREFIX)}
        split = (name.rpartition(":") for name in sorted(names))
        prefixed_names = tuple((f"{prefix}:", name, f"{prefix}:{name}") for prefix, _, name in split)
        pairs = frozenset[_Slot]().union(*(part.pairs for part in parts))
        return cls(*parts, placeholders, prefixed_names, pairs)

    def render(self, values: Values, prepared: Texts = NO_TEXTS) -> MessageContent:
        """Return the email filled in with these values, and with those that were prepared before.

        A block is left out if none of its placeholders has a value; elsewhere a placeholder without a value is empty.
        """
        subject, text, html = ({**old, **new} for old, new in zip(prepared, self.prepare(values), strict=True))
        both = [slot for slot in self.pairs if slot.name in text and slot.bracket in text]
        same = [slot for slot in both if is_same_text(text[slot.name], text[slot.bracket or ""])]
        return MessageContent(
            subject=" ".join(self.subject.fill(subject, same).split()),
            text=self.text.fill(text, same).strip() + "\n",
            encoded_html=self.html.fill(html, same).removesuffix("=\r\n"),  # RFC 2045, section 6.7
        )

    def prepare(self, values: Values) -> Texts:
        """Return values as they are filled in."""
        used = {name: values[name] for name in self.placeholders.intersection(values)}
        safe = {n: value if isinstance(value, RichValue) else prevent_autolinks(value) for n, value in used.items()}
        for prefix, name, prefixed_name in self.prefixed_names:
            if name in used:
                value = (safe if prefix == PLAIN_PREFIX else used)[name]
                safe[prefixed_name] = _TEXTS_BY_PREFIX[prefix](plain_text(value))
        subject = {name: _for_subject(used[name]) for name in self.subject.names.intersection(used)}
        plain: dict[str, str] = {}
        page: dict[str, str] = {}
        for name, value in safe.items():
            html, plain[name] = value if isinstance(value, RichValue) else (escape(value), value)
            page[name] = self.html.encode(html)
        return Texts(*({name: text for name, text in texts.items() if text} for texts in (subject, plain, page)))


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
    event_url: str = "",
) -> MessageContent:
    """Return the content of an event's email, by the given or the default template.

    Without `qr_code` everything about the QR code is left out, without `settings_url` the link below the email with
    which a recipient changes what they get, and without `event_url` the link to the event.
    """
    template = template or default_template(event_type, context.language)
    prepared, defaults = _prepare_for_tenant(template, type(data), context)
    values = {**defaults, **event_values(data, time, context, event_url)}
    if FOOTER in defaults:
        values |= context.branding.template_values({**tenant_values(context), **values})
    if qr_code is not None:
        values[QR_CODE] = qr_code
    if settings_url:
        text = translated(context.language, SETTINGS_LINK_TEXT)
        link = f'<a href="{escape(settings_url)}" class="link" style="color: inherit">{escape(text)}</a>'
        values[SETTINGS_LINK] = RichValue(link, f"{text}: {settings_url}")
    return template.render(values, prepared)


def _prepare_for_tenant(
    template: CompiledTemplate, data_type: type[EventData], context: MailContext
) -> tuple[Texts, Values]:
    """Return what is the same in each email of a tenant about this type of event: prepared values.

    Besides, return the values that an event may replace by its own. A template remembers both.
    """
    if prepared := template.prepared.get((data_type, context)):
        return prepared
    values, own = tenant_values(context), {each.name for each in placeholders_by_field(data_type).values()}
    constants = {name: value for name, value in values.items() if name not in own}
    defaults = {name: value for name, value in values.items() if name in own}
    branding = dict(context.branding.template_values(values))
    if not placeholders_in(context.branding.footer or "") <= constants.keys():
        defaults[FOOTER] = branding.pop(FOOTER)
    if len(template.prepared) >= MAX_TENANTS:  # threads may add at the same time
        template.prepared.clear()
    prepared = template.prepared[data_type, context] = template.prepare(constants | branding), defaults
    return prepared


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


def compile_text(text: str, encode: Callable[[str], str] = str) -> CompiledText:
    """Return a text split at its placeholders and at the edges of its blocks."""
    stack: list[list[str | _Slot | _Block]] = [[]]
    names: set[str] = set()
    pairs: set[_Slot] = set()
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
            slot = _Slot(match["name"], match["bracket"])
            stack[-1].append(slot)
            names.update(filter(None, slot))
            pairs |= {slot} if slot.bracket else set()
    root = _Block(tuple(filter(None, (*stack[0], text[start:]))))
    return CompiledText(root, frozenset(names), frozenset(pairs), encode)


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


def _for_subject(value: str | RichValue) -> str:
    text = plain_text(value)
    if not text.isprintable():
        text = _CONTROL_CHARACTERS.sub(" ", text)
    return text if len(text) <= MAX_SUBJECT_VALUE_LENGTH else text[: MAX_SUBJECT_VALUE_LENGTH - 1] + "…"
