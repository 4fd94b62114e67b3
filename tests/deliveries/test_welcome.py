"""The welcome mail, from the PBX's event to a softphone that is signed in, and what is left of its secrets."""

import email
import email.policy
import hashlib
import io
import xml.etree.ElementTree as ET
from email.message import EmailMessage
from typing import Any

import pytest
import zxingcpp
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_templates import versions as template_versions
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.notifications import settings
from portal.notifications.settings import Audience
from portal.tenants import service as tenant_service
from portal.web.i18n import LANGUAGES
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post

USER = {
    "extension_number": "1001",
    "extension_password": "k7#Vt-29.qX",
    "user_password": "Linden-4821-Kite",
    "voicemail_pin": "482177",
    "display_name": "Ana Kovač",
    "email": "ana@acme.example",
    "login_ip": "203.0.113.10",
    "tls_port": 5061,
    "transport": "tls",
}
SECRETS = ("k7#Vt-29.qX", "Linden-4821-Kite", "482177")
NAMESPACE = {"c": "http://www.linphone.org/xsds/lpconfig.xsd"}


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def qr_address(message: EmailMessage) -> str:
    """Return what the QR code in the mail holds."""
    (image,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    html = message.get_body(("html",))
    assert html is not None
    content_id = str(image["Content-ID"]).strip("<>")
    assert f"cid:{content_id}" in html.get_content(), "the HTML shows the picture"
    (code,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(image.get_content())))
    return str(code.text)


def test_a_softphone_is_signed_in_by_the_qr_code(
    post: Post, working_tenant: str, peer: SmtpPeer, client: FlaskClient
) -> None:
    assert post("user.created", USER).json["status"] == "sent"
    mails = {mail.recipients[0]: read(mail.content) for mail in peer.messages}
    message = mails["ana@acme.example"]
    body = message.get_body(("plain",))
    assert body is not None
    for shown in ("1001", "k7#Vt-29.qX", "acme.example", "203.0.113.10"):
        assert shown in body.get_content()
    address = qr_address(message)
    assert address.startswith("http://portal.test/provision/")
    path = address.removeprefix("http://portal.test")
    assert "<html" in client.get(path).get_data(as_text=True), "a link scanner does not spend it"
    answer = client.get(path, headers={"X-Linphone-Provisioning": "1"})
    assert (answer.status_code, answer.mimetype) == (200, "application/xml")
    root = ET.fromstring(answer.data)
    values = {
        (section.get("name"), entry.get("name")): entry.text
        for section in root.iterfind("c:section", NAMESPACE)
        for entry in section.iterfind("c:entry", NAMESPACE)
    }
    assert values["auth_info_0", "ha1"] == hashlib.md5(b"1001:acme.example:k7#Vt-29.qX").hexdigest()
    assert "sip:1001@acme.example" in (values["proxy_0", "reg_identity"] or "")
    assert "203.0.113.10:5061;transport=tls" in (values["proxy_0", "reg_proxy"] or "")
    assert client.get(path, headers={"X-Linphone-Provisioning": "1"}).status_code == 410
    others = qr_address(mails[PEOPLE[0]])
    assert client.get(others.removeprefix("http://portal.test")).status_code == 200, "each mail has a token of its own"


