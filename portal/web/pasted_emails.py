"""Email addresses as people paste them: from an address book, a mail program, a spreadsheet or a link."""

# ruff: noqa: RUF001 (the full-width characters are meant)

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final
from urllib.parse import unquote

from portal.web.forms import normalize_email

# What input methods type in the place of ASCII punctuation, and spaces of all kinds.
PUNCTUATION: Final = str.maketrans(
    {
        **dict.fromkeys("；؛", ";"),
        **dict.fromkeys("，、،﹐", ","),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u2060\ufeff", None),  # of no width
        **dict.fromkeys("“”„", '"'),
        "＜": "<",
        "＞": ">",
        "＠": "@",
        "：": ":",
    }
)
ENDS: Final = re.compile(r"[;\n\r\t\v\f\x85\u2028\u2029]+")  # the end of an email address, wherever they are
# A bullet or a number before an address, or a header's name.
PREFIX: Final = re.compile(
    r"\A\s*(?:[•‣◦▪·*–—-]\s|\d{1,3}[.)]\s|(?:to|cc|bcc|smtp|an|à|para|收件人|抄送)\s?:)", re.IGNORECASE
)
# What follows a name, as in: Ann [mailto:ann@acme.example], Ann (ann@acme.example).
IN_BRACKETS: Final = re.compile(r"[\[(](mailto:[^\[\]()<>\s]*|[^\[\]()<>\s@]+@[^\[\]()<>\s@]+)[\])]", re.IGNORECASE)
QUOTES: Final = "'\"«»‹› "
COMMENT: Final = re.compile(r"\s\([^()@]*\)")  # ann@acme.example (Ann, Sales)
QUOTED: Final = re.compile(r'"[^"]*"')


def parse_email(text: str) -> str:
    """Return the one email address in `text`, in its canonical form. Raise ValueError with a sentence for people."""
    found = list(split_emails(text))
    return normalize_email(found[0] if len(found) == 1 else text)


def split_emails(text: str) -> Iterator[str]:
    """Yield what was entered as an email address: without names, "mailto:", and spaces. It may be invalid.

    A name before an address in angle brackets may contain commas. Without brackets, addresses are separated by
    semicolons, commas, spaces, tabs or new lines.
    """
    text = COMMENT.sub(" ", IN_BRACKETS.sub(r"<\1>", text.translate(PUNCTUATION)))
    for part in ENDS.split("\n".join(map(_without_name_cells, text.split("\n")))):
        *named, rest = PREFIX.sub("", part, 1).split(">")  # Doe, Ann <ann@acme.example
        for text in named:
            name, _, email = text.rpartition("<")
            yield from _before_brackets(name, _bare(email), f"{text}>")
        yield from _without_names(rest)


def _without_name_cells(line: str) -> str:
    """Return a row of a spreadsheet without the cells beside its email addresses, any other line as it is."""
    cells = line.split("\t")
    return "\t".join(cell for cell in cells if "@" in cell) if "@" in line else line


def _before_brackets(text: str, emails: list[str], whole: str) -> Iterator[str]:
    """Yield the addresses before a name, and those in the angle brackets after it."""
    *others, name = QUOTED.sub("", text).split(",")
    yield from chain.from_iterable(_bare(other) for other in others if "@" in other)
    words = {email.lower() for word in name.split() if "@" in word for email in _bare(word)}
    # Some programs write the address as its name. Another one is a mistake: which of the two is meant?
    yield from emails if words <= {email.lower() for email in emails} else [whole.strip(", ")]


def _without_names(text: str) -> Iterator[str]:
    for part in filter(str.strip, text.split(",")):
        words = part.split()
        are_emails = all("@" in email for word in words for email in _bare(word))
        yield from chain.from_iterable(map(_bare, words if are_emails else [part]))


def _bare(text: str) -> list[str]:
    """Return an address without quotes around it, and of a link (RFC 6068) all addresses that it is to."""
    text = text.strip().strip(QUOTES).removesuffix(".")
    if not text.lower().startswith("mailto:"):
        return [text]
    to, _, query = text[len("mailto:") :].partition("?")
    fields = (field.partition("=") for field in query.split("&"))
    lists = [to, *(value for name, _, value in fields if name.lower() in ("to", "cc", "bcc"))]
    emails = (email.strip() for emails in lists for email in unquote(emails).split(","))
    return [email for email in emails if email] or [""]
