"""A tenant's own words: compiled once by their version, and never in the way of a mail."""

from uuid import UUID

import pytest
from flask import Flask

from portal.database import enter_scope
from portal.notifications import mail_templates, wording
from portal.notifications.kinds import KINDS
from portal.notifications.models import MailTemplate
from portal.notifications.rendering import render
from portal.notifications.unfit import Unfit
from portal.notifications.wording import Format, Wording
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.noted import Statements, statements
from tests.notifications.test_rendering import ACME, NOW
from tests.sql import sql

__all__ = ["statements"]

LOST = KINDS["queue.call_lost"]


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, in whose scope the session is."""
    tenant = directory.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def saved(tenant: Tenant, words: Wording, based_on: UUID | None = None) -> MailTemplate:
    """Return the new version."""
    version = mail_templates.save(tenant, LOST, words, based_on)
    assert isinstance(version, MailTemplate)
    return version


def test_the_default_is_the_kinds_own() -> None:
    for kind in KINDS.values():
        assert wording.compiled(kind, wording.default(kind)).subject.fill({}, str) is not None
    assert wording.in_use(None, LOST) is None


def test_a_version_is_read_and_compiled_once(tenant: Tenant, statements: Statements) -> None:
    version = saved(tenant, Wording(Format.HTML, "Lost", "<p>A %%CALLER_NAME%%</p>")).id
    statements.clear()
    template = wording.in_use(version, LOST)
    assert template is not None
    assert list(statements) == [wording.FIND]
    statements.clear()
    assert wording.in_use(version, LOST) is template
    assert not statements


def test_one_that_does_not_compile_leaves_the_default_and_a_word_in_the_log(
    tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    version = saved(tenant, Wording(Format.HTML, "Lost", "<p>A</p>")).id
    sql("UPDATE mail_templates SET body = '<p style=\"%%CALLER_NAME%%\">'")
    assert wording.in_use(version, LOST) is None
    assert f"Version {version} of the template of queue.call_lost does not compile" in caplog.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[x](https://%%CALLER_NAME%%/)", "%%CALLER_NAME%% would decide which site"),
        ("<https://%%CALLER_NAME%%>", "%%CALLER_NAME%% would decide which site"),
        ("- **[x](https://acme.example@%%CALLER_NAME%%)**", "%%CALLER_NAME%% would decide which site"),
        ("[x](https://acme.example/%%QR_CODE%%)", "%%QR_CODE%% is a picture"),
    ],
)
def test_a_link_leads_where_its_author_says(body: str, words: str) -> None:
    with pytest.raises(Unfit) as refused:
        wording.compiled(LOST, Wording(Format.MARKDOWN, "S", body))
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize("body", ["[x](%%CALLER_NAME%%)", "[x](%%CALLER_NAME%%:y)", "[x](javascript:%%CALLER_NAME%%)"])
def test_what_cannot_be_a_link_is_text(body: str) -> None:
    template = wording.compiled(LOST, Wording(Format.MARKDOWN, "S", body))
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": "javascript:alert(1)"})
    assert "<a " not in render(LOST, data, NOW, ACME, template=template).html


def test_a_placeholder_in_a_links_path_is_quoted() -> None:
    words = Wording(
        Format.MARKDOWN, "S", '[**%%CALLER_NAME%%**](https://acme.example/?q=%%CALLER_NAME%%&x "%%REASON%%")'
    )
    data = LOST.fields.model_validate({**LOST.sample, "caller_name": 'A"&</a>', "reason": None})
    html = render(LOST, data, NOW, ACME, template=wording.compiled(LOST, words)).html
    assert 'href="https://acme.example/?q=A%22%26%3C%2Fa%3E&amp;x"' in html
    assert "A&quot;&amp;&lt;/" in html


def test_the_picture_stands_in_no_subject() -> None:
    with pytest.raises(Unfit, match="no subject can show"):
        wording.compiled(KINDS["user.created"], Wording(Format.MARKDOWN, "%%QR_CODE%%", "x"))
