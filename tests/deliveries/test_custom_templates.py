"""A tenant's own words on an event's way: in every mail from now on, and never in a mail's way."""

from email import message_from_bytes, policy
from uuid import UUID

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_templates import source, versions
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.deliveries.test_digest import end_storms
from tests.deliveries.test_retry import Work, work
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import CALL_LOST, Post

__all__ = ["statements", "work"]

OWN = TemplateSource(TemplateFormat.MARKDOWN, "Ring %%CALLER_NUMBER%%", "Please **ring** %%CALLER_NUMBER%%.")
PORTSIP = TemplateSource(
    TemplateFormat.HTML,
    "Your extension %%EXTENSION_NUMBER%%",
    '<html><body><p>%%DISPLAY_NAME%%: %%EXTENSION_PASSWORD%%</p><img src="%%QR_CODE%%"></body></html>',
)
USER = {
    "extension_number": "101",
    "extension_password": "s3<cret",
    "display_name": "Ann <b>",
    "email": "a@acme.example",
}


def own(app: Flask, event_type: str = "queue.call_lost", words: TemplateSource = OWN) -> UUID:
    """Give Acme own words, and return their version."""
    with app.app_context():
        tenant, kind = acme(), EVENT_TYPES[event_type]
        in_use = versions.current_version(kind)
        saved = versions.save_version(tenant, kind, words, in_use.id if in_use else None)
        assert isinstance(saved, MailTemplate)
        return saved.id


def acme() -> Tenant:
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def subjects(peer: SmtpPeer) -> list[str]:
    return [message_from_bytes(mail.content, policy=policy.default)["Subject"] for mail in peer.messages]


def test_they_cost_no_statement_beyond_the_first_event(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, statements: Statements
) -> None:
    post()
    statements.clear()
    post()
    usual = list(statements)
    own(app)
    statements.clear()
    post()
    assert [each for each in statements if each not in usual] == [api_keys.AUTHENTICATE_SQL, source.SELECT_VERSION]
    statements.clear()
    post()
    assert list(statements) == usual
    assert subjects(peer)[1:] == ["Call lost in queue 8000: +442079460123", *["Ring +442079460123"] * 2]


def test_a_retry_is_in_the_words_of_its_moment(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    own(app)
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute'")
    assert post().json["status"] == "deferred"
    own(app, words=TemplateSource(TemplateFormat.MARKDOWN, "Later", "x"))
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = NULL")
    work()
    assert subjects(peer) == ["Later"]


def test_a_template_that_fails_loses_no_mail(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, caplog: pytest.LogCaptureFixture
) -> None:
    version = own(app, words=TemplateSource(TemplateFormat.HTML, "Fine", "<p>x</p>"))
    with app.app_context():
        sql("UPDATE mail_templates SET body = '<p class=\"%%REASON%%\">'")
    assert post().json["status"] == "sent"
    assert subjects(peer) == ["Call lost in queue 8000: +442079460123"]
    assert str(version) in caplog.text


def test_own_html_has_the_picture_and_its_text(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    own(app, "user.created", PORTSIP)
    assert post("user.created", USER).json["status"] == "sent"
    mail = message_from_bytes(peer.messages[0].content, policy=policy.default)
    html, text = (part.get_content() for part in map(mail.get_body, (("html",), ("plain",))) if part)
    assert mail["Subject"] == "Your extension 101"
    assert "<p>Ann &lt;b&gt;: s3&lt;cret</p>" in html
    assert 'src="cid:qr-code"' in html
    assert text.startswith("Ann <b>: s3<cret")
    assert "http://portal.test/provision/" in text
    assert [part["Content-ID"] for part in mail.walk() if part.get_content_type() == "image/png"] == ["<qr-code>"]


def test_a_digest_keeps_its_own_words(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work) -> None:
    own(app)
    for number in range(11):
        post(data=CALL_LOST | {"caller_number": str(number)})
    assert end_storms(app) == 1
    work()
    assert subjects(peer)[:2] == ["Ring 0", "Ring 1"]
    assert "lost calls" in subjects(peer)[-1]


def test_another_tenants_words_stay_its_own(
    app: Flask, post: Post, working_tenant: str, globex: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        other = tenant_service.find(globex)
        assert other is not None
        enter_scope(other.id)
        versions.save_version(other, EVENT_TYPES["queue.call_lost"], OWN, None)
    post()
    assert subjects(peer) == ["Call lost in queue 8000: +442079460123"]
