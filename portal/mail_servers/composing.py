"""From words to a mail: a Flask-Mail message that builds its MIME by hand, 7-bit clean and the same every time.

Flask-Mail's own builder parses each header again and asks for an application; this one does neither.
"""

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime
from typing import NamedTuple

import flask_mail

# Control characters, what Unicode takes for a line end, and surrogates, which have no UTF-8.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ADDRESS = re.compile(rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_TOKEN = re.compile(r"[A-Za-z0-9._/+-]{1,200}(?:@[A-Za-z0-9._-]{1,200})?")
_LINE_LENGTH = 76  # RFC 2047, section 2
_ADDRESS_LENGTH = 254  # RFC 5321, section 4.5.3.1.3, without its brackets

# "=_" stands in no quoted-printable and no base64 text (RFC 2045, section 6.7): boundaries need not be random.
_ALTERNATIVE = "=_alternative"
_RELATED = "=_related"


class UnsafeHeader(ValueError):
    """A header value or an address could be read as something else than it is meant to be. The text names it."""


class Words(NamedTuple):
    """What a mail says; without `html` it is text alone."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a mail is from: an address, the name beside it, and where answers go if elsewhere."""

    address: str
    name: str = ""
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A PNG that the HTML shows by `cid:` and its content id, which is written without angle brackets."""

    content_id: str
    filename: str
    png: bytes


def new_message_id(sender_address: str) -> str:
    """Return a Message-ID in the sender's domain that nothing else has (RFC 5322, section 3.6.4), with its brackets.

    Raises:
        UnsafeHeader: the sender's address cannot be used.
    """
    domain = ascii_address(sender_address).rpartition("@")[2]
    return f"<{uuid.uuid4().hex}@{domain}>"


def compose(
    words: Words,
    sender: Sender,
    recipients: Sequence[str],
    *,
    message_id: str,
    date: datetime,
    images: Sequence[InlineImage] = (),
) -> "MimeMessage":
    """Return the mail, which is the same to the byte for the same arguments.

    Args:
        words: subject and both alternatives.
        sender: From and Reply-To.
        recipients: the addresses of To, at least one.
        message_id: with its angle brackets; stays the same when the mail is sent again.
        date: with its time zone.
        images: what the HTML shows by Content-ID.

    Raises:
        UnsafeHeader: a value or an address holds what could turn into another header or recipient.
        ValueError: no recipient, or a date without a time zone.
    """
    if not recipients or date.tzinfo is None:
        raise ValueError("a mail needs a recipient, and a date with its time zone")
    return MimeMessage(words, sender, recipients, message_id, date, images)


class MimeMessage(flask_mail.Message):
    """A Flask-Mail message with a fixed Message-ID whose MIME is built here."""

    def __init__(
        self,
        words: Words,
        sender: Sender,
        recipients: Sequence[str],
        message_id: str,
        date: datetime,
        images: Sequence[InlineImage] = (),
    ) -> None:
        # Not Flask-Mail's __init__: it makes a Message-ID of its own, for which it looks up this machine's name, and no
        # timeout bounds that.
        self.subject = words.subject
        self.body = words.text
        self.alts = {"html": words.html} if words.html else {}
        self.sender = (sender.name, sender.address)
        self.reply_to = sender.reply_to
        self.recipients = list(recipients)
        self.cc, self.bcc = [], []
        self.msgId = message_id
        self.date = date.timestamp()
        self.charset = "utf-8"
        self.extra_headers = {"Auto-Submitted": "auto-generated"}  # RFC 3834, section 5: no automatic replies, please
        self.mail_options, self.rcpt_options = [], []
        self.attachments = [_inline(image) for image in images]

    def as_bytes(self) -> bytes:
        """Return the mail with CR LF line ends and nothing but ASCII.

        Raises:
            UnsafeHeader: as `compose` says.
        """
        return f"{self._headers()}MIME-Version: 1.0\r\n{self._body()}".encode("ascii")

    def as_string(self) -> str:
        """Return `as_bytes` as text."""
        return self.as_bytes().decode("ascii")

    def _headers(self) -> str:
        headers = [
            ("From", _mailbox(self.sender)),
            ("To", _mailboxes(self.recipients)),
            ("Subject", _unstructured("Subject", self.subject)),
            ("Date", format_datetime(datetime.fromtimestamp(self.date or 0, UTC))),
            ("Message-ID", _checked(_MESSAGE_ID, self.msgId)),
        ]
        if self.cc:
            headers.append(("Cc", _mailboxes(self.cc)))
        if self.reply_to:
            headers.append(("Reply-To", _mailbox(self.reply_to)))
        for name, value in (self.extra_headers or {}).items():
            headers.append((_checked(_TOKEN, name), _unstructured(name, value)))
        return "".join(f"{name}: {value}\r\n" for name, value in headers)

    def _body(self) -> str:
        text = _text_part("plain", self.body or "")
        attachments = [_attachment_part(attachment) for attachment in self.attachments]
        if self.html is None:
            return _multipart("mixed", _RELATED, [text, *attachments]) if attachments else text
        html = _text_part("html", self.html)
        if attachments:
            html = _multipart("related", _RELATED, [html, *attachments], '; type="text/html"')  # RFC 2387, section 3.1
        return _multipart("alternative", _ALTERNATIVE, [text, html])


def content_of(message: flask_mail.Message) -> bytes:
    """Return the bytes of any Flask-Mail message.

    Raises:
        UnsafeHeader: a header, also one of `extra_headers`, which Flask-Mail does not look at, holds a line end.
    """
    for name, value in (message.extra_headers or {}).items():
        _checked(_TOKEN, name)
        _refuse_unsafe(value)
    if message.has_bad_headers():
        raise UnsafeHeader("A header holds a line end.")
    return message.as_bytes()


def ascii_address(address: str) -> str:
    """Return the address as it goes over the wire, its domain in ASCII (RFC 5890).

    Raises:
        UnsafeHeader: it is not one plain address. Quoted, non-ASCII and bracketed forms are not supported.
    """
    local_part, _, domain = address.rpartition("@")
    if not domain.isascii():
        with suppress(UnicodeError):  # left as it is, the address is refused below
            address = f"{local_part}@{domain.encode('idna').decode('ascii')}"
    if len(address) > _ADDRESS_LENGTH:
        raise UnsafeHeader(f"{address[:40]!r}… is too long for an address.")
    return _checked(_ADDRESS, address)


def _checked(allowed: re.Pattern[str], value: str) -> str:
    if not allowed.fullmatch(value):
        raise UnsafeHeader(f"{value[:100]!r} cannot be written on a mail.")
    return value


def _refuse_unsafe(value: str) -> None:
    if _UNSAFE.search(value):
        raise UnsafeHeader(f"{value[:100]!r} holds a control character.")


def _unstructured(name: str, value: str) -> str:
    """Return a header's value: as it is where it is short ASCII, else as encoded words (RFC 2047), folded."""
    _refuse_unsafe(value)
    if value.isascii() and "=?" not in value and len(name) + len(value) < _LINE_LENGTH - 1:
        return value
    return Header(value, "utf-8", _LINE_LENGTH, name).encode(linesep="\r\n")


