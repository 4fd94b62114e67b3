"""Reading CSV files as spreadsheets write them: any of their encodings and separators, and headers in any order."""

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Final

from flask_babel import gettext

from portal.errors import Refusal
from portal.web.csv_export import FORMULA

MAX_BYTES: Final = 350_000  # of a file
MAX_ROWS: Final = 2_000
BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SEPARATORS: Final = (",", ";", "\t")
SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # Excel's own first line
# The names of a column, without spaces, hyphens and underscores, which is how headers are compared.
COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "domain": ("domain", "sipdomain", "tenant"),
    "name": ("name", "tenantname"),
    "time_zone": ("timezone",),
    "language": ("language",),
    "realm": ("realm",),
    "administrators": ("administrators", "administrator", "admins", "admin"),
    "recipients": ("recipients", "recipient", "emailsofrecipients"),
}
_COLUMN_OF: Final = {header: column for column, headers in COLUMNS.items() for header in headers}
_NOT_IN_HEADER: Final = re.compile(r"[\s_\-\u00a0\ufeff\u200b]+")


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the number of its first line in the file, and its cells by column, without empty ones."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BadLine:
    """What is wrong in a line of the file, as a sentence."""

    line: int
    text: str


@dataclass(slots=True)
class Table:
    """The rows of a file, what is wrong in it, and the headers of columns that mean nothing to the portal."""

    rows: list[Row] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read(content: bytes) -> Table | Refusal:
    """Return the rows of a file, or why nothing can be read from it."""
    if len(content) > MAX_BYTES:
        text = gettext("The file is too large: use at most %(most)s kB, and split it.", most=MAX_BYTES // 1000)
        return Refusal("text", text)
    text = decode(content)
    separator, text, skipped = _separator(text)
    lines = _lines(text, separator, skipped)
    header = next((row for _, row in lines if not isinstance(row, str)), None)
    if header is None:
        return Refusal("text", gettext("The file is empty."))
    columns = [_COLUMN_OF.get(_NOT_IN_HEADER.sub("", cell).casefold()) for cell in header]
    if refusal := _refusal(columns):
        return refusal
    table = Table(ignored=[cell for cell, column in zip(header, columns, strict=True) if cell.strip() and not column])
    for number, cells in lines:
        if len(table.rows) + len(table.bad) >= MAX_ROWS:
            return Refusal("text", gettext("The file has too many rows: use at most %(most)s.", most=MAX_ROWS))
        if isinstance(cells, str):
            table.bad.append(BadLine(number, cells))
        elif any(cells[len(columns) :]):
            text = gettext("There are more cells than columns. Are quotation marks missing?")
            table.bad.append(BadLine(number, text))
        else:
            named = {column: _text(cell) for column, cell in zip(columns, cells, strict=False) if column}
            table.rows.append(Row(number, {column: cell for column, cell in named.items() if cell}))
    return table


def _refusal(columns: Sequence[str | None]) -> Refusal | None:
    """Return why the columns that a header names cannot be used."""
    known = [column for column in columns if column]
    if "domain" not in known:
        names = ", ".join(COLUMNS)
        text = gettext("The first line must name the columns. Of these, “domain” is required: %(names)s.", names=names)
        return Refusal("text", text)
    if twice := next((column for column in known if known.count(column) > 1), None):
        return Refusal("text", gettext("The column “%(name)s” is there twice.", name=twice))
    return None


def decode(content: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 or the encoding of Windows in Western Europe (Latin-1)."""
    for bom, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(bom):
            return content.decode(encoding, "replace")
    if content[1:2] == b"\0" or content[:1] == b"\0":  # UTF-16 without a byte order mark: the header is in ASCII
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le", "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _separator(text: str) -> tuple[str, str, int]:
    """Return the separator, the text after a line that declares it, and how many lines that skips."""
    if declared := SEPARATOR_LINE.match(text):
        return declared[1], text[declared.end() :], 1
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(SEPARATORS, key=header.count), text, 0


def _lines(text: str, separator: str, skipped: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the rows that are not blank with the number of their first line, or what is wrong in it."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield line, gettext("The quotation marks in this line do not match.")
            continue
        if any(cell.strip() for cell in cells):
            yield line, cells


def _text(cell: str) -> str:
    """Return a cell without spaces around it, and without the apostrophe that CSV exports put before a formula."""
    text = cell.strip()
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text
