"""MIME messages: headers, alternatives, images, and what must not get into them."""

import email
import quopri
import time
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default

import flask_mail
import pytest

from portal.mail_servers.smtp.mime import (
    InlineImage,
    MessageContent,
    MimeMessage,
    Sender,
    UnsafeHeader,
    ascii_address,
    message_bytes,
    new_message_id,
    quoted_printable,
    quoted_printable_part,
)

CONTENT = MessageContent.of("A call was lost", "A call was lost.\n", "<p>A call was lost.</p>\n")
SENDER = Sender("pbx@portal.example", "PBX")
ANN = "ann@x.example"
DATE = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
MESSAGE_ID = "<1@portal.example>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10


def compose_bytes(
    content: MessageContent = CONTENT,
    sender: Sender = SENDER,
    recipients: tuple[str, ...] = (ANN,),
    *,
    message_id: str = MESSAGE_ID,
    date: datetime = DATE,
    images: tuple[InlineImage, ...] = (),
) -> bytes:
    content = content._replace(images=images)
    return MimeMessage(content, sender, recipients, message_id=message_id, date=date).as_bytes()


def parse(content: bytes) -> EmailMessage:
    """Return the message as Python's parser reads it, without a defect or a line that is too long."""
    mail = email.message_from_bytes(content, policy=default)
    assert isinstance(mail, EmailMessage)
    for part in mail.walk():
        assert not part.defects
        assert not [header for header in part.values() if header.defects]
    assert content.isascii()
    assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    return mail


def text_of(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def test_the_headers() -> None:
    mail = parse(
        compose_bytes(sender=Sender("pbx@portal.example", "PBX", "help@acme.example"), recipients=(ANN, "b@y.example"))
    )
    assert dict(mail.items()) == {
        "From": "PBX <pbx@portal.example>",
        "To": "ann@x.example, b@y.example",
        "Subject": "A call was lost",
        "Date": "Mon, 23 Nov 2026 10:00:00 +0000",
        "Message-ID": MESSAGE_ID,
        "Reply-To": "help@acme.example",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/alternative; boundary="=_alternative"',
    }


def test_text_and_html_are_alternatives() -> None:
    mail = parse(compose_bytes())
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert text_of(mail, "plain") == CONTENT.text
    assert text_of(mail, "html") == CONTENT.html


def test_an_inline_image_is_related_to_the_html() -> None:
    mail = parse(compose_bytes(images=(InlineImage("qr@portal", "qr-code.png", PNG),)))
    kinds = [part.get_content_type() for part in mail.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    image = list(mail.walk())[-1]
    assert isinstance(image, EmailMessage)
    assert image.get_content() == PNG
    assert (image["Content-ID"], image.get_filename(), image.get_content_disposition()) == (
        "<qr@portal>",
        "qr-code.png",
        "inline",
    )


def test_without_html_the_message_is_text_only() -> None:
    mail = parse(compose_bytes(MessageContent.of("Subject", "Only words\n", "")))
    assert mail.get_content_type() == "text/plain"
    assert text_of(mail, "plain") == "Only words\n"


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, 通知, Уведомление, 🎉\n",
        "x" * 5000,
        ("wide " * 400 + "\n") * 3,
        ".\n..\n.dot\n\n.\n",
        "From me\nFrom you\n",
        "trailing blanks   \nand a tab\t\n",
        "a = b =3D ?=\n",
        "--=_alternative\n--=_alternative--\n--=_related--\n",
        "no line end",
        "",
        "a\nb\n\n\n",
    ],
)
def test_any_text_arrives_unchanged(text: str) -> None:
    mail = parse(compose_bytes(MessageContent.of("Subject", text, f"<p>{text}</p>")))
    assert text_of(mail, "plain") == text
    assert text_of(mail, "html") == f"<p>{text}</p>"


@pytest.mark.parametrize("text", ["x", "é", "= ", "x \n", "\t", "\r\n", "From ", "x\r", "x" * 76, "", ".", "🙂"])
def test_parts_that_are_encoded_apart_can_be_joined(text: str) -> None:
    for length in range(160):
        parts = ["y" * length, text * (length % 7), "From here ", text * length, ".", text, "z"]
        joined = "".join(map(quoted_printable_part, parts))
        whole = "".join(parts).replace("\r\n", "\n").replace("\r", "\n")
        assert quopri.decodestring(joined).decode().replace("\r\n", "\n") == whole
        assert joined.count("\n") == joined.count("\r\n") == joined.count("\r")
        lines = joined.split("\r\n")
        assert max(map(len, lines)) <= 76  # RFC 2045, section 6.7
        assert not [line for line in lines if line.startswith("From ")]
        assert not [line for line in lines if line.endswith((" ", "\t"))]


