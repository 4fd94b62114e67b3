"""Compiled templates are filled in with values that are never interpreted."""

import re

import pytest

from portal.events.event_type import SAMPLE_TIME, EmailStyle
from portal.events.types import EVENT_TYPES
from portal.events.values import RichValue, copyable
from portal.mail_templates import compiler
from portal.mail_templates.compiler import CompiledTemplate, compile_markdown, default_template, unknown_placeholders
from portal.mail_templates.placeholders import MailContext

NON_JOINER = "\u200c"
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "**bold** [link](https://evil.example) `code` # title",
    "Pay at evil.example",
    "https://evil.example/?a=b",
    "eve@evil.example",
    "javascript:alert(1)",
    "%%SECRET%% %%QR_CODE%%",
    "&amp; &lt;b&gt; {{ 7*7 }} {% raw %} \\1 \\g<0>",
    "A" * 200,
]


def _template(body: str, subject: str = "S", why: str = "Why.") -> CompiledTemplate:
    return compile_markdown(subject, body, EmailStyle.ALERT, why)


def _text(body: str, **values: str | RichValue) -> str:
    text, _, foot = _template(body).render(values).text.partition("\n-- \n")
    assert foot == "Why.\n"
    return text.strip()


def _html(body: str, **values: str | RichValue) -> str:
    """The body of the page, without inline styles."""
    page = (
        _template(body)
        .render(values)
        .html.partition('class="content"')[2]
        .partition("</td></tr>\n</tbody></table>\n<table")[0]
    )
    return re.sub(r' style="[^"]*"', "", page.partition("</p>")[2]).strip()


def test_values_are_filled_in() -> None:
    words = _template("**%%A%%** and %%B%%", "To %%A%%", "By %%A%%").render({"A": "a", "B": "b"})
    assert words.subject == "To a"
    assert words.text == "a and b\n\n-- \nBy a\n"
    assert "<strong>a</strong> and b" in words.html
    assert "<title>To a</title>" in words.html
    assert ">By a</td>" in words.html


def test_a_default_template_is_compiled_once_in_each_language() -> None:
    for event_type in EVENT_TYPES.values():
        assert default_template(event_type, "en") is default_template(event_type, "en")
        assert default_template(event_type, "de") is not default_template(event_type, "en")


def test_a_line_whose_placeholders_are_empty_is_left_out() -> None:
    body = "# %%T%%\n\n%%A%% and %%B%%\n\n- **Who:** %%A%%\n- **What:** %%B%%\n- plain\n\nEnd."
    assert _text(body, A="a") == "a and\n\n- Who: a\n- plain\n\nEnd.".replace("and\n", "and \n")
    assert _text(body) == "- plain\n\nEnd."
    assert "Who" not in _html(body)
    assert "<h1>" not in _html(body)


def test_a_list_whose_placeholders_are_empty_is_left_out() -> None:
    body = "Start.\n\n- **Who:** %%A%%\n- **What:** %%B%%\n\n1. %%A%%\n\nEnd."
    assert _text(body) == "Start.\n\nEnd."
    assert not re.search("<(table|ul|ol|li|tr|blockquote)", _html(body))
    assert _text(body, B="b") == "Start.\n\n- What: b\n\nEnd."
    assert _html(body, B="b").count("<tr>") == 1


def test_an_empty_value_counts_as_missing() -> None:
    assert _text("- %%A%%\n- x", A="") == "- x"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"NAME": "Ana", "NUMBER": "+44"}, "Ana (+44)"),
        ({"NUMBER": "+44"}, "+44"),
        ({"NAME": "Ana"}, "Ana"),
        ({"NAME": "8000", "NUMBER": "8000"}, "8000"),
    ],
)
def test_redundant_brackets_are_left_out(values: dict[str, str], words: str) -> None:
    template = _template("From **%%NAME%% (%%NUMBER%%)**.", "%%NAME%% (%%NUMBER%%)")
    assert template.render(values).subject == words
    assert template.render(values).text.startswith(f"From {words}.\n")
    assert f"<strong>{words}</strong>" in template.render(values).html


def test_unknown_placeholders_are_empty_and_listed() -> None:
    assert _text("[%%NOBODY%% %%KNOWS_2%%] %%A%%", A="a") == "[ ] a"
    assert unknown_placeholders("%%ZEBRA%%", "%%A%% %%b%% 100%% %%", ["A"]) == ["ZEBRA", "b"]


@pytest.mark.parametrize("value", HOSTILE)
def test_values_are_never_markup(value: str) -> None:
    body = "# %%A%%\n\n%%A%% `%%A%%` **%%A%%**\n\n- **L:** %%A%%\n"
    harmless, hostile = _html(body, A="x"), _html(body, A=value, SECRET="hush", QR_CODE=RichValue("<i>", "i"))
    tags = re.compile(r"<[^>]*>")
    assert tags.findall(hostile) == tags.findall(harmless)
    assert "hush" not in hostile + _text(body, A=value, SECRET="hush")
    assert _text(body, A=value).replace(NON_JOINER, "") == f"{value}\n\n{value} {value} {value}\n\n- L: {value}"