@pytest.mark.parametrize(
    ("sent", "of_tenant", "realm"),
    [(None, None, "acme.example"), (None, "asterisk", "asterisk"), ("freepbx", "asterisk", "freepbx")],
)
def test_the_password_is_hashed_for_the_realm_of_the_event_or_the_tenant(
    app: Flask,
    post: Post,
    working_tenant: str,
    peer: SmtpPeer,
    client: FlaskClient,
    sent: str | None,
    of_tenant: str | None,
    realm: str,
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        tenant_service.edit(tenant, tenant.name, tenant.domain, tenant.time_zone, of_tenant)
    post("user.created", USER | {"realm": sent})
    path = qr_address(read(peer.messages[0].content)).removeprefix("http://portal.test")
    document = client.get(path, headers={"User-Agent": "Unknown"}).text
    assert f">{realm}</" in document
    assert hashlib.md5(f"1001:{realm}:k7#Vt-29.qX".encode()).hexdigest() in document


def test_the_new_user_is_named_and_every_email_has_a_list_id(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post("user.created", USER)
    post()
    mails = [read(mail.content) for mail in peer.messages]
    assert [str(mail["List-Id"]) for mail in mails] == ["<notifications.acme.example>"] * 3
    assert [str(mail["To"]) for mail in mails] == [
        ", ".join(PEOPLE),
        "Ana Kovač <ana@acme.example>",
        ", ".join(PEOPLE),
    ]


@pytest.mark.parametrize(
    ("sent", "ending", "warned"),
    [
        ("de-AT", "Ihre Nebenstelle ist 1001", False),
        ("zh_Hans_CN.UTF-8", "您的分机号是 1001", False),
        ("tlh", "your extension is 1001", True),
    ],
)
def test_the_new_user_is_written_to_in_their_language(
    post: Post, working_tenant: str, peer: SmtpPeer, sent: str, ending: str, warned: bool
) -> None:
    answer = post("user.created", USER | {"language": sent}).json
    assert answer["status"] == "sent"
    warnings = answer.get("warnings", [])
    assert warnings == (
        [
            {
                "field": "data.language",
                "message": f"This was left out. Send one of these languages: {', '.join(LANGUAGES)}.",
            }
        ]
        if warned
        else []
    )
    subjects = {mail.recipients[0]: str(read(mail.content)["Subject"]) for mail in peer.messages}
    assert subjects["ana@acme.example"].endswith(ending)
    assert subjects[PEOPLE[0]] == "Welcome to Acme: your extension is 1001", "theirs is in the tenant's language"


def test_an_own_template_stays_in_the_language_it_was_written_in(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        source = TemplateSource(TemplateFormat.MARKDOWN, "Hello", "%%DATE_TIME%% %%EVENT_URL%% %%QR_CODE%%")
        template_versions.save_version(tenant, EVENT_TYPES["user.created"], source, None)
    post("user.created", USER | {"language": "de"})
    texts = {mail.recipients[0]: read(mail.content).get_body(("plain",)) for mail in peer.messages}
    text, others = texts["ana@acme.example"], texts[PEOPLE[0]]
    assert text is not None
    assert others is not None
    assert " UTC" in text.get_content() or " CET" in text.get_content() or " CEST" in text.get_content()
    assert "You are receiving this email" in text.get_content()
    assert "/deliveries/" not in text.get_content(), "a new user cannot sign in to the portal"
    assert f"http://portal.test/tenants/{working_tenant}/deliveries/" in others.get_content()


def test_the_user_does_not_see_who_else_got_the_mail(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post("user.created", USER)
    (theirs,) = [mail for mail in peer.messages if mail.recipients == ["ana@acme.example"]]
    assert not any(address.encode() in theirs.content for address in PEOPLE)


@pytest.mark.parametrize(
    ("audience", "to"),
    [
        (Audience.BOTH, [PEOPLE, ["ana@acme.example"]]),
        (Audience.RECIPIENTS, [PEOPLE]),
        (Audience.USER, [["ana@acme.example"]]),
    ],
)
def test_the_tenant_chooses_who_gets_it(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, audience: Audience, to: list[list[str]]
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        settings.set_audience(tenant, "user.created", audience)
    answer = post("user.created", USER)
    assert sorted(mail.recipients for mail in peer.messages) == sorted(to)
    assert len(answer.json["deliveries"]) == len(to)


def test_nobody_stands_in_for_a_user_without_an_address(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        settings.set_audience(tenant, "user.created", Audience.USER)
    answer = post("user.created", {"extension_number": "1001", "extension_password": "secret"})
    assert (answer.json["status"], answer.json["reason"]) == ("held", "no_recipients")
    assert not peer.conversations


def dump(app: Flask) -> str:
    """Return every row of every table as text, as a thief of the database would read it."""
    with app.app_context():
        tables = [row[0] for row in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        rows: list[Any] = []
        for table in tables:
            rows += [row[0] for row in sql(f'SELECT t::text FROM "{table}" t')]
        return "\n".join(str(row) for row in rows)


def test_a_secret_is_nowhere_in_the_database_or_the_log(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    assert post("user.created", USER).json["status"] == "deferred"
    ha1 = hashlib.md5(b"1001:acme.example:k7#Vt-29.qX").hexdigest()
    found = dump(app) + caplog.text
    assert "Ana Kova" in found, "the dump shows what is no secret"
    assert not [secret for secret in (*SECRETS, ha1) if secret in found]


def secrets_kept(app: Flask) -> bool:
    with app.app_context():
        return sql("SELECT secrets_encrypted IS NOT NULL FROM events")[0][0] is True


def test_secrets_are_kept_while_a_mail_needs_them_and_erased_when_none_does(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post("user.created", USER)
    assert secrets_kept(app)
    with app.app_context():
        sql("TRUNCATE events CASCADE")
    peer.script = {}
    post("user.created", USER)
    assert not secrets_kept(app)


def test_an_ignored_event_keeps_no_secrets(app: Flask, post: Post, acme: str) -> None:
    assert post("user.created", USER).json["status"] == "ignored"
    assert not secrets_kept(app)