def test_a_line_that_begins_with_from_is_broken() -> None:
    assert quoted_printable("From here\n From\nFrom there") == "F=\r\nrom here\r\n From\r\nF=\r\nrom there"


@pytest.mark.parametrize("end", [" ", "\t", " \n", "\t\ny", "é \n", "= \n", "  \n", ". \n \n"])
def test_a_blank_at_the_end_of_a_long_line_makes_no_line_too_long(end: str) -> None:
    for length in range(160):
        encoded = quoted_printable("x" * length + end)
        assert quopri.decodestring(encoded).decode().replace("\r\n", "\n") == "x" * length + end
        lines = encoded.split("\r\n")
        assert max(map(len, lines)) <= 76  # RFC 2045, section 6.7
        assert not [line for line in lines if line.endswith((" ", "\t"))]


def test_every_line_end_becomes_cr_lf() -> None:
    assert text_of(parse(compose_bytes(MessageContent.of("Subject", "a\r\nb\rc\n", "<p></p>"))), "plain") == "a\nb\nc\n"


@pytest.mark.parametrize(
    "value",
    [
        "Grüße",
        "Anruf in der Warteschlange „Vertrieb“ verloren: " + "ein sehr langer Name " * 20 + "ö",
        "通知" * 100,
        "plain " * 60 + "end",
        "x" * 2000,
        "=?utf-8?q?not_an_encoded_word?=",
        'quotes " and \\ and <angle@brackets.example>, commas; (comments)',
        "👩‍👩‍👧 family",
    ],
)
def test_any_subject_and_name_arrives_unchanged(value: str) -> None:
    content = compose_bytes(MessageContent.of(value, "", "<p></p>"), Sender("pbx@portal.example", value))
    assert parse(content)["Subject"] == value
    assert parse(content)["From"].addresses[0].addr_spec == "pbx@portal.example"
    # Python 3.11's policy keeps the blank between two encoded words of a name, against RFC 2047, section 6.2.
    phrase = email.message_from_bytes(content)["From"].rpartition("<")[0].strip()
    read = str(make_header(decode_header(phrase)))
    assert value in (read, read.strip('"').replace('\\"', '"').replace("\\\\", "\\"))
    assert max(map(len, content.split(b"\r\n"))) <= 78


def test_addresses_without_a_name_have_brackets_too() -> None:
    content = compose_bytes(recipients=("ana@acme.example", "ben@acme.example"))
    assert b"\r\nTo: <ana@acme.example>,\r\n <ben@acme.example>\r\n" in content


def test_fifty_recipients_are_folded() -> None:
    recipients = tuple(f"someone.with.a.long.name.{number}@department.example" for number in range(50))
    content = compose_bytes(recipients=recipients)
    assert tuple(address.addr_spec for address in parse(content)["To"].addresses) == recipients
    assert max(map(len, content.split(b"\r\n"))) <= 78


def test_the_date_is_in_utc() -> None:
    assert parse(compose_bytes(date=DATE.astimezone(timezone(timedelta(hours=2)))))["Date"].datetime == DATE


def test_the_same_arguments_give_the_same_message() -> None:
    message = MimeMessage(CONTENT, SENDER, [ANN], message_id=MESSAGE_ID, date=DATE)
    assert message.as_bytes() == message.as_bytes() == compose_bytes()
    assert str(message).encode() == bytes(message) == message.as_bytes()


