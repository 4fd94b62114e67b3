"""Template sources: compiled once per version, with the default as a fallback."""

from uuid import UUID

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_templates import source, versions
from portal.mail_templates.compiler import render_message
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.mail_templates.test_emails import ACME, NOW
from tests.sql import sql
from tests.sql_log import Statements, statements

__all__ = ["statements"]

LOST = EVENT_TYPES["queue.call_lost"]


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, in whose scope the session is."""
    tenant = tenant_service.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def saved(tenant: Tenant, words: TemplateSource, based_on: UUID | None = None) -> MailTemplate:
    """Return the new version."""
    version = versions.save_version(tenant, LOST, words, based_on)
    assert isinstance(version, MailTemplate)
    return version


def test_every_default_compiles() -> None:
    for event_type in EVENT_TYPES.values():
        assert source.compile_source(event_type, source.default_source(event_type)).subject.fill({}, {}) is not None
    assert source.compiled_version(1, None, LOST) is None


def test_a_version_is_read_and_compiled_once(tenant: Tenant, statements: Statements) -> None:
    version = saved(tenant, TemplateSource(TemplateFormat.HTML, "Lost", "<p>A %%CALLER_NAME%%</p>")).id
    statements.clear()
    template = source.compiled_version(tenant.id, version, LOST)
    assert template is not None
    assert list(statements) == [source.SELECT_VERSION]
    statements.clear()
    assert source.compiled_version(tenant.id, version, LOST) is template
    assert not statements


def test_a_version_that_does_not_compile_is_logged_and_replaced_by_the_default(
    tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    version = saved(tenant, TemplateSource(TemplateFormat.HTML, "Lost", "<p>A</p>")).id
    sql("UPDATE mail_templates SET body = '<p style=\"%%CALLER_NAME%%\">'")
    assert source.compiled_version(tenant.id, version, LOST) is None
    assert f"Version {version} of the template of queue.call_lost does not compile" in caplog.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[x](https://%%CALLER_NAME%%/)", "%%CALLER_NAME%% would decide which website"),
        ("<https://%%CALLER_NAME%%>", "%%CALLER_NAME%% would decide which website"),
        ("- **[x](https://acme.example@%%CALLER_NAME%%)**", "%%CALLER_NAME%% would decide which website"),
        ("[x](https://acme.example/%%QR_CODE%%)", "%%QR_CODE%% is an image"),
    ],
)
def test_a_value_cannot_decide_where_a_link_leads(body: str, words: str) -> None:
    with pytest.raises(MisplacedPlaceholder) as refused:
        source.compile_source(LOST, TemplateSource(TemplateFormat.MARKDOWN, "S", body))
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize("body", ["[x](%%CALLER_NAME%%)", "[x](%%CALLER_NAME%%:y)", "[x](javascript:%%CALLER_NAME%%)"])
def test_links_without_a_valid_scheme_are_text(body: str) -> None:
    template = source.compile_source(LOST, TemplateSource(TemplateFormat.MARKDOWN, "S", body))
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": "javascript:alert(1)"})
    assert "<a " not in render_message(LOST, data, NOW, ACME, template=template).html


def test_a_placeholder_in_a_links_path_is_quoted() -> None:
    words = TemplateSource(
        TemplateFormat.MARKDOWN, "S", '[**%%CALLER_NAME%%**](https://acme.example/?q=%%CALLER_NAME%%&x "%%REASON%%")'
    )
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": 'A"&</a>', "reason": None})
    html = render_message(LOST, data, NOW, ACME, template=source.compile_source(LOST, words)).html
    assert 'href="https://acme.example/?q=A%22%26%3C%2Fa%3E&amp;x"' in html
    assert "A&quot;&amp;&lt;/" in html


def test_the_qr_code_is_rejected_in_a_subject() -> None:
    with pytest.raises(MisplacedPlaceholder, match="a subject cannot contain"):
        source.compile_source(EVENT_TYPES["user.created"], TemplateSource(TemplateFormat.MARKDOWN, "%%QR_CODE%%", "x"))
