"""A template as a way in: markup of its author's in the portal, and values of an event's in the mail."""

from collections.abc import Callable
from email import message_from_bytes, policy
from html import unescape
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from portal.database import enter_scope
from portal.extensions import db
from portal.mail_servers.composing import Sender, compose
from portal.notifications import mail_templates, previews, wording
from portal.notifications.kinds import KINDS
from portal.notifications.own_html import compile_html
from portal.notifications.rendering import render
from portal.notifications.unfit import Unfit
from portal.notifications.wording import Format, Wording
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.notifications.test_rendering import ACME, NOW
from tests.pages import csrf_token, post
from tests.ready import peer, ready
from tests.security.test_headers import Content, directives
from tests.smtp_peer import SmtpPeer

__all__ = ["peer", "ready"]

LOST = KINDS["queue.call_lost"]
PAGE = "/tenants/acme.example/templates/queue.call_lost"
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</textarea><script>alert(1)</script>",
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<a href="javascript:alert(1)">x</a>',
    "[x](javascript:alert(1)) ![x](javascript:alert(1))",
    '<p style="background:url(javascript:alert(1));width:expression(alert(1))">x</p>',
    "<style></style><script>alert(1)</script></style>",
    "<style>a{b:'</style><script>alert(1)</script>'}</style>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<form action='https://evil.example'><input name='password'><button>Sign in</button></form>",
]
VALUES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" style="position:fixed" x="',
    "javascript:alert(1)",
    "//evil.example/",
    "@evil.example",
    "--><script>alert(1)</script><!--",
    "}</style><script>alert(1)</script>",
    "%%QR_CODE%% %%attr:CALLER_NAME%% %%url:CALLER_NAME%%",
    "&quot; onload=alert(1)",
]
EVERYWHERE = (
    '<p title="%%CALLER_NAME%%">%%CALLER_NAME%%</p><img alt="%%CALLER_NAME%%" src="https://acme.example/a.png">'
    '<a href="https://acme.example/%%CALLER_NAME%%?q=%%CALLER_NAME%%#%%CALLER_NAME%%" title="%%CALLER_NAME%%">x</a>'
    '<a href="tel:%%CALLER_NAME%%">y</a><a href="mailto:%%CALLER_NAME%%">z</a>'
)


class Tag(NamedTuple):
    """What of an element a value must not change."""

    name: str
    attributes: list[str]
    scheme: str
    host: str
    source: str