@pytest.mark.parametrize(
    "value", ["evil.example", "www.evil.example/x", "eve@evil.example", "http://evil", "sip:x", "。x。y"]
)
def test_values_are_broken_where_an_email_program_would_make_a_link(value: str) -> None:
    for text in (_html("%%A%%", A=value), _text("%%A%%", A=value)):
        assert value not in text
        assert value in text.replace(NON_JOINER, "")


@pytest.mark.parametrize("value", ["+44 20 7946 0123", "23 November 2026, 10:05:00 CET", "Ana K.", "Support: 2", "1:2"])
def test_other_values_are_unchanged(value: str) -> None:
    assert _text("%%A%%", A=value) == value


def test_copyable_values_are_unchanged() -> None:
    assert _text("%%A%%", A=copyable("a.b@c")) == "a.b@c"
    assert _html("%%A%%", A=copyable("a.b@<c>")) == "<p>a.b@&lt;c&gt;</p>"


def test_the_subject_is_a_single_line() -> None:
    template = compile_markdown("Call\r\nBcc: x@y %%A%%  %%B%%", "Body", EmailStyle.ALERT, "Why.")
    assert template.render({"A": "a\r\nBcc: eve@evil.example\x00\x85\u2028end"}).subject == (
        "Call Bcc: x@y a Bcc: eve@evil.example end"
    )
    assert template.render({"A": "<b>", "B": RichValue("<i>html</i>", "plain")}).subject == "Call Bcc: x@y <b> plain"


def test_a_long_value_is_shortened_only_in_the_subject() -> None:
    words = _template("%%A%%", "For %%A%% now").render({"A": "x" * 200})
    assert words.subject == f"For {'x' * 79}… now"
    assert "x" * 200 in words.text


def test_a_value_cannot_escape_from_a_url() -> None:
    body = "[open](https://%%HOST%%/q?x=%%A%%)"
    assert _html(body, HOST=copyable("pbx.example:8443"), A='"&b=/é') == (
        '<p><a href="https://pbx.example:8443/q?x=%22%26b%3D%2F%C3%A9">open</a></p>'
    )
    assert _text(body, HOST="h", A="a b") == "open (https://h/q?x=a%20b)"
    assert "@evil.example" not in _html(body, HOST="x@evil.example", A="")


def test_rich_values_are_used_as_they_are() -> None:
    qr = RichValue('<img src="cid:qr">', "https://portal.example/x")
    assert _html("Scan:\n%%QR_CODE%%", QR_CODE=qr) == '<div class="p">Scan:\n<img src="cid:qr"></div>'
    assert _text("Scan:\n%%QR_CODE%%", QR_CODE=qr) == "Scan:\nhttps://portal.example/x"
    assert _text("Scan:\n%%QR_CODE%%\n\nEnd.") == "End."


def test_control_characters_in_a_template_are_removed() -> None:
    assert _text("a\x02b\x03c\x00\n\n%%A%%\x02", A="") == "abc"


def test_the_html_is_a_complete_page_that_loads_nothing() -> None:
    html = _template("First **line**.\n\nSecond.").render({"TENANT_NAME": "Acme & Co"}).html
    assert html.startswith("<!DOCTYPE html>")
    assert '<meta name="color-scheme" content="light dark">' in html
    assert re.search(r'<div class="preheader"[^>]*>First line\.', html)
    assert ">Acme &amp; Co <span" in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert not re.search(r"""(src|href)=|url\(|@import|<link|<script""", html)


def test_the_encoded_html_does_not_end_in_the_middle_of_a_line() -> None:
    content = _template("First **line**.").render({"TENANT_NAME": "Acme"})
    assert content.encoded_html.endswith("</html>")


@pytest.mark.parametrize(
    ("label", "said"), [("Who:", "Who: "), ("Wer\u00a0:", "Wer\u00a0: "), ("谁\uff1a", "谁\uff1a")]
)
def test_a_label_keeps_its_colon_in_the_text(label: str, said: str) -> None:
    assert _text(f"- **{label}** %%A%%", A="a") == f"- {said}a"
    assert re.search(r">\w+</th>", _html(f"- **{label}** %%A%%", A="a"))


def test_authors_cannot_use_placeholders_of_the_layout() -> None:
    words = _template("%%branding:footer%%", "%%branding:on_white%%").render(
        {"branding:footer": RichValue("<i>", "i"), "A": "a"}
    )
    assert "branding" not in words.subject


def test_what_a_template_remembers_is_bounded_even_if_threads_have_added_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event_type = EVENT_TYPES["queue.call_lost"]
    template = compile_markdown("S", event_type.body, EmailStyle.ALERT, "Why.")
    texts = [dict.fromkeys(names, "x") for names in ([], ["QUEUE_NAME"], ["QUEUE_NUMBER"], ["CALLER_NUMBER"])]

    def remember(tenant: int) -> None:
        context = MailContext(f"Tenant {tenant}", "acme.example", "UTC")
        compiler.render_message(event_type, event_type.sample_data(SAMPLE_TIME), SAMPLE_TIME, context, None, template)
        template.text.fill(texts[tenant], [])

    for tenant in range(3):
        remember(tenant)
    monkeypatch.setattr(compiler, "MAX_TENANTS", 2)
    monkeypatch.setattr(compiler, "MAX_COMBINATIONS", 2)
    remember(3)
    assert len(template.prepared) <= 2
    assert len(template.text._layouts) <= 2
