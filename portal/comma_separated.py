"""Tables to download as CSV (RFC 4180), in UTF-8, which no spreadsheet takes for formulas."""

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any, Final

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as lines of CSV whose cells no spreadsheet takes for a formula."""
    buffer = StringIO()
    csv.writer(buffer).writerows([as_text(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def as_text(cell: Any) -> str:
    """Return a cell with an apostrophe in front where a spreadsheet would take it for a formula.

    That is OWASP's advice on CSV injection; some spreadsheets also take the wide forms of the signs, and skip blanks.
    """
    text = "" if cell is None else str(cell)
    begins = text if text.startswith(FORMULA) else unicodedata.normalize("NFKC", text.lstrip())
    return f"'{text}" if begins.startswith(FORMULA) else text
