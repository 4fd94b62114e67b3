"""A tenant's own HTML: sanitizing, positions of placeholders, and the generated plain text."""

import time
from contextlib import suppress

import pytest

from portal.events.values import RichValue, Values, copyable
from portal.mail_templates.custom_html.css import sanitize_declarations, sanitize_stylesheet
from portal.mail_templates.custom_html.sanitizer import compile_html, removed_parts, sanitize
from portal.mail_templates.models import MAX_BODY_LENGTH
from portal.mail_templates.placement import MisplacedPlaceholder

NON_JOINER = "\u200c"
QR = RichValue('<img src="cid:qr-code">', "https://portal.example/provision/x")


def _body(source: str, **values: str | RichValue) -> str:
    page = compile_html("S", source).render(values).html
    return page.partition("<body>\n")[2].partition("\n</body>")[0]


def _text(source: str, **values: str | RichValue) -> str:
    return compile_html("S", source).render(values).text


def test_markup_that_emails_need_is_unchanged() -> None:
    source = (
        '<table width="100%" cellpadding="0" bgcolor="#003366"><tbody><tr><td style="color:#fff;mso-line-height-rule:'
        'exactly" align="center" colspan="2"><font color="red" face="Arial">Hi</font></td></tr></tbody></table>'
        '<img src="https://acme.example/logo.png" alt="Acme" width="120">'
        '<a href="tel:+4420">call</a> <a href="mailto:a@b.example">write</a> <a href="#top">up</a>'
    )
    assert _body(source) == source


def test_a_complete_page_keeps_its_styles_and_background() -> None:
    page = compile_html(
        "Hi & bye",
        "<!DOCTYPE html><html><head><title>T %%A%%</title><style>p{color:red}@media (max-width:9em){p{color:blue}}"
        '</style></head><body bgcolor="#eee"><p>x</p></body></html>',
        "de",
    ).render({"A": "a"})
    assert page.html.startswith('<!DOCTYPE html>\n<html lang="de">')
    assert "<title>Hi &amp; bye</title>" in page.html
    assert "p { color:red }\n@media (max-width:9em) { p { color:blue } }" in page.html
    assert '<div bgcolor="#eee"><p>x</p></div>' in page.html


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("<script>alert(1)</script>a", "a"),
        ('<b onclick="alert(1)" ONLOAD=x>a</b>', "<b>a</b>"),
        ('<form action="https://evil.example"><input name="a"><button>b</button></form>', "b"),
        ('<iframe src="https://evil.example">x</iframe><object data="x">y</object><embed src="x">z', "z"),
        (
            '<link rel="stylesheet" href="https://x"><base href="https://x"><meta http-equiv="refresh" content="0">a',
            "a",
        ),
        ('<a href="javascript:alert(1)">a</a>', "<a>a</a>"),
        ('<a href=" Ja&#9;vaScript&#58;alert(1)">a</a>', "<a>a</a>"),
        ('<a href="data:text/html,<script>alert(1)</script>">a</a>', "<a>a</a>"),
        ('<a href="da&#9;ta:text/html,x">a</a>', "<a>a</a>"),
        ('<img src="data:image/svg+xml,<svg onload=alert(1)>">', "<img>"),
        ('<img src="x" onerror="alert(1)">', "<img>"),
        ('<td background="javascript:alert(1)">a', "a"),
        ("<svg><script>alert(1)</script></svg><math><style>a</style></math>a", "a"),
        ("<!-- comment --><!--[if mso]>for Outlook<![endif]--><!--[if !mso]><!-->a<!--<![endif]-->", "a"),
        ("a&#2;b&#3;\x00c\x02", "abc"),
        (
            '<p style="color:red;behavior:url(x);width:expression(1);\\62 ehavior:url(x)">a</p>',
            '<p style="color:red">a</p>',
        ),
    ],
)
def test_scripts_forms_and_external_content_are_removed(source: str, left: str) -> None:
    assert _body(source) == left


