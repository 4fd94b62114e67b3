"""The footer of a tenant: lines of text with common placeholders."""

import pytest

from portal.events.values import RichValue, copyable
from portal.mail_templates.branding import DEFAULT_BRANDING, Branding

VALUES: dict[str, str | RichValue] = {
    "TENANT_NAME": "A&B.example",
    "DOMAIN": copyable("acme.example"),
    "PBX_WEB_DOMAIN": copyable(""),
    "DATE_TIME": "now",
    "EXTENSION_PASSWORD": copyable("s3cret"),
}


def _footer(text: str) -> RichValue:
    footer = Branding(footer=text).template_values(VALUES)["branding:footer"]
    assert isinstance(footer, RichValue)
    return footer


def test_there_is_no_footer_by_default() -> None:
    assert "branding:footer" not in DEFAULT_BRANDING.template_values(VALUES)


def test_markup_in_the_footer_is_escaped() -> None:
    assert _footer("<b>x</b> **y** {{ z }}") == RichValue(
        "&lt;b&gt;x&lt;/b&gt; **y** {{ z }}", "<b>x</b> **y** {{ z }}"
    )


def test_line_breaks_are_kept() -> None:
    assert _footer("a\r\nb\nc") == RichValue("a<br>b<br>c", "a\nb\nc")


def test_values_are_filled_in_without_autolinks() -> None:
    assert _footer("%%TENANT_NAME%%, %%DOMAIN%%") == RichValue(
        "A&amp;B.\u200cexample, acme.example", "A&B.\u200cexample, acme.example"
    )


def test_a_line_whose_placeholders_are_empty_is_left_out() -> None:
    assert _footer("a\nWeb: %%PBX_WEB_DOMAIN%%\n%%UNKNOWN%%\nb").text == "a\nb"


def test_only_common_placeholders_are_filled_in() -> None:
    assert _footer("x %%TENANT_NAME%% %%EXTENSION_PASSWORD%%").text == "x A&B.\u200cexample "


@pytest.mark.parametrize(
    ("written", "address", "rest"),
    [
        ("https://acme.example/help", "https://acme.example/help", ""),
        ("https://acme.example/?a=1&b=2.", "https://acme.example/?a=1&amp;b=2", "."),
        ("(http://acme.example)", "http://acme.example", ")"),
        ("https://%%DOMAIN%%/x", "https://acme.example/x", ""),
        ("https://x/%%TENANT_NAME%%", "https://x/A%26B.example", ""),
    ],
)
def test_a_url_with_its_scheme_becomes_a_link(written: str, address: str, rest: str) -> None:
    html = _footer(written).html
    assert f'<a href="{address}" class="link" style="color: inherit">{address}</a>{rest}' in html


@pytest.mark.parametrize("written", ["www.acme.example", "help@acme.example", "javascript:alert(1)", "https:// x"])
def test_other_text_is_not_linked(written: str) -> None:
    assert _footer(written) == RichValue(written, written)


def test_text_cannot_escape_from_a_link() -> None:
    html = _footer('https://x/"onclick="alert(1) <b>').html
    assert html == (
        '<a href="https://x/" class="link" style="color: inherit">https://x/</a>&quot;onclick=&quot;alert(1) &lt;b&gt;'
    )
