"""CSV files as spreadsheets write them."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.transfer.csv_reader import MAX_BYTES, MAX_ROWS, BadLine, Row, Table, read
from portal.web import csv_export

TEXT = "SIP Domain;NAME;Time-Zone\r\nacme.example;Müller;Europe/Berlin\r\n"
EXPECTED = [Row(2, {"domain": "acme.example", "name": "Müller", "time_zone": "Europe/Berlin"})]


def table(content: bytes | str) -> Table:
    """Return what is read from a file."""
    found = read(content.encode() if isinstance(content, str) else content)
    assert isinstance(found, Table), found
    return found


def refusal(content: bytes | str) -> str:
    """Return why a file is refused."""
    found = read(content.encode() if isinstance(content, str) else content)
    assert isinstance(found, Refusal), found
    return found.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_encodings_and_separators(context: Flask, encoding: str, separator: str) -> None:
    assert table(TEXT.replace(";", separator).encode(encoding)).rows == EXPECTED


def test_a_utf_16_file_from_excel_with_tabs_and_a_byte_order_mark(context: Flask) -> None:
    assert table(b"\xfe\xff" + TEXT.replace(";", "\t").encode("utf-16-be")).rows == EXPECTED


def test_a_line_that_declares_the_separator_is_counted(context: Flask) -> None:
    rows = table("sep=;\r\n" + TEXT.replace("Müller", "A, B")).rows
    assert rows == [Row(3, {**EXPECTED[0].cells, "name": "A, B"})]


def test_blank_lines_quoted_line_breaks_and_the_numbers_of_lines(context: Flask) -> None:
    content = 'name,recipients,domain\n\n,,\n"A ""B""","x@a.example\ny@a.example",a.example\n   \nC,,c.example'
    assert table(content).rows == [
        Row(4, {"name": 'A "B"', "recipients": "x@a.example\ny@a.example", "domain": "a.example"}),
        Row(7, {"name": "C", "domain": "c.example"}),
    ]


def test_old_line_ends_of_a_macintosh(context: Flask) -> None:
    assert table("domain,name\racme.example,Acme\r").rows == [Row(2, {"domain": "acme.example", "name": "Acme"})]


def test_other_columns_are_named_and_left_out(context: Flask) -> None:
    found = table("Notes,domain,,Price\nx,a.example,,5\n")
    assert (found.ignored, found.rows) == (["Notes", "Price"], [Row(2, {"domain": "a.example"})])


def test_bad_lines_have_their_number_and_a_sentence(context: Flask) -> None:
    found = table('domain,name\na.example,A,more\nb.example,"B" x\nc.example,C\n')
    assert [bad.line for bad in found.bad] == [2, 3]
    assert all(bad.text.endswith((".", "?")) for bad in found.bad)
    assert found.rows == [Row(4, {"domain": "c.example", "name": "C"})]


def test_quotation_marks_that_never_end(context: Flask) -> None:
    assert table('domain,name\na.example,"A\nb.example,B\n').bad == [
        BadLine(2, "The quotation marks in this line do not match.")
    ]


def test_what_an_export_protects_from_spreadsheets_is_read_as_it_was(context: Flask) -> None:
    exported = csv_export.lines([("domain", "name"), ("a.example", "=1+1"), ("b.example", "'t Hart")])
    assert "'=1+1" in exported
    assert [row.cells["name"] for row in table(exported).rows] == ["=1+1", "'t Hart"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("Acme,acme.example\n", "“domain” is required"),
        ("domain,SIP domain\n", "twice"),
        (b"PK\x03\x04" + b"\xff\x00" * 50, "must name the columns"),  # a spreadsheet that was not saved as CSV
        ("domain\n" + "a.example\n" * (MAX_ROWS + 1), "too many rows"),
        ("domain\n" + "a" * MAX_BYTES, "too large"),
    ],
)
def test_files_from_which_nothing_can_be_read(context: Flask, content: bytes | str, expected: str) -> None:
    assert expected in refusal(content)


def test_a_cell_of_any_length_and_control_characters_do_no_harm(context: Flask) -> None:
    assert len(table("domain\n" + "a" * 200_000).bad) == 1
    assert table("domain,name\na.example,\x00A\n").rows[0].line == 2
