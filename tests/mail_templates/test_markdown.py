"""Markdown as HTML and as plain text."""

import pytest

from portal.mail_templates import markdown as mail_templates_markdown


def _html(markdown: str) -> str:
    html = mail_templates_markdown.to_html(mail_templates_markdown.parse(markdown))
    return (
        html.replace(mail_templates_markdown.OPEN_COMMENT, "")
        .replace(mail_templates_markdown.CLOSE_COMMENT, "")
        .strip()
    )


def _text(markdown: str) -> str:
    text = mail_templates_markdown.to_text(mail_templates_markdown.parse(markdown))
    return text.replace(mail_templates_markdown.OPEN, "").replace(mail_templates_markdown.CLOSE, "").strip()


def test_paragraphs_and_emphasis() -> None:
    markdown = "# Title\n\nSome **bold**, *light* and `code`.\nNext line\\\nhard break."
    assert _text(markdown) == "Title\n\nSome bold, light and code.\nNext line\nhard break."
    assert "<strong>bold</strong>, <em>light</em> and <code>code</code>" in _html(markdown)


def test_lists() -> None:
    markdown = "- one\n- two\n  - deep\n\n3. three\n4. four\n\n   more\n\n> said\n> so"
    assert _text(markdown) == "- one\n- two\n  - deep\n\n3. three\n\n4. four\n\n   more\n\n> said\n> so\n>"


def test_code_and_rules() -> None:
    assert _text("```\na **b**\n  c\n```\n\n---") == "a **b**\n  c\n\n----"


def test_a_list_of_labels_is_a_table() -> None:
    markdown = "- **Caller:** %%CALLER_NAME%%\n- **Queue:** `8000`"
    assert _text(markdown) == "- Caller: %%CALLER_NAME%%\n- Queue: 8000"
    html = _html(markdown)
    assert '<tr><th scope="row">Caller</th><td>%%CALLER_NAME%%</td></tr>' in html
    assert '<tr><th scope="row">Queue</th><td><code>8000</code></td></tr>' in html


@pytest.mark.parametrize("markdown", ["- **a:** b\n- c", "- **only**", "- **a:** b\n\n  more\n- **c:** d", "- a"])
def test_any_other_list_stays_a_list(markdown: str) -> None:
    assert "<ul>" in _html(markdown)
    assert "<th" not in _html(markdown)


def test_links_show_their_url() -> None:
    assert _text("[the app](https://app.example/a?b=c&d) <https://b.example>") == (
        "the app (https://app.example/a?b=c&d) https://b.example"
    )
    assert _html("[the app](https://app.example/a?b=c&d)") == (
        '<p><a href="https://app.example/a?b=c&amp;d">the app</a></p>'
    )


def test_a_placeholder_in_a_url_gets_a_prefix() -> None:
    assert 'href="https://%%url:PBX_WEB_DOMAIN%%/%C3%A9"' in _html("[x](https://%%PBX_WEB_DOMAIN%%/é)")
    assert _text("<https://%%A%%/>") == "https://%%A%%/"


@pytest.mark.parametrize(
    "markdown",
    [
        "[x](javascript:alert(1))",
        "[x](data:text/html,x)",
        "[x](%%CALLER_NAME%%)",
        "[x](//evil.example)",
        "<javascript:alert(1)>",
        "www.evil.example and https://evil.example",
    ],
)
def test_links_need_an_allowed_scheme(markdown: str) -> None:
    assert "<a" not in _html(markdown)


def test_html_is_escaped_and_images_are_links() -> None:
    assert _html("<b>x</b>") == "<p>&lt;b&gt;x&lt;/b&gt;</p>"
    assert "<script" not in _html("<script>alert(1)</script>")
    assert "<img" not in _html("![x](https://evil.example/pixel.png)")


def test_the_qr_code_is_not_in_a_paragraph() -> None:
    assert _html("Scan:\n%%QR_CODE%%") == '<div class="p">Scan:\n%%QR_CODE%%</div>'


def test_the_first_paragraph_is_one_line() -> None:
    assert (
        mail_templates_markdown.first_paragraph(mail_templates_markdown.parse("# Title\n\n**One**\ntwo\n\nthree"))
        == "One two"
    )
    assert mail_templates_markdown.first_paragraph(mail_templates_markdown.parse("# Title")) == ""
