"""A mail's Markdown in its two forms: HTML, and plain text for people.

Each block (paragraph, list item, heading …) stands between `OPEN` and `CLOSE`, so that a template can leave it out.
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
OPEN_COMMENT, CLOSE_COMMENT = "<!--(-->", "<!--)-->"  # the same in HTML, where a parser would move bare characters

ADDRESS = "url:"  # before the name of a placeholder that stands in an address
CALL = "tel:"  # of one in the address of a phone number, whose plus sign stays (RFC 3966, section 3)
ATTRIBUTE = "attr:"  # before the name of one that stands in another attribute
PLACEHOLDER = re.compile(r"%%(\w+)%%", re.ASCII)
BOX_PLACEHOLDER = "%%QR_CODE%%"  # its value is made of blocks, which must not stand in a <p>

WIDE_COLON = "\uff1a"  # Chinese, which brings its own space
_COLON = f" :\u00a0\u202f{WIDE_COLON}"  # as languages write it behind a label
_SCHEME = re.compile(r"(https?://|mailto:|tel:)", re.IGNORECASE)
_NOT_IN_AN_ADDRESS = re.compile(r"[^\w.~:/?#\[\]@!$&'()*+,;=%-]", re.ASCII)
_FACT_LIST = {"list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close"}


def placed(address: str) -> str:
    """Return an address whose placeholders are named for where they stand."""
    prefix = CALL if address.lower().startswith(CALL) else ADDRESS
    return PLACEHOLDER.sub(rf"%%{prefix}\1%%", address)


def bare(address: str) -> str:
    """Return the address as its author wrote it."""
    return address.replace(f"%%{ADDRESS}", "%%").replace(f"%%{CALL}", "%%")


def parse(markdown: str) -> list[Token]:
    """Return the tokens of a CommonMark text. HTML in it is text, pictures are links, bare addresses stay text."""
    return _MARKDOWN.parse(markdown)


def to_html(tokens: Sequence[Token]) -> str:
    """Return the tokens as HTML with `OPEN_COMMENT` and `CLOSE_COMMENT` around each block."""
    html: str = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return html


def to_text(tokens: Sequence[Token]) -> str:
    """Return the tokens as plain text with `OPEN` and `CLOSE` around each block; links show their address."""
    return _blocks(SyntaxTreeNode(tokens).children)


def first_paragraph(tokens: Sequence[Token]) -> str:
    """Return the first paragraph as one line of text, which a mail program shows beside the subject."""
    nodes = (node for node in SyntaxTreeNode(tokens).children if node.type == "paragraph")
    return " ".join(_line(node) for node in list(nodes)[:1]).replace("\n", " ")


def addresses(tokens: Sequence[Token]) -> list[str]:
    """Return the addresses of all links."""
    within = (each for token in tokens for each in token.children or ())
    return [str(each.attrs["href"]) for each in within if each.type == "link_open"]


def depth(tokens: Sequence[Token]) -> int:
    """Return how deep emphasis and links are nested in each other. The parser nests blocks 20 times at most."""
    return max((each.level for token in tokens for each in token.children or ()), default=0)


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802
        # The scheme is the author's, so that a value can never choose one.
        return _SCHEME.match(url) is not None

    def normalizeLink(self, url: str) -> str:  # noqa: N802
        # The parent's would encode the percent signs of a placeholder.
        quoted = _NOT_IN_AN_ADDRESS.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), url)
        return placed(quoted)

    def normalizeLinkText(self, url: str) -> str:  # noqa: N802
        return bare(url)


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


def _shape(state: StateCore) -> None:
    for start, token in enumerate(state.tokens):
        if token.type == "bullet_list_open":
            following = range(start + 1, len(state.tokens))
            end = next(i for i in following if state.tokens[i].level == token.level)
            _tabulate(state.tokens[start : end + 1])
        elif token.type == "inline" and BOX_PLACEHOLDER in token.content:
            for edge in (state.tokens[start - 1], state.tokens[start + 1]):
                edge.tag = "div" if edge.tag == "p" else edge.tag
            state.tokens[start - 1].attrSet("class", "p")


def _tabulate(tokens: Sequence[Token]) -> None:
    """Make a list whose items all read "**Label:** value" a table of two columns."""
    items = tokens[1:-1]
    lines = [token for token in items if token.type == "inline"]
    single = len(lines) == sum(token.type == "list_item_open" for token in items)
    if not single or not all(token.type in _FACT_LIST for token in items) or not all(map(_is_fact, lines)):
        return
    for token in tokens:
        token.tag = {"ul": "table", "li": "tr"}.get(token.tag, token.tag)
        token.hidden = token.tag == "p"
    tokens[0].attrs |= {"class": "facts", "width": "100%", "cellpadding": "0", "cellspacing": "0"}
    for line in lines:
        line.children = _cells(_children(line))


def _is_fact(line: Token) -> bool:
    children = _children(line)
    return [token.type for token in children[:3]] == ["strong_open", "text", "strong_close"] and len(children) > 3


def _cells(children: list[Token]) -> list[Token]:
    opening, label, closing, *value = children
    opening.tag = closing.tag = "th"
    opening.attrSet("scope", "row")
    bare = label.content.rstrip(_COLON)
    colon = label.content.removeprefix(bare) or ":"
    opening.meta["colon"] = colon if colon == WIDE_COLON else f"{colon} "
    label.content = bare
    value[0].content = value[0].content.lstrip(_COLON)
    return [opening, label, closing, Token("td_open", "td", 1), *value, Token("td_close", "td", -1)]


def _children(line: Token) -> list[Token]:
    return [token for token in line.children or [] if token.type != "text" or token.content]


def _blocks(nodes: Sequence[SyntaxTreeNode], first: str = "", rest: str = "") -> str:
    tight = any(node.hidden for node in nodes if node.type == "paragraph")
    texts = []
    for node in nodes:
        block = _block(node, first, rest)
        spaced = tight or block.rstrip(CLOSE).endswith("\n\n")
        gap = "" if spaced else rest.rstrip() + "\n"
        texts.append(f"{OPEN}{block}{gap}{CLOSE}")
        first = rest
    return "".join(texts)


def _block(node: SyntaxTreeNode, first: str, rest: str) -> str:
    match node.type:
        case "bullet_list" | "ordered_list":
            return "".join(_item(item, i, first if not i else rest, rest) for i, item in enumerate(node.children))
        case "blockquote":
            return _blocks(node.children, first + "> ", rest + "> ")
        case "fence" | "code_block":
            return first + node.content.rstrip("\n").replace("\n", "\n" + rest) + "\n"
        case "hr":
            return f"{first}----\n"
        case _:
            return first + _line(node).replace("\n", "\n" + rest) + "\n"


def _item(item: SyntaxTreeNode, index: int, first: str, rest: str) -> str:
    parent: Any = item.parent
    marker = "- " if parent.type == "bullet_list" else f"{int(parent.attrs.get('start', 1)) + index}. "
    return f"{OPEN}{_blocks(item.children, first + marker, rest + ' ' * len(marker))}{CLOSE}"


def _line(node: SyntaxTreeNode) -> str:
    match node.type:
        case "text" | "code_inline":
            return node.content
        case "softbreak" | "hardbreak":
            return "\n"
    words = "".join(map(_line, node.children))
    if node.type == "link":
        address = str(node.attrs["href"])
        return words if bare(address) == words else f"{words} ({address})"
    return f"{words}{node.meta['colon']}" if node.tag == "th" else words


_MARKDOWN = _Markdown("commonmark", {"html": False}, renderer_cls=_Html).disable("image")
_MARKDOWN.core.ruler.push("shape", _shape)
