"""Builds MIME messages: a Flask-Mail message with its own MIME builder, 7-bit clean and the same every time.

Flask-Mail's builder parses each header again and needs an application; this one does neither.
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
from functools import lru_cache
from typing import NamedTuple

import flask_mail
import idna

# Control characters, Unicode's line ends, and surrogates, which have no UTF-8.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_EMAIL = re.compile(rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_TOKEN = re.compile(r"[A-Za-z0-9._/+-]{1,200}(?:@[A-Za-z0-9._-]{1,200})?")
_URL = re.compile(r"https?://[!-;=?-~]{1,900}")
_LIST_ID = re.compile(r"[A-Za-z0-9._-]{1,300}")
_FROM = re.compile("^From ", re.MULTILINE)
# An encoded blank that makes its line too long: at the end of a line, Python's encoder does not check the length.
_BLANK_WITHOUT_ROOM = re.compile(r"=(?:20|09)(?=\r|\Z)(?<=[^\n]{77})")
_ENCODED_ALREADY = re.compile("(?!From )[ -<>-~]{1,75}")  # a line of quoted-printable, with room for its last "="
_MAX_LINE_LENGTH = 76  # RFC 2047, section 2; RFC 2045, section 6.7
_MAX_EMAIL_LENGTH = 254  # RFC 5321, section 4.5.3.1.3, without its brackets

# "=_" occurs in no quoted-printable and no base64 text (RFC 2045, section 6.7): boundaries need not be random.
_ALTERNATIVE = "=_alternative"
_RELATED = "=_related"


class UnsafeHeader(ValueError):
    """A header value or an address could be read as something else. The message names it."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of an email: its address, its name, and the Reply-To address if there is one."""

    email: str
    name: str = ""
    reply_to: str | None = None


class InlineImage(NamedTuple):
    """A PNG that the HTML shows as `cid:<content_id>`; the content id has no angle brackets."""

    content_id: str
    filename: str
    png: bytes


class MessageContent(NamedTuple):
    """The content of an email; without HTML, which is in quoted-printable, it is text only."""

    subject: str
    text: str
    encoded_html: str
    images: Sequence[InlineImage] = ()

    @classmethod
    def of(cls, subject: str, text: str, html: str = "") -> "MessageContent":
        """Return the content with this HTML."""
        return cls(subject, text, quoted_printable(html))

    @property
    def html(self) -> str:
        """The HTML, empty if there is none."""
        return binascii.a2b_qp(self.encoded_html).decode().replace("\r\n", "\n")


def new_message_id(sender_email: str) -> str:
    """Return a unique Message-ID in the sender's domain (RFC 5322, section 3.6.4), with its brackets."""
    domain = ascii_address(sender_email).rpartition("@")[2]
    return f"<{uuid.uuid4().hex}@{domain}>"


class MimeMessage(flask_mail.Message):
    """A Flask-Mail message with a given Message-ID and its own MIME builder: the same bytes for the same arguments."""

    def __init__(
        self,
        content: MessageContent,
        sender: Sender,
        recipients: Sequence[str],
        *,
        message_id: str,
        date: datetime,
        recipient_name: str = "",
        list_id: str | None = None,
        unsubscribe_url: str | None = None,
        is_personal: bool = False,
    ) -> None:
        """Compose a message to at least one recipient.

        `message_id` has its angle brackets, `date` its time zone. `recipient_name` is the name of the only recipient.
        `list_id` names all emails of this kind in List-Id (RFC 2919), for filters. `unsubscribe_url` is a page for
        people (RFC 2369, section 3.2); if it `is_personal` and encrypted, a POST to it has the same effect without any
        question (RFC 8058).

        Raises:
            ValueError: no recipient, or a date without a time zone.
        """
        if not recipients or date.tzinfo is None:
            raise ValueError("a message needs a recipient, and a date with its time zone")
        # Not Flask-Mail's __init__: it creates a Message-ID of its own, for which it looks up this machine's name
        # without a timeout.
        self.subject = content.subject
        self.body = content.text
        self.alts = {}  # the HTML is encoded already
        self._encoded_html = content.encoded_html
        self.sender = (sender.name, sender.email)
        self.reply_to = sender.reply_to
        self.recipients = list(recipients)
        self.cc, self.bcc = [], []
        self.msgId = message_id
        self.date = date.timestamp()
        self.charset = "utf-8"
        self.extra_headers = {"Auto-Submitted": "auto-generated"}  # RFC 3834, section 5: asks for no automatic replies
        self.mail_options, self.rcpt_options = [], []
        self.attachments = [
            flask_mail.Attachment(name, "image/png", png, "inline", {"Content-ID": f"<{_checked(_TOKEN, content_id)}>"})
            for content_id, name, png in content.images
        ]
        self.recipient_name, self.list_id = recipient_name, list_id
        self.unsubscribe_url, self.is_personal = unsubscribe_url, is_personal

    def as_bytes(self) -> bytes:
        """Return the message with CR LF line ends, in ASCII only. UnsafeHeader: a value could become another header."""
        return f"{self._headers()}MIME-Version: 1.0\r\n{self._body()}".encode("ascii")

    def as_string(self) -> str:
        """Return `as_bytes` as text."""
        return self.as_bytes().decode("ascii")

    def _headers(self) -> str:
        headers = [
            ("From", _mailbox(self.sender)),
            ("To", self._to()),
            ("Subject", _unstructured("Subject", self.subject)),
            ("Date", _date(int(self.date or 0))),
            ("Message-ID", _checked(_MESSAGE_ID, self.msgId)),
        ]
        if self.list_id:
            headers.append(("List-Id", f"<{_checked(_LIST_ID, self.list_id)}>"))
        if self.unsubscribe_url:
            headers.append(("List-Unsubscribe", f"<{_checked(_URL, self.unsubscribe_url)}>"))
            if self.is_personal and self.unsubscribe_url.startswith("https:"):
                headers.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
        if self.cc:
            headers.append(("Cc", _mailboxes(self.cc)))
        if self.reply_to:
            headers.append(("Reply-To", _mailbox(self.reply_to)))
        for name, value in (self.extra_headers or {}).items():
            headers.append((_checked(_TOKEN, name), _unstructured(name, value)))
        return "".join(f"{name}: {value}\r\n" for name, value in headers)

    def _to(self) -> str:
        if self.recipient_name and len(self.recipients) == 1 and isinstance(self.recipients[0], str):
            return _mailbox((self.recipient_name, self.recipients[0]))
        return _mailboxes(self.recipients)

    def _body(self) -> str:
        text = _text_part("plain", quoted_printable(self.body or ""))
        attachments = [_attachment_part(attachment) for attachment in self.attachments]
        if not self._encoded_html:
            return _multipart("mixed", _RELATED, [text, *attachments]) if attachments else text
        html = _text_part("html", self._encoded_html)
        if attachments:
            html = _multipart("related", _RELATED, [html, *attachments], '; type="text/html"')  # RFC 2387, section 3.1
        return _multipart("alternative", _ALTERNATIVE, [text, html])


