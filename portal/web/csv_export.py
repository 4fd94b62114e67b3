"""CSV files to download (RFC 4180), in UTF-8, with no cell that a spreadsheet takes for a formula."""

import csv
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from shutil import disk_usage
from tempfile import NamedTemporaryFile
from typing import Any, Final

from flask import Response, send_file
from werkzeug.exceptions import RequestEntityTooLarge, TooManyRequests

from portal.extensions import db
from portal.web.i18n import to_translate
from portal.web.pagination import Page
from portal.web.slots import Bound, Slots

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
BATCH_SIZE: Final = 500  # rows
MAX_BYTES: Final = 500_000_000  # of a file
MIN_FREE_BYTES: Final = 100_000_000  # of the disk: a file stays there until a slow client has read it

Cells = Sequence[Any]
ReadPage = Callable[[Any], Page[Cells, Any]]  # from the key of the page before; None: the first page


class TooManyDownloads(TooManyRequests):
    """The account is downloading another file, or this process makes too many files."""

    page = (
        to_translate("The download has not started"),
        to_translate("Other files are being prepared. Wait until your other download is complete, then try again."),
    )


class FileTooLarge(RequestEntityTooLarge):
    """The file would be larger than `MAX_BYTES`, or fill the disk."""

    page = (
        to_translate("The file would be too large"),
        to_translate("Go back and choose a shorter time span, then download its file."),
    )


DOWNLOADS: Final = Slots(Bound(per_account=1, total=3), error=TooManyDownloads)


def download(account_id: int, filename: str, columns: Cells, read_page: ReadPage) -> Response:
    """Return a CSV file to download. It is complete before its first byte is sent: a slow client holds no thread.

    `read_page` returns the page of rows after a key, or the first one for None. It enters its own tenant scope, because
    each page is read in a transaction of its own.
    """
    with DOWNLOADS.hold(account_id):
        file = NamedTemporaryFile(prefix="portal-download-", suffix=".csv")  # noqa: SIM115 (closed with the response)
        try:
            for text in content(columns, read_page):
                file.write(text.encode())
                if file.tell() > MAX_BYTES or disk_usage(file.name).free < MIN_FREE_BYTES:
                    raise FileTooLarge
        except BaseException:
            file.close()
            raise
    size = file.tell()
    file.seek(0)
    response = send_file(file, "text/csv", as_attachment=True, download_name=filename, conditional=False, etag=False)
    response.content_length = size
    response.cache_control.no_store = True
    return response


def content(columns: Cells, read_page: ReadPage) -> Iterator[str]:
    """Give the lines of the file, a page at a time. Each page is read in a transaction of its own."""
    yield lines([columns])
    page = read_page(None)
    while True:
        db.session.commit()
        yield lines(page.rows)
        if page.next_key is None:
            return
        page = read_page(page.next_key)


def lines(rows: Iterable[Cells]) -> str:
    """Return rows as lines of CSV whose cells no spreadsheet takes for a formula."""
    buffer = StringIO()
    csv.writer(buffer).writerows([as_text(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def as_text(cell: Any) -> str:
    """Return a cell, with an apostrophe in front if a spreadsheet would take it for a formula.

    This is OWASP's advice on CSV injection. Some spreadsheets also accept the wide forms of the signs, and skip blanks.
    """
    text = "" if cell is None else str(cell)
    start = text if text.startswith(FORMULA) else unicodedata.normalize("NFKC", text.lstrip())
    return f"'{text}" if start.startswith(FORMULA) else text
