"""Random values, email addresses and templates: no header is added, nothing is evaluated, no value becomes markup."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portal.errors import Refusal
from portal.events.event_type import EmailStyle, EventType
from portal.events.parsing import Event, parse_event
from portal.events.types import EVENT_TYPES
from portal.mail_servers.smtp.mime import (
    MessageContent,
    MimeMessage,
    Sender,
    UnsafeHeader,
    ascii_address,
    message_bytes,
)
from portal.mail_templates.compiler import compile_markdown, render_message
from portal.notifications import recipients
from portal.web import forms as web_forms
from tests.mail_servers.smtp.test_mime import parse
from tests.mail_templates.test_emails import ACME, NOW

pytestmark = pytest.mark.slow

HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}
HEADERS |= {"Auto-Submitted", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Reply-To"}
HEADERS |= {"X-Auto-Response-Suppress"}
NASTY = st.sampled_from(
    [
        "\r\nBcc: thief@evil.example",
        "\n\n.\r\nMAIL FROM:<x@y.example>",
        "=?utf-8?q?=0D=0ABcc:_thief@evil.example?=",
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "javascript:alert(1)",
        "[Pay](https://evil.example)",
        "Pay at https://evil.example/now or www.evil.example",
        "%%USER_PASSWORD%%%%QR_CODE%%",
        "{{ 7 * 7 }}{% for x in y %}${7*7}#{7*7}<%= 7*7 %>",
        "{0.__class__.__mro__}%(password)s%s",
        "\u202eevil\u202c\u2028\u2029\u0085\x00\x0b\x1b[31m",
        "&lt;b&gt;&#60;script&#62;",
        "<!-- --><![CDATA[x]]>",
    ]
)
TEXT = st.lists(st.one_of(NASTY, st.text(max_size=20)), max_size=4).map("".join)


class Tags(HTMLParser):
    """The tags of an HTML text with the names of their attributes, and the addresses that it leads to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action"}]

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment",))


def composed(words: MessageContent, sender: Sender, to: list[str]) -> bytes:
    return message_bytes(MimeMessage(words, sender, to, message_id="<1@pbx.example>", date=NOW))


@given(TEXT, TEXT, TEXT, TEXT)
def test_text_cannot_add_a_header_or_a_part(subject: str, name: str, text: str, html: str) -> None:
    sender = Sender("pbx@acme.example", name, "office@acme.example")
    try:
        content = composed(MessageContent.of(subject, text, html or "x"), sender, ["ops@acme.example"])
    except (UnsafeHeader, UnicodeEncodeError):
        assert web_forms.has_control_characters(subject + name + text + html) or not (subject + name).isprintable()
        return
    mail = parse(content)
    assert set(mail.keys()) <= HEADERS
    assert len(mail.keys()) == len(set(mail.keys()))
    assert mail["To"] == "ops@acme.example"
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@given(st.one_of(TEXT, st.emails(), st.builds(lambda a, b: f"{a}@{b}.example", TEXT, TEXT)))
@example("a@b.example\r\nBcc: c@d.example")
@example("a@b.example, c@d.example")
@example("a@b.example> RCPT TO:<c@d.example")
def test_an_accepted_email_address_is_exactly_one(text: str) -> None:
    taken = recipients.parse_emails(text)
    if isinstance(taken, Refusal):
        return
    for address in taken:
        envelope = ascii_address(address)
        assert envelope.isascii()
        assert envelope.isprintable()
        assert envelope.count("@") == 1
        assert not set(envelope) & set('<>,;: "()[]\\')
        mail = parse(composed(MessageContent.of("s", "t", ""), Sender("pbx@acme.example"), [address]))
        assert len(mail["To"].addresses) == 1


def body_of(event_type: EventType, values: dict[str, Any]) -> Event | None:
    event = parse_event(json.dumps({"type": event_type.type, "data": values}).encode("utf-8", "surrogatepass"), NOW)
    return event if isinstance(event, Event) else None


def texts_of(event_type: EventType) -> list[str]:
    """Return the fields that take any text."""
    return [
        name
        for name, value in event_type.sample.items()
        if (event := body_of(event_type, {**event_type.sample, name: "any-text"})) and not event.warnings
    ]


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)
@given(data=st.data())
def test_values_cannot_become_markup_links_or_subject_lines(event_type: EventType, data: st.DataObject) -> None:
    names = texts_of(event_type)
    values = data.draw(st.fixed_dictionaries(dict.fromkeys(names, TEXT.map(lambda text: f"v{text}"[:60]))))
    sample = {name: value for name, value in event_type.sample.items() if name != "requested_at"}
    event = body_of(event_type, sample | values)
    if event is None:
        assert event_type.type == "user.created"  # the extension number is a link
        return
    left_out = {warning.field.removeprefix("data.") for warning in event.warnings if "left out" in warning.message}
    plain = body_of(event_type, {n: v for n, v in (sample | dict.fromkeys(names, "v")).items() if n not in left_out})
    assert plain is not None
    words, usual = (render_message(event_type, each.data, NOW, ACME) for each in (event, plain))
    assert Tags(words.html).tags == Tags(usual.html).tags
    assert not [address for address in Tags(words.html).addresses if "evil" in address or "script:" in address]
    assert "https://evil.example" not in words.html
    assert "https://evil.example" not in words.text
    assert "\n" not in words.subject
    assert "\r" not in words.subject
    assert "49" not in words.subject or any("49" in str(value) for value in (*sample.values(), *values.values()))
    assert set(parse(composed(words, Sender("p@acme.example"), ["o@acme.example"])).keys()) <= HEADERS


@given(TEXT, TEXT)
@example("%%CALLER_NAME%%", "<script>alert(1)</script>\n\n[x](javascript:alert(1)) ![y](http://evil.example/z.png)")
@example("{{ config.SECRET_KEY }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}\n\n{% include '/etc/passwd' %}")
def test_a_tenants_template_is_not_evaluated(subject: str, body: str) -> None:
    template = compile_markdown(subject, body, EmailStyle.NOTICE, "Because.")
    event_type = EVENT_TYPES["queue.call_lost"]
    words = render_message(
        event_type, event_type.fields.model_validate(event_type.sample), NOW, ACME, template=template
    )
    tags = Tags(words.html)
    assert not {tag[0] for tag in tags.tags} & {"script", "iframe", "object", "embed", "form", "input", "svg", "base"}
    assert not [name for tag in tags.tags for name in tag[1:] if name.startswith("on")]
    assert all(re.match(r"(https?|mailto|tel|cid):|#|$", each, re.IGNORECASE) for each in tags.addresses), (
        tags.addresses
    )
    for code in ("{{ 7 * 7 }}", "{0.__class__.__mro__}", "%(password)s"):
        if code in subject and words.subject.isprintable():
            assert code in words.subject
    assert "secret" not in words.text.casefold() or "secret" in (subject + body).casefold()