def message_bytes(message: flask_mail.Message) -> bytes:
    """Return the bytes of any Flask-Mail message. UnsafeHeader: a header contains a line end."""
    if isinstance(message, MimeMessage):  # checks each value itself
        return message.as_bytes()
    for name, value in (message.extra_headers or {}).items():
        _checked(_TOKEN, name)
        _check_safe(value)
    if message.has_bad_headers():
        raise UnsafeHeader("A header contains a line end.")
    return message.as_bytes()


@lru_cache(maxsize=4096)
def ascii_address(email: str) -> str:
    """Return an email address as SMTP sends it, with its domain in ASCII (RFC 5890).

    It raises UnsafeHeader for anything but one plain address: quoted, non-ASCII and bracketed forms are not supported.
    """
    local_part, _, domain = email.rpartition("@")
    if not domain.isascii():
        with suppress(idna.IDNAError):  # unchanged, the address is rejected below
            email = f"{local_part}@{idna.encode(domain, uts46=True).decode()}"
    if len(email) > _MAX_EMAIL_LENGTH:
        raise UnsafeHeader(f"{email[:40]!r}… is too long for an email address.")
    return _checked(_EMAIL, email)


def _checked(allowed: re.Pattern[str], value: str) -> str:
    if not allowed.fullmatch(value):
        raise UnsafeHeader(f"{value[:100]!r} cannot be used in an email.")
    return value


def _check_safe(value: str) -> None:
    if _UNSAFE.search(value):
        raise UnsafeHeader(f"{value[:100]!r} contains a control character.")


def _unstructured(name: str, value: str) -> str:
    """Return a header's value: unchanged if it is short ASCII, else as encoded words (RFC 2047), folded."""
    _check_safe(value)
    if value.isascii() and "=?" not in value and len(name) + len(value) < _MAX_LINE_LENGTH - 1:
        return value
    return Header(value, "utf-8", _MAX_LINE_LENGTH, name).encode(linesep="\r\n")


@lru_cache(maxsize=4096)
def _mailbox(mailbox: str | tuple[str, str]) -> str:
    name, email = mailbox if isinstance(mailbox, tuple) else ("", mailbox)
    email = ascii_address(email)
    if not name:
        return f"<{email}>"  # the brackets are optional (RFC 5322, 3.4); SpamAssassin has a rule about their absence
    phrase = _unstructured("Reply-To", name)
    if phrase == name:
        phrase = '"{}"'.format(re.sub(r'(["\\])', r"\\\1", name))
    fold = "\r\n" if len(phrase) + len(email) > _MAX_LINE_LENGTH - len("Reply-To:  <>") else ""
    return f"{phrase}{fold} <{email}>"


@lru_cache(maxsize=64)
def _date(timestamp: int) -> str:
    return format_datetime(datetime.fromtimestamp(timestamp, UTC))


def _mailboxes(mailboxes: Sequence[str | tuple[str, str]]) -> str:
    return ",\r\n ".join(map(_mailbox, mailboxes))


def quoted_printable(text: str) -> str:
    """Return text as quoted-printable (RFC 2045, section 6.7). A line that begins with "From" is broken in it.

    Programs that keep emails in one file would change such a line.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    encoded = binascii.b2a_qp(text.encode(errors="replace")).decode("ascii").replace("\n", "\r\n")
    if max(map(len, encoded.split("\r\n"))) > _MAX_LINE_LENGTH:
        encoded = _BLANK_WITHOUT_ROOM.sub(r"=\r\n\g<0>", encoded)
    return _FROM.sub("F=\r\nrom ", encoded) if "From " in encoded else encoded


def quoted_printable_part(text: str) -> str:
    """Return a part of a text as quoted-printable. Parts may be joined: each one that is not empty ends its line."""
    if _ENCODED_ALREADY.fullmatch(text):
        return f"{text}=\r\n"
    encoded = quoted_printable(f"{text}x")[:-1]  # as if the text went on, so that there is room for its last "="
    return f"{encoded}=\r\n" if encoded and not encoded.endswith("\r\n") else encoded


def _text_part(subtype: str, encoded: str) -> str:
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head + encoded


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