@pytest.mark.parametrize(
    ("css", "left"),
    [
        ("color:red;background:url(https://x.example/a.png)", "color:red;background:url(https://x.example/a.png)"),
        ("background:url('data:image/png;base64,AA==')", 'background:url("data:image/png;base64,AA==")'),
        ("background:url(javascript:alert(1))", ""),
        ("background:image-set('https://x' 1x)", ""),
        ("-moz-binding:url(https://x)", ""),
        ("width:calc(100% - expression(1))", ""),
        ("color:red;}</style><script>", "color:red"),
    ],
)
def test_style_declarations(css: str, left: str) -> None:
    assert sanitize_declarations(css) == left


@pytest.mark.parametrize(
    "css",
    [
        "@import url(https://x);",
        "@font-face{src:url(https://x)}",
        "a{}",
        "a[b='</style>']{color:red}",
        "a{color:red",
        "}",
    ],
)
def test_a_style_sheet_loads_nothing_and_cannot_end_its_element(css: str) -> None:
    assert sanitize_stylesheet(css) in {"", "a { color:red }"}


def test_removed_parts_are_listed() -> None:
    source = "<html><head><title>x</title></head><p onclick=x><FORM><script>1</script><b>c</b> <x-y> 1 < 2"
    assert removed_parts(source) == ["<form>", "<script>", "<x-y>", "onclick"]


def test_values_are_escaped_for_their_position() -> None:
    source = '<p title="%%A%%">%%A%% <a href="https://acme.example/%%A%%?q=%%A%%">x</a></p>'
    value = '"><script>alert(1)</script>&'
    shown = "&quot;&gt;&lt;script&gt;alert(1)&lt;/" + NON_JOINER + "script&gt;&amp;"
    address = "%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E%26"
    assert _body(source, A=value) == (
        f'<p title="{shown}">{shown} <a href="https://acme.example/{address}?q={address}">x</a></p>'
    )


def test_rich_values_are_html_only_in_text() -> None:
    assert _body("<p>%%A%%</p>", A=QR) == f"<p>{QR.html}</p>"
    assert _body('<p title="%%A%%">x</p>', A=RichValue('"><b>', '"<')) == '<p title="&quot;&lt;">x</p>'


@pytest.mark.parametrize("source", ["%%QR_CODE%%", '<img src="%%QR_CODE%%">', '<img alt="QR" src="cid:%%QR_CODE%%">'])
def test_the_qr_code_may_be_written_as_in_portsip(source: str) -> None:
    assert _body(f"<div>{source}</div>", QR_CODE=QR) == f"<div>{QR.html}</div>"
    assert _text(f"a {source} b", QR_CODE=QR) == f"a\n{QR.text}\nb\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('<a href="%%A%%">x</a>', "A link cannot begin with %%A%%"),
        ('<a href="%%A%%:x">x</a>', "A link cannot begin with %%A%%"),
        ('<a href="java%%A%%">x</a>', "A link cannot begin with %%A%%"),
        ('<a href="javascript:%%A%%">x</a>', "A link cannot begin with %%A%%"),
        ('<a href="https://%%A%%/">x</a>', "%%A%% would decide which website"),
        ('<a href="https:\\\\%%A%%">x</a>', "%%A%% would decide which website"),
        ('<a href="&#104;ttps:/%%A%%">x</a>', "%%A%% would decide which website"),
        ('<a href="https://acme.example@%%A%%/">x</a>', "%%A%% would decide which website"),
        ('<a href="https://x/%%QR_CODE%%">x</a>', "%%QR_CODE%% is an image"),
        ('<p style="color:%%A%%">x</p>', "%%A%% is in the attribute “style”"),
        ("<style>p{color:%%A%%}</style>x", "%%A%% is in a style"),
        ('<img src="https://evil.example/%%A%%">', "%%A%% is in the attribute “src”"),
        ('<img alt="%%QR_CODE%%">', "%%QR_CODE%% is in the attribute “alt”"),
        ('<p class="%%A%%">x</p>', "%%A%% is in the attribute “class”"),
        ('<td bgcolor="%%A%%">x</td><table><tr><td width="%%A%%">', "%%A%% is in the attribute “width”"),
    ],
)
def test_misplaced_placeholders_are_rejected(source: str, words: str) -> None:
    with pytest.raises(MisplacedPlaceholder) as refused:
        compile_html("S", source)
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize("source", ["<b %%A%%>x</b>", "<%%A%%>x", "<!-- %%A%% -->x", "<script>%%A%%</script>x"])
def test_placeholders_in_removed_markup_are_not_filled_in(source: str) -> None:
    value = "onload=alert(1)"
    assert value not in _body(source, A=value).replace("&lt;onload=alert(1)&gt;", "")
    assert "<onload" not in _body(source, A=value)


