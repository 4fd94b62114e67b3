"""Converts an email's Markdown to HTML and to plain text.

Each block (paragraph, list item, heading …) is enclosed in `OPEN` and `CLOSE`, so that a template can leave it out.
"""

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from markdown_it.utils import EnvType, OptionsDict

OPEN, CLOSE = "\x02", "\x03"
OPEN_COMMENT, CLOSE_COMMENT = "<!--(-->", "<!--)-->"  # the same in HTML, where a parser would move plain characters

# Prefixes of a placeholder's name, which authors cannot write themselves.
URL_PREFIX = "url:"  # within a URL
TEL_PREFIX = "tel:"  # within a phone number's URL, where the plus sign is kept (RFC 3966, section 3)
LINK_PREFIX = "link:"  # a whole URL, which the portal itself creates
ATTRIBUTE_PREFIX = "attr:"  # within another attribute
PLAIN_PREFIX = "plain:"  # in the text of a link, where no value can be a link of its own
BRANDING_PREFIX = "branding:"  # within the layout
PLACEHOLDER = re.compile(r"%%(\w+)%%", re.ASCII)
EVENT_URL = "EVENT_URL"  # the only placeholder that can be a whole link
BLOCK_PLACEHOLDER = "%%QR_CODE%%"  # its value consists of blocks, which a <p> cannot contain

# A text of 20 kB with more of either takes seconds to parse.
MAX_LINES = 1000  # that are not blank: each can be a list item, a paragraph or a heading
MAX_INLINE_MARKS = 2500
_INLINE_MARKS = "*_`[]<\\"

WIDE_COLON = "\uff1a"  # Chinese; needs no space after it
_COLON = f" :\u00a0\u202f{WIDE_COLON}"  # the colon after a label and the spaces before it, in any language
_SCHEME = re.compile(rf"(https?://|mailto:|tel:|%%{LINK_PREFIX}{EVENT_URL}%%$)", re.IGNORECASE)
_NOT_IN_URL = re.compile(r"[^\w.~:/?#\[\]@!$&'()*+,;=%-]", re.ASCII)
_FACT_LIST_TOKENS = {"list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close"}


def add_url_prefixes(url: str) -> str:
    """Return the URL with the matching prefix at each placeholder."""
    if url == f"%%{EVENT_URL}%%":
        return f"%%{LINK_PREFIX}{EVENT_URL}%%"
    prefix = TEL_PREFIX if url.lower().startswith(TEL_PREFIX) else URL_PREFIX
    return PLACEHOLDER.sub(rf"%%{prefix}\1%%", url)


def remove_url_prefixes(url: str) -> str:
    """Return the URL as its author wrote it."""
    for prefix in (URL_PREFIX, TEL_PREFIX, LINK_PREFIX):
        url = url.replace(f"%%{prefix}", "%%")
    return url


def is_too_complex(markdown: str) -> bool:
    """Return whether a text has too many blocks or too many marks to be parsed in a moment."""
    lines = sum(1 for line in markdown.replace("\r", "\n").split("\n") if line.strip())
    return lines > MAX_LINES or sum(map(markdown.count, _INLINE_MARKS)) > MAX_INLINE_MARKS


def parse(markdown: str) -> list[Token]:
    """Return the tokens of a CommonMark text. HTML is treated as text, images as links, and URLs alone stay text."""
    return _MARKDOWN.parse(markdown)


def to_html(tokens: Sequence[Token]) -> str:
    """Return the tokens as HTML with `OPEN_COMMENT` and `CLOSE_COMMENT` around each block."""
    html: str = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return html


def to_text(tokens: Sequence[Token]) -> str:
    """Return the tokens as plain text with `OPEN` and `CLOSE` around each block, and links followed by their URL."""
    return _blocks_text(SyntaxTreeNode(tokens).children)


def first_paragraph(tokens: Sequence[Token]) -> str:
    """Return the first paragraph as one line of text, which email programs show next to the subject."""
    nodes = (node for node in SyntaxTreeNode(tokens).children if node.type == "paragraph")
    return " ".join(_inline_text(node) for node in list(nodes)[:1]).replace("\n", " ")


def link_urls(tokens: Sequence[Token]) -> list[str]:
    """Return the URLs of all links."""
    children = (child for token in tokens for child in token.children or ())
    return [str(child.attrs["href"]) for child in children if child.type == "link_open"]


def nesting_depth(tokens: Sequence[Token]) -> int:
    """Return how deep emphasis and links are nested. For blocks the parser itself has a limit of 20."""
    return max((child.level for token in tokens for child in token.children or ()), default=0)


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802
        # The author must write the scheme, so that a value can never decide it.
        return _SCHEME.match(url) is not None

    def normalizeLink(self, url: str) -> str:  # noqa: N802
        # The method of the base class would encode the percent signs of a placeholder.
        quoted = _NOT_IN_URL.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), url)
        return add_url_prefixes(quoted)

    def normalizeLinkText(self, url: str) -> str:  # noqa: N802
        return remove_url_prefixes(url)