def _mailbox(mailbox: str | tuple[str, str]) -> str:
    name, address = mailbox if isinstance(mailbox, tuple) else ("", mailbox)
    address = ascii_address(address)
    if not name:
        return address
    phrase = _unstructured("Reply-To", name)
    if phrase == name:
        phrase = '"{}"'.format(re.sub(r'(["\\])', r"\\\1", name))
    fold = "\r\n" if len(phrase) + len(address) > _LINE_LENGTH - len("Reply-To:  <>") else ""
    return f"{phrase}{fold} <{address}>"


def _mailboxes(mailboxes: Sequence[str | tuple[str, str]]) -> str:
    return ",\r\n ".join(map(_mailbox, mailboxes))


def _text_part(subtype: str, text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").encode(errors="replace")
    return (
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + binascii.b2a_qp(lines).decode("ascii").replace("\n", "\r\n")
    )


def _inline(image: InlineImage) -> flask_mail.Attachment:
    content_id = f"<{_checked(_TOKEN, image.content_id)}>"
    return flask_mail.Attachment(image.filename, "image/png", image.png, "inline", {"Content-ID": content_id})


def _attachment_part(attachment: flask_mail.Attachment) -> str:
    filename = _checked(_TOKEN, attachment.filename or "attachment")
    data = attachment.data.encode() if isinstance(attachment.data, str) else attachment.data
    headers = {
        "Content-Type": f'{_checked(_TOKEN, attachment.content_type)}; name="{filename}"',
        "Content-Transfer-Encoding": "base64",
        "Content-Disposition": f'{_checked(_TOKEN, attachment.disposition)}; filename="{filename}"',
        **attachment.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{lines}\r\n" + base64.encodebytes(data).decode("ascii").rstrip().replace("\n", "\r\n")


def _multipart(subtype: str, boundary: str, parts: Sequence[str], parameter: str = "") -> str:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/{subtype}; boundary="{boundary}"{parameter}\r\n\r\n{body}--{boundary}--\r\n'
