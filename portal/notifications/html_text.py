"""The text alternative of a tenant's own HTML: what a reader sees, line by line."""

import re
from html.parser import HTMLParser

from portal.notifications.markup import CLOSE, OPEN, bare

PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "dl", "blockquote", "pre"}
LINES = {"div", "tr", "li", "br", "dt", "dd", "section", "article", "header", "footer", "main", "caption", "center"}
CELLS = {"td", "th"}

_BLANKS = re.compile(r"\s+")


def to_text(html: str) -> str:
    """Return well-formed HTML as text, each line between `OPEN` and `CLOSE`. Links show their address."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self._paragraphs: list[list[str]] = [[]]
        self._line = ""
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._break(tag)
        if tag == "li":
            self._line = "- "
        elif tag == "hr":
            self._line = "----"
            self._end_paragraph()
        elif tag == "img":
            self._line += given.get("alt") or ""
        elif tag == "a":
            self._links.append((given.get("href") or "", len(self._line)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._links:
            address, start = self._links.pop()
            shown = bare(address).removeprefix("mailto:").removeprefix("tel:")
            if address and not address.startswith("#") and shown not in self._line[start:]:
                self._line += f" ({address})"
        elif tag in CELLS:
            self._line += "  "
        else:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        words = _BLANKS.sub(" ", data)
        self._line += words.lstrip() if not self._line or self._line.endswith(" ") else words

    def text(self) -> str:
        self._end_paragraph()
        return "".join(map(_closed, filter(None, self._paragraphs)))

    def _break(self, tag: str) -> None:
        if tag in PARAGRAPHS:
            self._end_paragraph()
        elif tag in LINES:
            self._end_line()

    def _end_line(self) -> None:
        if self._line.strip():
            self._paragraphs[-1].append(self._line.strip())
        self._line, self._links = "", [(address, 0) for address, _ in self._links]

    def _end_paragraph(self) -> None:
        self._end_line()
        self._paragraphs.append([])


def _closed(lines: list[str]) -> str:
    return f"{OPEN}{''.join(f'{OPEN}{line}{chr(10)}{CLOSE}' for line in lines)}\n{CLOSE}"
