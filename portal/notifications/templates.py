"""A mail's template: compiled once per version, then only filled in.

Values are never interpreted. Each is escaped for where it stands, and its dots and signs are kept from turning into a
link. Markup comes in only as `Rich`, which the portal itself makes.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache, partial
from itertools import groupby
from typing import NamedTuple
from urllib.parse import quote

import css_inline
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2 import Template as CompiledPartial
from markupsafe import Markup

from portal.config import ROOT
from portal.languages import translated
from portal.mail_servers.composing import Words
from portal.notifications import markup
from portal.notifications.colours import Palette
from portal.notifications.markup import ADDRESS, ATTRIBUTE, CALL

TEMPLATES = ROOT / "templates"
LONGEST_IN_SUBJECT = 80  # characters of one value
BRAND = "brand:"  # before the name of a value that only the layout uses: nobody can write it as a placeholder

_MARK = re.compile(
    r"%%(?P<name>(?:(?:url|tel|attr|brand):)?\w+)%%(?: \(%%(?P<bracket>\w+)%%\))?|(?P<edge>[\x02\x03])", re.ASCII
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# What makes a mail program see an address in "Pay at evil.example".
_LINKING = re.compile(r"(?<=[.@/\\:\u3002\uff0e\uff61])(?<!\d:)(?=\S)")
_INLINER = css_inline.CSSInliner(keep_style_tags=False, load_remote_stylesheets=False)
_OF_LAYOUT = frozenset({"TENANT_NAME", f"{BRAND}footer", *(BRAND + part for part in Palette._fields)})
# Keeps a mail program from showing more than the first paragraph beside the subject.
_FILLER = "\u034f\u200c\u00a0" * 60
_NON_JOINER = "\u200c"


class Look(StrEnum):
    """How urgent a mail looks."""

    ALERT = "alert"
    NOTICE = "notice"
    WELCOME = "welcome"


class Rich(NamedTuple):
    """A value with a form for HTML, taken as it is, and one for plain text."""

    html: str
    text: str


Values = Mapping[str, str | Rich]


class _Slot(NamedTuple):
    """Where a value goes; `bracket` is a second one behind it in brackets, written only where it adds something."""

    name: str
    bracket: str | None


class _Block(NamedTuple):
    parts: tuple["str | _Slot | _Block", ...]


@dataclass(frozen=True, eq=False, slots=True)
class _Form:
    """One of a template's forms, with the names of the values that it needs."""

    whole: _Block
    names: frozenset[str]

    def fill(self, values: Values, escape: Callable[[str | Rich], str]) -> str:
        texts = {name: text for name in self.names if name in values and (text := escape(values[name]))}
        parts = _said(self, frozenset(texts))
        return "".join([part if isinstance(part, str) else _slot(part, texts) for part in parts])


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template; `placeholders` are the names that it uses."""

    subject: _Form
    text: _Form
    html: _Form
    has_places: bool  # whether some stand in addresses or other attributes
    placeholders: frozenset[str]

    def render(self, values: Values) -> Words:
        """Return the mail's words: a block whose placeholders are all empty is left out, an unknown one is empty."""
        used = {name: values[name] for name in self.placeholders if name in values}
        calm = {name: value if isinstance(value, Rich) else unlinked(value) for name, value in used.items()}
        if self.has_places:
            calm |= {ADDRESS + name: _in_address(value) for name, value in used.items()}
            calm |= {CALL + name: quote(in_text(value), safe="+") for name, value in used.items()}
            calm |= {ATTRIBUTE + name: unlinked(in_text(value)) for name, value in used.items()}
        return Words(
            subject=" ".join(self.subject.fill(used, _in_subject).split()),
            text=self.text.fill(calm, in_text).strip() + "\n",
            html=self.html.fill(calm, _in_html),
        )


@lru_cache(maxsize=1024)
def compile_template(subject: str, body: str, look: Look, why: str, language: str = "en") -> Template:
    """Return the template of a mail.

    Args:
        subject: one line with placeholders.
        body: Markdown (CommonMark without HTML and pictures) with placeholders.
        look: how urgent the layout makes it look.
        why: the line at the foot that tells why the reader gets this mail, with placeholders.
        language: the language tag of the words (RFC 5646).
    """
    subject = _CONTROL.sub(" ", subject).strip()
    tokens = markup.parse(_CONTROL_BUT_LINES.sub("", body))
    parts = {
        "subject": subject,
        "preheader": markup.first_paragraph(tokens) + _FILLER,
        "look": look.value,
        "why": why,
        "language": language,
        "_": partial(translated, language),
        "brand": {part: f"%%{BRAND}{part}%%" for part in (*Palette._fields, "footer")},
        "open": Markup(markup.OPEN_COMMENT),  # noqa: S704
        "close": Markup(markup.CLOSE_COMMENT),  # noqa: S704
    }
    in_text = {"open": markup.OPEN, "close": markup.CLOSE, "body": markup.to_text(tokens)}
    text = _layouts().get_template("email/layout.txt").render(parts | in_text)
    page = _layouts().get_template("email/layout.html").render(parts, body=Markup(markup.to_html(tokens)))  # noqa: S704
    page = _INLINER.inline(page)
    page = page.replace(markup.OPEN_COMMENT, markup.OPEN).replace(markup.CLOSE_COMMENT, markup.CLOSE)
    forms = split(subject), split(text), split(page)
    has_places = any(name.startswith((ADDRESS, CALL)) for name in forms[2].names)
    return Template(*forms, has_places, placeholders_in(subject, body, why) | _OF_LAYOUT)


