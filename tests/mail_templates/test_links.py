"""Links that values become: a caller's number to call it, and the event's page. No other value becomes a link."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from portal.events.event_type import EmailStyle
from portal.events.storm_digest import DIGEST
from portal.events.types import EVENT_TYPES
from portal.events.values import RichValue, phone_link
from portal.mail_servers.smtp.mime import MessageContent
from portal.mail_templates.compiler import CompiledTemplate, compile_markdown, render_message
from portal.mail_templates.placeholders import MailContext
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import TemplateFormat, TemplateSource, check_source

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
LOST = EVENT_TYPES["queue.call_lost"]
EVENT_PAGE = "https://portal.example/tenants/acme.example/deliveries/1?a=1&b=%20"
ACME = MailContext("Acme", "acme.example", "UTC")
HREF = re.compile(r'href="([^"]*)"')


def _lost(template: CompiledTemplate | None = None, event_url: str = EVENT_PAGE, **data: Any) -> MessageContent:
    fields = LOST.fields.model_validate({**LOST.sample, **data})
    return render_message(LOST, fields, NOW, ACME, template=template, event_url=event_url)


def _own(body: str, form: TemplateFormat = TemplateFormat.MARKDOWN) -> CompiledTemplate:
    return check_source(LOST, TemplateSource(form, "%%CALLER_NUMBER%%", body))


@pytest.mark.parametrize(
    ("number", "url"),
    [
        ("+442079460123", "tel:+442079460123"),
        ("+44 (20) 7946-0123", "tel:+442079460123"),
        ("030/123.45", "tel:03012345"),
        ("1001", "tel:1001"),
    ],
)
def test_a_phone_number_is_a_link_that_calls_it(number: str, url: str) -> None:
    value = phone_link(number)
    assert isinstance(value, RichValue)
    assert (value.text, HREF.findall(value.html)) == (number, [url])


@pytest.mark.parametrize(
    "text",
    [
        *("anonymous", "unknown", "", "12", "+", "()-", "sip:101@evil.example", "https://evil.example", "+49 30 pay"),
        *("*21*0900123456#", "0900;phone-context=x", "1234,,99#", "+44 (0) 20 7946 0123", "1" * 16, "٣٤٥٦٧"),
        '1"><a href="https://evil.example">2345',
    ],
)
def test_other_text_is_no_link(text: str) -> None:
    assert phone_link(text) == text
    assert phone_link(f"{text}\n2345") == f"{text}\n2345"
    html = _lost(caller_number=text).html
    assert HREF.findall(html) == [EVENT_PAGE.replace("&", "&amp;")]
    assert '<a href="https://evil' not in html


def test_a_number_that_is_also_the_name_is_shown_once() -> None:
    content = _lost(caller_name="+44.2079460123", caller_number="+44.2079460123")
    assert content.text.count("2079460123") == 2  # the first sentence, and the list
    assert content.html.count(">+44.2079460123</a>") == 2


def test_there_are_no_links_in_the_subject_the_title_and_the_preview_text() -> None:
    content = _lost()
    assert content.subject.endswith(": +442079460123")
    assert f"<title>{content.subject}</title>" in content.html
    assert "<a" not in content.html.partition("preheader")[2].partition("</div>")[0]


@pytest.mark.parametrize(
    ("form", "body", "text"),
    [
        (TemplateFormat.MARKDOWN, "[Call %%CALLER_NAME%% (%%CALLER_NUMBER%%)](tel:%%CALLER_NUMBER%%)", "Call Ana"),
        (
            TemplateFormat.HTML,
            '<A HREF="tel:%%CALLER_NUMBER%%"><b title="%%CALLER_NUMBER%%">%%CALLER_NUMBER%%</b></A>',
            "+442079460123",
        ),
    ],
)
def test_a_link_of_an_own_template_contains_no_other_link(form: TemplateFormat, body: str, text: str) -> None:
    content = _lost(_own(body, form))
    assert HREF.findall(content.html)[:1] == ["tel:+442079460123"]
    assert content.html.count("<a ") == 1
    assert content.text.startswith(text)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (TemplateFormat.MARKDOWN, "See [the event](%%EVENT_URL%%)."),
        (TemplateFormat.HTML, 'See <a href="%%EVENT_URL%%">the event</a>.'),
    ],
)
def test_an_own_template_links_to_the_event(form: TemplateFormat, body: str) -> None:
    content = _lost(_own(body, form))
    assert HREF.findall(content.html) == [EVENT_PAGE.replace("&", "&amp;")]
    assert f"See the event ({EVENT_PAGE})." in content.text


def test_without_an_address_of_the_event_its_paragraph_is_left_out() -> None:
    content = _lost(event_url="")
    assert "portal" not in content.text
    assert content.html.count("<a ") == 2  # the caller's number


@pytest.mark.parametrize("url", ["%%EVENT_URL%%.evil.example", "//%%EVENT_URL%%", "%%CALLER_NAME%%", "%%event_url%%"])
def test_the_address_of_the_event_is_a_whole_link_or_none(url: str) -> None:
    with pytest.raises(MisplacedPlaceholder):
        _own(f'<a href="{url}">x</a>', TemplateFormat.HTML)
    html = _lost(compile_markdown("S", f"[x]({url})", EmailStyle.NOTICE, "")).html
    assert set(HREF.findall(html)) <= {EVENT_PAGE.replace("&", "&amp;")}
    assert ">x</a>" not in html


def test_a_digest_links_each_number_and_escapes_each_name() -> None:
    calls = [
        {"at": NOW, "caller": "<b>Pay</b> evil.example (+4930123)", "number": "+4930123"},
        {"at": NOW, "caller": "https://evil.example", "number": "https://evil.example"},
        {"at": NOW, "caller": "recorded by an earlier version (+4930123)"},
    ]
    data = DIGEST.fields.model_validate({**DIGEST.sample, "calls": calls})
    content = render_message(DIGEST, data, NOW, ACME, event_url=EVENT_PAGE)
    assert HREF.findall(content.html) == ["tel:+4930123", EVENT_PAGE.replace("&", "&amp;")]
    assert "<b>Pay" not in content.html
    assert "evil.example" not in content.html


@pytest.mark.parametrize(("last", "period"), [("09:00:59", "at 09:00"), ("09:01:00", "between 09:00 and 09:01")])
def test_a_digest_about_one_minute_names_one_time(last: str, period: str) -> None:
    data = DIGEST.fields.model_validate({**DIGEST.sample, "last_at": f"2026-11-23T{last}Z"})
    content = render_message(DIGEST, data, NOW, ACME, event_url=EVENT_PAGE)
    assert content.subject == f"12 lost calls in queue Support {period}"
    assert f"There were too many {period} to email each one." in content.text
