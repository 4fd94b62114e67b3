"""Generates the plain text alternative of a tenant's own HTML."""

import re
from html.parser import HTMLParser

from portal.mail_templates.markdown import CLOSE, OPEN, remove_url_prefixes

PARAGRAPH_TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "dl", "blockquote", "pre"}
LINE_TAGS = {"div", "tr", "li", "br", "dt", "dd", "section", "article", "header", "footer", "main", "caption", "center"}
CELL_TAGS = {"td", "th"}

_WHITESPACE = re.compile(r"\s+")


def html_to_text(html: str) -> str:
    """Return well-formed HTML as text, with `OPEN` and `CLOSE` around each line. Links are followed by their URL."""
    extractor = _TextExtractor()
    extractor.feed(html)
    extractor.close()
    return extractor.text()


class _TextExtractor(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self._paragraphs: list[list[str]] = [[]]
        self._line = ""
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self._break(tag)
        if tag == "li":
            self._line = "- "
        elif tag == "hr":
            self._line = "----"
            self._end_paragraph()
        elif tag == "img":
            self._line += attributes.get("alt") or ""
        elif tag == "a":
            self._links.append((attributes.get("href") or "", len(self._line)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._links:
            url, start = self._links.pop()
            short_url = remove_url_prefixes(url).removeprefix("mailto:").removeprefix("tel:")
            if url and not url.startswith("#") and short_url not in self._line[start:]:
                self._line += f" ({url})"
        elif tag in CELL_TAGS:
            self._line += "  "
        else:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        text = _WHITESPACE.sub(" ", data)
        self._line += text.lstrip() if not self._line or self._line.endswith(" ") else text

    def text(self) -> str:
        self._end_paragraph()
        return "".join(map(_paragraph, filter(None, self._paragraphs)))

    def _break(self, tag: str) -> None:
        if tag in PARAGRAPH_TAGS:
            self._end_paragraph()
        elif tag in LINE_TAGS:
            self._end_line()

    def _end_line(self) -> None:
        if self._line.strip():
            self._paragraphs[-1].append(self._line.strip())
        self._line, self._links = "", [(url, 0) for url, _ in self._links]

    def _end_paragraph(self) -> None:
        self._end_line()
        self._paragraphs.append([])


def _paragraph(lines: list[str]) -> str:
    return f"{OPEN}{''.join(f'{OPEN}{line}{chr(10)}{CLOSE}' for line in lines)}\n{CLOSE}"
