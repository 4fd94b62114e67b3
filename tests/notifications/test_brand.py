"""A footer: lines of text, with what every mail knows."""

import pytest

from portal.notifications.brand import PLAIN, Brand
from portal.notifications.templates import Rich, exact

VALUES: dict[str, str | Rich] = {
    "TENANT_NAME": "A&B.example",
    "DOMAIN": exact("acme.example"),
    "PBX_WEB_DOMAIN": exact(""),
    "DATE_TIME": "now",
    "EXTENSION_PASSWORD": exact("s3cret"),
}


def _footer(text: str) -> Rich:
    footer = Brand(footer=text).values(VALUES)["brand:footer"]
    assert isinstance(footer, Rich)
    return footer


def test_without_a_footer_there_is_none() -> None:
    assert "brand:footer" not in PLAIN.values(VALUES)


def test_text_is_no_markup() -> None:
    assert _footer("<b>x</b> **y** {{ z }}") == Rich("&lt;b&gt;x&lt;/b&gt; **y** {{ z }}", "<b>x</b> **y** {{ z }}")


def test_lines_stay_lines() -> None:
    assert _footer("a\r\nb\nc") == Rich("a<br>b<br>c", "a\nb\nc")


def test_values_are_put_in_and_are_no_links() -> None:
    assert _footer("%%TENANT_NAME%%, %%DOMAIN%%") == Rich(
        "A&amp;B.\u200cexample, acme.example", "A&B.\u200cexample, acme.example"
    )


def test_a_line_with_nothing_to_say_is_left_out() -> None:
    assert _footer("a\nWeb: %%PBX_WEB_DOMAIN%%\n%%UNKNOWN%%\nb").text == "a\nb"


def test_what_only_some_mails_know_is_not_told() -> None:
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
def test_an_address_is_a_link_where_its_scheme_is_written(written: str, address: str, rest: str) -> None:
    html = _footer(written).html
    assert f'<a href="{address}" class="link" style="color: inherit">{address}</a>{rest}' in html


@pytest.mark.parametrize("written", ["www.acme.example", "help@acme.example", "javascript:alert(1)", "https:// x"])
def test_anything_else_stays_text(written: str) -> None:
    assert _footer(written) == Rich(written, written)


def test_nothing_leaves_its_place_in_a_link() -> None:
    html = _footer('https://x/"onclick="alert(1) <b>').html
    assert html == (
        '<a href="https://x/" class="link" style="color: inherit">https://x/</a>&quot;onclick=&quot;alert(1) &lt;b&gt;'
    )