def placeholders_in(*texts: str) -> frozenset[str]:
    """Return the names of the placeholders that stand in the texts."""
    return frozenset(name for text in texts for name in markup.PLACEHOLDER.findall(text))


def unknown_placeholders(subject: str, body: str, known: Iterable[str]) -> list[str]:
    """Return the placeholders of a template that would stay empty because nothing feeds them, in alphabetical order."""
    return sorted(placeholders_in(subject, body) - frozenset(known))


def rich(name: str, text: str, language: str, palette: Palette, **values: str) -> Rich:
    """Return a value whose HTML is a partial of `templates/email/` in a language, filled in with `values`."""
    return Rich(_partial(name).render(values, brand=palette, _=partial(translated, language)), text)


def exact(value: str) -> Rich:
    """Return a value that people copy, such as a password: no character is added to it."""
    return Rich(html.escape(value), value)


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
def _partial(name: str) -> CompiledPartial:
    environment = _layouts()
    colours = {part: f"{{{{ brand.{part} }}}}" for part in Palette._fields}
    style = environment.get_template("email/style.css").render(brand=colours, language="en")
    source = (TEMPLATES / "email" / name).read_text()
    return environment.from_string(_INLINER.inline_fragment(source, style).strip())


def split(text: str) -> _Form:
    """Return one of a template's forms, cut at its placeholders and where its blocks begin and end."""
    stack: list[list[str | _Slot | _Block]] = [[]]
    names: set[str] = set()
    start = 0
    for mark in _MARK.finditer(text):
        stack[-1].append(text[start : mark.start()])
        start = mark.end()
        if mark["edge"] == markup.OPEN:
            stack.append([])
        elif mark["edge"] == markup.CLOSE:
            parts = stack.pop()
            stack[-1].append(_Block(tuple(filter(None, parts))))
        else:
            stack[-1].append(_Slot(mark["name"], mark["bracket"]))
            names |= {mark["name"], mark["bracket"]} - {None}
    return _Form(_Block(tuple(filter(None, (*stack[0], text[start:])))), frozenset(names))


@lru_cache(maxsize=4096)
def _said(form: _Form, names: frozenset[str]) -> Sequence[str | _Slot]:
    """Return what is left of a form where just these names have a value. Events of a kind mostly carry the same."""
    parts, _ = _parts(form.whole, names)
    runs = groupby(parts, lambda part: isinstance(part, str))
    return tuple(part for is_text, run in runs for part in (["".join(map(str, run))] if is_text else run))


def _parts(block: _Block, names: frozenset[str]) -> tuple[list[str | _Slot], bool]:
    """Return the block's parts and whether it has anything to say: it asks for no value, or got one."""
    kept: list[str | _Slot] = []
    asked = said = False
    for part in block.parts:
        if isinstance(part, str):
            kept.append(part)
            continue
        asked = True
        if isinstance(part, _Slot):
            if part.name in names or part.bracket in names:
                kept.append(part)
                said = True
        else:
            inner, speaks = _parts(part, names)
            if speaks:
                kept += inner
                said = True
    return kept, said or not asked


def _slot(slot: _Slot, texts: Mapping[str, str]) -> str:
    text = texts.get(slot.name, "")
    if slot.bracket is None:
        return text
    bracket = texts.get(slot.bracket, "")
    return f"{text} ({bracket})" if text and bracket and bracket != text else text or bracket


def unlinked(value: str) -> str:
    """Return the text so that no mail program makes a link of a part of it."""
    return _LINKING.sub(_NON_JOINER, value)


def _in_html(value: str | Rich) -> str:
    return value.html if isinstance(value, Rich) else html.escape(value)


def in_text(value: str | Rich) -> str:
    """Return the value's form for plain text."""
    return value.text if isinstance(value, Rich) else value


def _in_address(value: str | Rich) -> str:
    return quote(in_text(value), safe=":")


def _in_subject(value: str | Rich) -> str:
    line = _CONTROL.sub(" ", in_text(value))
    return line if len(line) <= LONGEST_IN_SUBJECT else line[: LONGEST_IN_SUBJECT - 1] + "…"
