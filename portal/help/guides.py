"""The guides: files of `docs/`, converted to HTML once. Links between them stay; other relative links become text."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from posixpath import join, normpath
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from portal.config import ROOT

_NOT_IN_ANCHOR: Final = re.compile(r"[^\w\- ]")
_URL: Final = re.compile(r"https?://")
_TABLE: Final = '<div class="wide-table" tabindex="0" role="group" aria-label="Table"><table class="table">'


@dataclass(frozen=True, slots=True)
class Guide:
    """A guide: its name in the URL, its file below `docs/`, and whether only system administrators see it."""

    name: str
    file: str
    is_for_operators: bool = False


GUIDES: Final[Mapping[str, Guide]] = {
    guide.name: guide
    for guide in (
        Guide("tenant-administrators", "guides/tenant-administrators.md"),
        Guide("connecting-a-pbx", "guides/connecting-a-pbx.md"),
        Guide("mail-providers", "guides/mail-providers.md"),
        Guide("oauth", "guides/oauth.md"),
        Guide("softphones", "guides/softphones.md"),
        Guide("placeholders", "reference/placeholders.md"),
        Guide("delivery", "reference/delivery.md"),
        Guide("system-administrators", "guides/system-administrators.md", is_for_operators=True),
        Guide("operation", "operation.md", is_for_operators=True),
        Guide("single-sign-on", "guides/single-sign-on.md", is_for_operators=True),
        Guide("settings", "reference/settings.md", is_for_operators=True),
        Guide("performance", "reference/performance.md", is_for_operators=True),
    )
}
_BY_FILE: Final = {guide.file: guide for guide in GUIDES.values()}


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a guide: its level, its text, and its id in the page."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class GuidePage:
    """A guide as HTML: its title, and its content below it with the headings in it."""

    title: str
    content: Markup
    headings: Sequence[Heading]


def docs_folder() -> Path:
    """Return the folder of the documentation."""
    return ROOT / "docs"


def visible_guides(*, to_operators: bool) -> Sequence[Guide]:
    """Return the guides that system administrators see, or those that everyone sees."""
    return [guide for guide in GUIDES.values() if to_operators or not guide.is_for_operators]


@cache
def guide_page(guide: Guide, *, to_operators: bool) -> GuidePage:
    """Return a guide as HTML. Links to guides that the reader does not see, and to other files, become text."""
    parser = MarkdownIt("commonmark").enable("table")
    tokens = _without_images(parser.parse((docs_folder() / guide.file).read_text(encoding="utf-8")))
    parser.renderer.rules |= {"table_open": lambda *_: _TABLE, "table_close": lambda *_: "</table></div>"}  # type: ignore[attr-defined]
    title, *headings = _mark_headings(tokens)
    visible = visible_guides(to_operators=to_operators)
    for number, token in enumerate(tokens):
        _adapt(token, tokens[number + 1 : number + 3])
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", link_target(guide, str(child.attrGet("href")), visible))
        if token.children:
            token.children = list(_without_dead_links(token.children))
    content = parser.renderer.render(tokens[3:], parser.options, {})  # without the title
    return GuidePage(title.text, Markup(content), headings)  # noqa: S704 (the docs are part of the program)


def link_target(guide: Guide, href: str, visible: Sequence[Guide]) -> str:
    """Return where a guide's link leads in the portal, relative to the guide; empty if that is not a visible guide."""
    if _URL.match(href) or href.startswith("#"):
        return href
    path, _, anchor = href.partition("#")
    linked = _BY_FILE.get(normpath(join(guide.file, "..", path)))
    return f"{linked.name}#{anchor}".removesuffix("#") if linked in visible and linked else ""


def anchor_of(heading: str) -> str:
    """Return the id of a heading, as GitHub makes it: links in the files work in both places."""
    return _NOT_IN_ANCHOR.sub("", heading.lower()).replace(" ", "-")


def _without_images(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the tokens without paragraphs that are an image: who reads this has the page itself."""
    images = {
        number
        for number, token in enumerate(tokens)
        if token.children and {child.type for child in token.children} == {"image"}
    }
    left_out = {number + offset for number in images for offset in (-1, 0, 1)}
    return [token for number, token in enumerate(tokens) if number not in left_out]


def _mark_headings(tokens: Sequence[Token]) -> Sequence[Heading]:
    headings: list[Heading] = []
    count = Counter[str]()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            anchor = anchor_of(text)
            count[anchor] += 1
            if count[anchor] > 1:
                anchor = f"{anchor}-{count[anchor] - 1}"
            token.attrSet("id", anchor)
            headings.append(Heading(int(token.tag[1:]), text, anchor))
    return headings


def _adapt(token: Token, following: Sequence[Token]) -> None:
    """Give an element the classes and roles that it has in other pages."""
    if token.type == "th_open" and following[0].content:
        token.attrSet("scope", "col")
    elif token.type == "th_open":  # the heading of the column that has the headings of the rows
        token.tag = following[1].tag = "td"
    elif token.type == "fence":
        token.type, token.tag = "code_block", "pre"
        token.attrSet("class", "code")


def _without_dead_links(tokens: Sequence[Token]) -> Iterator[Token]:
    is_dead = False
    for token in tokens:
        if token.type == "link_open":
            is_dead = not token.attrGet("href")
        if not (is_dead and token.type in {"link_open", "link_close"}):
            yield token