CONTROL_CHARACTERS = ["\r\n", "\n", "\r", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ud800", "\t"]


@pytest.mark.parametrize("character", CONTROL_CHARACTERS, ids=ascii)
@pytest.mark.parametrize("where", ["subject", "name", "address", "reply_to", "recipient", "message_id"])
def test_a_control_character_in_a_header_is_rejected(where: str, character: str) -> None:
    hostile = f"a{character}Bcc: eve@x.example"
    values = {
        "subject": "s",
        "name": "n",
        "address": "a@x.example",
        "reply_to": "r@x.example",
        "recipient": ANN,
        "message_id": MESSAGE_ID,
    }
    values[where] = hostile
    sender = Sender(values["address"], values["name"], values["reply_to"])
    with pytest.raises(UnsafeHeader):
        compose_bytes(
            MessageContent.of(values["subject"], "", ""),
            sender,
            (values["recipient"],),
            message_id=values["message_id"],
        )


@pytest.mark.parametrize("content_id", ["a>b", "a\r\nb", "", "a b"])
def test_a_content_id_cannot_break_out(content_id: str) -> None:
    with pytest.raises(UnsafeHeader):
        compose_bytes(images=(InlineImage(content_id, "qr.png", PNG),))
    with pytest.raises(UnsafeHeader):
        compose_bytes(images=(InlineImage("qr", content_id or 'a"b', PNG),))


@pytest.mark.parametrize(
    ("email", "ascii_email"),
    [
        ("ann@x.example", "ann@x.example"),
        ("o'neil+pbx/x=1@sub.x-y.example", "o'neil+pbx/x=1@sub.x-y.example"),
        ("root@localhost", "root@localhost"),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ("bob@Straße.example", "bob@xn--strae-oqa.example"),
    ],
)
def test_a_domain_is_converted_to_ascii(email: str, ascii_email: str) -> None:
    assert ascii_address(email) == ascii_email


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@x.example",
        "ann@",
        "ann@x..example",
        "ann@.example",
        "ann@x.example,eve@x.example",
        "ann@x.example;eve",
        "<ann@x.example>",
        "Ann <ann@x.example>",
        '"a b"@x.example',
        "a b@x.example",
        "grüße@x.example",
        "ann@x.example\n",
        "ann@[127.0.0.1]",
        "a" * 65 + "@x.example",
        "a@" + "x" * 64 + ".example",
        "a@" + "x." * 200 + "example",
        "a@" + "ü" * 100 + ".example",
    ],
)
def test_anything_but_one_plain_address_is_rejected(address: str) -> None:
    with pytest.raises(UnsafeHeader):
        ascii_address(address)


@pytest.mark.parametrize(
    "domain", ["x" * 400_000, "x." * 200_000, "ü" * 400_000, "ü." * 200_000], ids=["x", "x.", "ü", "ü."]
)
@pytest.mark.parametrize("local_part", ["a", "a" * 400_000, "@" * 400_000], ids=["a", "a…", "@…"])
def test_a_long_address_is_rejected_in_little_time(local_part: str, domain: str) -> None:
    began = time.process_time()
    with pytest.raises(UnsafeHeader):
        ascii_address(f"{local_part}@{domain}example")
    assert time.process_time() - began < 5  # seconds; one that looks at all of it for each character takes minutes


def test_a_rejected_address_is_shortened_in_the_error() -> None:
    with pytest.raises(UnsafeHeader) as error:
        ascii_address("x" * 1_000_000)
    assert len(str(error.value)) < 200


def test_a_message_needs_a_recipient_and_a_time_zone() -> None:
    with pytest.raises(ValueError, match="recipient"):
        compose_bytes(recipients=())
    with pytest.raises(ValueError, match="time zone"):
        compose_bytes(date=datetime(2026, 11, 23))  # noqa: DTZ001


def test_message_ids_are_unique_and_in_the_senders_domain() -> None:
    ids = {new_message_id("pbx@bücher.example") for _ in range(100)}
    assert len(ids) == 100
    assert all(one.startswith("<") and one.endswith("@xn--bcher-kva.example>") for one in ids)
    assert parse(compose_bytes(message_id=ids.pop()))["Message-ID"]


@pytest.mark.parametrize(
    "message",
    [
        flask_mail.Message("s", [ANN], "t", sender="a@x.example", extra_headers={"X-A": "1\r\nBcc: e@x.example"}),
        flask_mail.Message("s", [ANN], "t", sender="a@x.example", extra_headers={"X-A: 1\r\nBcc": "e@x.example"}),
        flask_mail.Message("s\r\nBcc: e@x.example", [ANN], "t", sender="a@x.example"),
        flask_mail.Message("s", ["a@x.example\r\nBcc: e@x.example"], "t", sender="a@x.example"),
    ],
    ids=["value", "name", "subject", "recipient"],
)
def test_line_ends_in_another_flask_mail_message_are_rejected(message: flask_mail.Message) -> None:
    with pytest.raises(UnsafeHeader):
        message_bytes(message)


def test_copies_and_attachments_added_with_flask_mail_are_included() -> None:
    message = MimeMessage(CONTENT, SENDER, [ANN], message_id=MESSAGE_ID, date=DATE)
    message.cc.append(("Bob Müller", "bob@x.example"))
    message.attach("log.txt", "text/plain", "words", "attachment")
    mail = parse(message_bytes(message))
    assert mail["Cc"].addresses[0].display_name == "Bob Müller"
    assert [part.get_filename() for part in mail.walk()][-1] == "log.txt"