def test_a_host_placeholder_may_be_the_host_of_a_link() -> None:
    source = '<a href="https://%%PBX_WEB_DOMAIN%%/login?user=%%USER_NAME%%">%%PBX_WEB_DOMAIN%%</a>'
    values: Values = {"PBX_WEB_DOMAIN": copyable("pbx.example"), "USER_NAME": copyable("ana&x")}
    words = compile_html("S", source).render(values)
    assert '<a href="https://pbx.example/login?user=ana%26x">pbx.example</a>' in words.html


def test_the_generated_plain_text() -> None:
    source = """
        <style>p{}</style><h1>Call   lost</h1>
        <p>Hello %%NAME%%,<br>see <a href="https://acme.example/%%NAME%%">the log</a>
        or <a href="https://acme.example">https://acme.example</a>.</p>
        <table><tr><th>Caller</th><td>%%NUMBER%%</td></tr><tr><td>Only %%NOTHING%%</td></tr></table>
        <ul><li>one</li><li>two &amp; three</li></ul><hr><img alt="Acme" src="https://x.example/a.png">"""
    assert _text(source, NAME="Ana K", NUMBER="+44") == (
        "Call lost\n\nHello Ana K,\nsee the log (https://acme.example/Ana%20K) or https://acme.example.\n\n"
        "Caller  +44\n\n- one\n- two & three\n\n----\n\nAcme\n"
    )


@pytest.mark.parametrize(
    "piece",
    [
        *("<div>", "<table>", "<style>a", "<style", "<!--[if x]>a", "<!--[if", "<!--", '<a href="', "<b %%A%% "),
        *("on= ", "<b>", "<b><p>x", "<em id=", "<b style='color:red'><p>x</b>"),
    ],
)
def test_no_template_takes_long(piece: str) -> None:
    start = time.monotonic()
    for length in (MAX_BODY_LENGTH, MAX_BODY_LENGTH // 5, MAX_BODY_LENGTH // 50):
        with suppress(MisplacedPlaceholder):  # too complex
            compile_html("S", (piece * length)[:length]).render({})
    assert time.monotonic() - start < 10  # seconds; one that looks at all of it for each piece takes minutes


@pytest.mark.parametrize(
    "mark",
    [
        "<b id=%d>",
        '<b id="%d">',
        "<B\nid='%d'>",
        "<font color=#%d >",
        '<i title="> %d">',
        "<u %d>",
        "<s/%d>",
    ],
)
def test_many_unclosed_formatting_tags_are_rejected(mark: str) -> None:
    source = "<p>" + "".join(mark.replace("%d", str(n)) for n in range(400)) + "<p>x" * 1000
    with pytest.raises(MisplacedPlaceholder, match="too complex"):
        compile_html("S", source)


def test_repeated_identical_tags_are_accepted() -> None:
    source = '<p><b style="color:red">a</b> <font color=red>b</font>' * 1000
    compile_html("S", source)
    assert len(sanitize(source)) < 2 * len(source)


def test_a_style_with_nested_brackets_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    assert sanitize(f'<p style="width:{"(" * 2400}">x</p>') == "<p>x</p>"
    assert not caplog.records


def test_sanitizing_twice_changes_nothing() -> None:
    once = sanitize('<p style="color:red" title="%%A%%">a &amp; b<br><a href="https://x.example/%%A%%">c</a></p>')
    assert sanitize(once) == once