class _Html(RendererHTML):
    def renderToken(  # noqa: N802
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        token, html = tokens[idx], super().renderToken(tokens, idx, options, env)
        if not token.block or not token.nesting:
            return html
        body = "tbody" if token.tag == "table" else ""
        if token.nesting == 1:
            return f"{OPEN_COMMENT}{html}" + (body and f"<{body}>")
        return (body and f"</{body}>") + f"{html}{CLOSE_COMMENT}"


def _adapt_blocks(state: StateCore) -> None:
    for start, token in enumerate(state.tokens):
        if token.type == "bullet_list_open":
            following = range(start + 1, len(state.tokens))
            end = next(i for i in following if state.tokens[i].level == token.level)
            _list_to_table(state.tokens[start : end + 1])
        elif token.type == "inline" and BLOCK_PLACEHOLDER in token.content:
            for edge in (state.tokens[start - 1], state.tokens[start + 1]):
                edge.tag = "div" if edge.tag == "p" else edge.tag
            state.tokens[start - 1].attrSet("class", "p")


def _list_to_table(tokens: Sequence[Token]) -> None:
    """Turn a list whose items are all written "**Label:** value" into a table of two columns."""
    items = tokens[1:-1]
    lines = [token for token in items if token.type == "inline"]
    has_single_lines = len(lines) == sum(token.type == "list_item_open" for token in items)
    if not has_single_lines or any(token.type not in _FACT_LIST_TOKENS for token in items):
        return
    if not all(map(_is_fact, lines)):
        return
    for token in tokens:
        token.tag = {"ul": "table", "li": "tr"}.get(token.tag, token.tag)
        token.hidden = token.tag == "p"
    tokens[0].attrs |= {"class": "facts", "width": "100%", "cellpadding": "0", "cellspacing": "0"}
    for line in lines:
        line.children = _table_cells(_children(line))


def _is_fact(line: Token) -> bool:
    children = _children(line)
    return [token.type for token in children[:3]] == ["strong_open", "text", "strong_close"] and len(children) > 3


def _table_cells(children: list[Token]) -> list[Token]:
    opening, label, closing, *value = children
    opening.tag = closing.tag = "th"
    opening.attrSet("scope", "row")
    label_text = label.content.rstrip(_COLON)
    colon = label.content.removeprefix(label_text) or ":"
    opening.meta["colon"] = colon if colon == WIDE_COLON else f"{colon} "
    label.content = label_text
    value[0].content = value[0].content.lstrip(_COLON)
    return [opening, label, closing, Token("td_open", "td", 1), *value, Token("td_close", "td", -1)]


def _children(line: Token) -> list[Token]:
    return [token for token in line.children or [] if token.type != "text" or token.content]


def _blocks_text(nodes: Sequence[SyntaxTreeNode], first: str = "", rest: str = "") -> str:
    tight = any(node.hidden for node in nodes if node.type == "paragraph")
    texts = []
    for node in nodes:
        block = _block_text(node, first, rest)
        spaced = tight or block.rstrip(CLOSE).endswith("\n\n")
        gap = "" if spaced else rest.rstrip() + "\n"
        texts.append(f"{OPEN}{block}{gap}{CLOSE}")
        first = rest
    return "".join(texts)


def _block_text(node: SyntaxTreeNode, first: str, rest: str) -> str:
    match node.type:
        case "bullet_list" | "ordered_list":
            return "".join(_item_text(item, i, first if not i else rest, rest) for i, item in enumerate(node.children))
        case "blockquote":
            return _blocks_text(node.children, first + "> ", rest + "> ")
        case "fence" | "code_block":
            return first + node.content.rstrip("\n").replace("\n", "\n" + rest) + "\n"
        case "hr":
            return f"{first}----\n"
        case _:
            return first + _inline_text(node).replace("\n", "\n" + rest) + "\n"


def _item_text(item: SyntaxTreeNode, index: int, first: str, rest: str) -> str:
    parent: Any = item.parent
    marker = "- " if parent.type == "bullet_list" else f"{int(parent.attrs.get('start', 1)) + index}. "
    return f"{OPEN}{_blocks_text(item.children, first + marker, rest + ' ' * len(marker))}{CLOSE}"


def _inline_text(node: SyntaxTreeNode) -> str:
    match node.type:
        case "text" | "code_inline":
            return node.content
        case "softbreak" | "hardbreak":
            return "\n"
    text = "".join(map(_inline_text, node.children))
    if node.type == "link":
        url = str(node.attrs["href"])
        return text if remove_url_prefixes(url) == text else f"{text} ({url})"
    return f"{text}{node.meta['colon']}" if node.tag == "th" else text


_MARKDOWN = _Markdown("commonmark", {"html": False}, renderer_cls=_Html).disable("image")
_MARKDOWN.core.ruler.push("adapt_blocks", _adapt_blocks)