class Tags(HTMLParser):
    """The elements of a page, in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Tag] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        scheme, host, *_ = urlsplit(given.get("href", ""))
        self.found.append(Tag(tag, [name for name, _ in attrs], scheme, host, given.get("src", "")))


def structure(html: str) -> list[Tag]:
    """Return the elements of a page."""
    return Tags(html).found


def mail_of(body: str, name: str, subject: str = "S") -> str:
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": name})
    template = wording.compiled(LOST, Wording(Format.HTML, subject, body))
    return render(LOST, data, NOW, ACME, template=template).html


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    tenant = directory.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_an_author_writes_runs_neither_in_the_portal_nor_in_the_mail(
    admin: FlaskClient, attack: str, form: Format
) -> None:
    words: dict[str, Any] = {"subject": attack[:200], "body": attack, "format": form.value}
    assert post(admin, PAGE, **words).status_code == 303
    pages = [admin.get(path).text for path in (PAGE, "/tenants/acme.example/templates", "/tenants/acme.example/audit")]
    pages += [post(admin, PAGE, f"{PAGE}/preview", htmx=htmx, **words).text for htmx in (False, True)]
    for page in pages:
        assert not Content(page).faults
    frames = [admin.get(f"{PAGE}/preview/html"), post(admin, PAGE, f"{PAGE}/preview/html", **words)]
    for answer in frames:
        tags = structure(answer.text)
        assert not {"script", "svg", "iframe", "form", "input", "button", "math"} & {tag.name for tag in tags}
        assert not [name for tag in tags for name in tag.attributes if name.startswith("on")]
        assert not {"javascript", "data"} & {tag.scheme for tag in tags}


def test_the_frame_runs_nothing_whatever_is_in_it(admin: FlaskClient, acme: str) -> None:
    words: dict[str, Any] = {"subject": "S", "body": "x", "format": "html"}
    for answer in (admin.get(f"{PAGE}/preview/html"), post(admin, PAGE, f"{PAGE}/preview/html", **words)):
        found = directives(answer)
        assert found["default-src"] == found["form-action"] == "'none'"
        assert found["frame-ancestors"] == "'self'"
        assert "allow-scripts" not in found["sandbox"]
        assert "allow-same-origin" not in found["sandbox"]
        assert "script-src" not in found
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("value", VALUES)
def test_a_value_stays_where_it_stands(value: str) -> None:
    assert structure(mail_of(EVERYWHERE, value)) == structure(mail_of(EVERYWHERE, "Ana"))


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60))
def test_no_value_leaves_its_place(value: str) -> None:
    if value.strip():
        assert structure(mail_of(EVERYWHERE, value)) == structure(mail_of(EVERYWHERE, "Ana"))


PIECES = st.sampled_from(
    [
        *(
            "%%CALLER_NAME%%",
            "%%QR_CODE%%",
            "<p ",
            "<a href=",
            "<img src=",
            "<style>",
            "</style>",
            "<!--",
            "-->",
            "<svg>",
        ),
        *(
            '"',
            "'",
            ">",
            "<",
            "/>",
            "title=",
            "alt=",
            "style=",
            " ",
            "https://",
            "javascript:",
            "&#34;",
            "&lt;",
            "color:",
        ),
        *(
            "<![CDATA[",
            "]]>",
            "<table><tr><td>",
            "</p>",
            "<math>",
            "<textarea>",
            "<title>",
            "<script>",
            "x",
            "=",
            "\x00",
        ),
    ]
)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_no_template_lets_a_value_out_of_its_place(body: str) -> None:
    try:
        template = compile_html("S", body)
    except Unfit:
        return
    harmless, hostile = (
        template.render({"CALLER_NAME": value}).html for value in ("Ana", '"><script>alert(1)</script> onload=x')
    )
    assert [tag[:2] for tag in structure(hostile)] == [tag[:2] for tag in structure(harmless)]
    assert "<script" not in hostile


@pytest.mark.parametrize("form", Format)
def test_a_subject_makes_no_header(admin: FlaskClient, ready: str, peer: SmtpPeer, form: Format) -> None:
    refused = post(admin, PAGE, f"{PAGE}/sample", subject="S\r\nBcc: eve@evil.example", body="x", format=form.value)
    assert "Control characters are not allowed here." in refused.text
    assert not peer.mails
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": "A\u200bBcc: eve@evil.example" + "x" * 150})
    template = wording.compiled(LOST, Wording(form, "%%CALLER_NAME%%\r\nBcc: eve@evil.example", "x"))
    words = render(LOST, data, NOW, ACME, template=template)
    mail = compose(words, Sender("pbx@acme.example"), ["a@acme.example"], message_id="<1@x.example>", date=NOW)
    headers = message_from_bytes(mail.as_bytes(), policy=policy.default)
    assert "Bcc" not in headers
    assert headers["Subject"].startswith("A\u200bBcc: eve@evil.example")


def test_a_sample_reaches_the_account_alone(admin: FlaskClient, ready: str, peer: SmtpPeer) -> None:
    others: dict[str, Any] = {
        "to": "recipients",
        "recipients": "victim@stranger.example",
        "email": "victim@stranger.example",
    }
    answer = post(admin, PAGE, f"{PAGE}/sample", subject="S", body="x", format="markdown", **others)
    assert "took the sample for admin@acme.example" in unescape(answer.text)
    assert [mail.recipients for mail in peer.mails] == [["admin@acme.example"]]


def test_samples_and_test_emails_have_one_limit(admin: FlaskClient, ready: str) -> None:
    data = {"csrf_token": csrf_token(admin.get(PAGE).text), "subject": ""}
    others = "/tenants/acme.example/mail-server/test"
    answers = [admin.post(path, data=data).status_code for path in (f"{PAGE}/sample", others) * 6]
    assert answers == [422] * 10 + [429] * 2


def test_the_samples_qr_code_signs_nobody_in(tenant: Tenant, client: FlaskClient) -> None:
    values = previews.sample_values(KINDS["user.created"], tenant)
    text_of_qr = getattr(values["QR_CODE"], "text", "")
    address = text_of_qr.partition("http://portal.test")[2].partition("\n")[0]
    assert address == "/provision/sample"
    assert client.get(address, headers={"X-Linphone-Provisioning": "1"}).status_code in {404, 410}


def test_versions_are_never_changed(tenant: Tenant) -> None:
    mail_templates.save(tenant, LOST, Wording(Format.MARKDOWN, "S", "x"), None)
    for statement in ("UPDATE mail_templates SET body = 'y'", "DELETE FROM mail_templates"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            db.session.execute(text(statement))
        db.session.rollback()


@pytest.fixture
def strangers(sign_in: SignIn, globex: str) -> Callable[[], FlaskClient]:
    return lambda: sign_in("admin@globex.example", administers=globex)


def test_a_version_of_another_tenant_does_not_exist(
    app: Flask, admin: FlaskClient, acme: str, strangers: Callable[[], FlaskClient]
) -> None:
    assert post(admin, PAGE, subject="Secret plan", body="x", format="markdown").status_code == 303
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        version = mail_templates.in_use_of(LOST)
        assert version is not None
    own = PAGE.replace("acme", "globex")
    stranger = strangers()
    for path in (f"{own}?version={version.id}", f"{own}/preview/html?version={version.id}"):
        assert stranger.get(path).status_code == 404
    assert post(stranger, own, f"{own}/versions/{version.id}/use").status_code == 404
    assert "Secret plan" not in stranger.get(f"{own}?before={'f' * 32}").text
