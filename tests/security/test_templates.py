"""Templates as an attack: scripts by their author in the portal, and values of events in emails."""

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

from portal.accounts.rate_limits import ACCOUNT, HOUR, Limit, Rule
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers.smtp import test_email
from portal.mail_servers.smtp.mime import MimeMessage, Sender
from portal.mail_templates import preview, versions
from portal.mail_templates import source as mail_templates_source
from portal.mail_templates.compiler import render_message
from portal.mail_templates.custom_html.sanitizer import compile_html
from portal.mail_templates.placeholders import MailContext
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.mail_templates.test_emails import ACME, NOW
from tests.pages import HTMX, csrf_token, post, read_form
from tests.security.test_headers import Content, directives
from tests.smtp_peer import SmtpPeer
from tests.tenant_fixtures import peer, working_tenant

__all__ = ["peer", "working_tenant"]

pytestmark = pytest.mark.slow

LOST = EVENT_TYPES["queue.call_lost"]
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
    template = mail_templates_source.compile_source(LOST, TemplateSource(TemplateFormat.HTML, subject, body))
    return render_message(LOST, data, NOW, ACME, template=template).html


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    tenant = tenant_service.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


@pytest.mark.parametrize("form", TemplateFormat)
def test_a_templates_scripts_run_neither_in_the_portal_nor_in_the_email(
    admin: FlaskClient, form: TemplateFormat
) -> None:
    editor = admin.get(PAGE).text
    for attack in ATTACKS:
        words = read_form(editor, "template") | {"subject": attack[:200], "body": attack, "format": form.value}
        assert admin.post(PAGE, data=words).status_code == 303, attack
        editor = admin.get(PAGE).text
        pages = [admin.get(path) for path in (PAGE, "/tenants/acme.example/templates")]
        pages += [admin.post(f"{PAGE}/preview", data=words, headers=headers) for headers in ({}, HTMX)]
        for page in pages:
            assert page.status_code == 200, attack
            assert not Content(page.text).faults, attack
        frames = [admin.get(f"{PAGE}/preview/html"), admin.post(f"{PAGE}/preview/html", data=words)]
        for answer in frames:
            assert answer.status_code == 200, attack
            tags = structure(answer.text)
            named = {tag.name for tag in tags}
            assert not {"script", "svg", "iframe", "form", "input", "button", "math"} & named, attack
            assert not [name for tag in tags for name in tag.attributes if name.startswith("on")], attack
            assert not {"javascript", "data"} & {tag.scheme for tag in tags}, attack
    audit = admin.get("/tenants/acme.example/audit").text
    assert audit.count("alert(1)") > len(ATTACKS)
    assert not Content(audit).faults


def test_the_preview_frame_runs_no_scripts(admin: FlaskClient, acme: str) -> None:
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
def test_hostile_values_do_not_change_the_structure(value: str) -> None:
    assert structure(mail_of(EVERYWHERE, value)) == structure(mail_of(EVERYWHERE, "Ana"))


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60))
def test_random_values_do_not_change_the_structure(value: str) -> None:
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
def test_values_cannot_escape_in_any_template(body: str) -> None:
    try:
        template = compile_html("S", body)
    except MisplacedPlaceholder:
        return
    harmless, hostile = (
        template.render({"CALLER_NAME": value}).html for value in ("Ana", '"><script>alert(1)</script> onload=x')
    )
    assert [tag[:2] for tag in structure(hostile)] == [tag[:2] for tag in structure(harmless)]
    assert "<script" not in hostile


@pytest.mark.parametrize("form", TemplateFormat)
def test_a_subject_cannot_add_headers(
    admin: FlaskClient, working_tenant: str, peer: SmtpPeer, form: TemplateFormat
) -> None:
    refused = post(admin, PAGE, f"{PAGE}/sample", subject="S\r\nBcc: eve@evil.example", body="x", format=form.value)
    assert "Control characters are not allowed here." in refused.text
    assert not peer.messages
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": "A\u200bBcc: eve@evil.example" + "x" * 150})
    template = mail_templates_source.compile_source(
        LOST, TemplateSource(form, "%%CALLER_NAME%%\r\nBcc: eve@evil.example", "x")
    )
    words = render_message(LOST, data, NOW, ACME, template=template)
    mail = MimeMessage(words, Sender("pbx@acme.example"), ["a@acme.example"], message_id="<1@x.example>", date=NOW)
    headers = message_from_bytes(mail.as_bytes(), policy=policy.default)
    assert "Bcc" not in headers
    assert headers["Subject"].startswith("A\u200bBcc: eve@evil.example")


def test_a_sample_is_sent_only_to_the_account(admin: FlaskClient, working_tenant: str, peer: SmtpPeer) -> None:
    others: dict[str, Any] = {
        "to": "recipients",
        "recipients": "victim@stranger.example",
        "email": "victim@stranger.example",
    }
    answer = post(admin, PAGE, f"{PAGE}/sample", subject="S", body="x", format="markdown", **others)
    assert "accepted the sample for admin@acme.example" in unescape(answer.text)
    assert [mail.recipients for mail in peer.messages] == [["admin@acme.example"]]


def test_samples_and_test_emails_have_one_limit(
    admin: FlaskClient, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Limit(10, HOUR, ACCOUNT)  # on a busy machine ten requests take long enough that another one is free
    monkeypatch.setattr(test_email, "RATE_LIMIT", Rule("test email", (slow,)))
    data = {"csrf_token": csrf_token(admin.get(PAGE).text), "subject": ""}
    others = "/tenants/acme.example/mail-server/test"
    answers = [admin.post(path, data=data).status_code for path in (f"{PAGE}/sample", others) * 6]
    assert answers == [422] * 10 + [429] * 2


def test_the_samples_qr_code_sets_up_no_phone(tenant: Tenant, client: FlaskClient) -> None:
    values = preview.sample_values(EVENT_TYPES["user.created"], MailContext.for_tenant(tenant))
    text_of_qr = getattr(values["QR_CODE"], "text", "")
    address = text_of_qr.partition("http://portal.test")[2].partition("\n")[0]
    assert address == "/provision/sample"
    assert client.get(address, headers={"X-Linphone-Provisioning": "1"}).status_code in {404, 410}


def test_versions_are_never_changed(tenant: Tenant) -> None:
    versions.save_version(tenant, LOST, TemplateSource(TemplateFormat.MARKDOWN, "S", "x"), None)
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
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        version = versions.current_version(LOST)
        assert version is not None
    own = PAGE.replace("acme", "globex")
    stranger = strangers()
    for path in (f"{own}?version={version.id}", f"{own}/preview/html?version={version.id}"):
        assert stranger.get(path).status_code == 404
    assert post(stranger, own, f"{own}/versions/{version.id}/use").status_code == 404
    assert "Secret plan" not in stranger.get(f"{own}?before={'f' * 32}").text
