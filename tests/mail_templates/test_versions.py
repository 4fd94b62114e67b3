"""Versions of a template: saving, restoring, the audit trail and concurrent changes."""

from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from portal.audit.models import AuditEntry
from portal.database.scope import enter_scope, every_tenant
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_templates import versions as template_versions
from portal.mail_templates.models import MAX_BODY_LENGTH, MAX_SUBJECT_LENGTH, MailTemplate
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.mail_templates.versions import source_of
from portal.notifications import settings
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.mail_templates.test_source import LOST, saved, tenant
from tests.sql import sql

__all__ = ["tenant"]

FIRST, SECOND = (
    TemplateSource(TemplateFormat.MARKDOWN, f"{word} %%CALLER_NAME%%", f"{word}.") for word in ("One", "Two")
)


def told() -> list[tuple[str, str, object]]:
    """Return the entries of the audit trail about templates."""
    with every_tenant():
        rows = db.session.query(AuditEntry).where(AuditEntry.action.like("template.%")).order_by(AuditEntry.id).all()
        db.session.commit()
    return [(row.action, row.subject, row.changes) for row in rows]


def test_all_templates_are_the_default_at_first(tenant: Tenant) -> None:
    assert template_versions.current_versions() == {}
    assert [template_versions.current_version(event_type) for event_type in EVENT_TYPES.values()] == [None] * 5
    assert source_of(LOST, None, "en") == TemplateSource(TemplateFormat.MARKDOWN, LOST.subject, LOST.body)


def test_a_saved_version_is_used_and_older_ones_are_kept(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    second = saved(tenant, SECOND, first.id)
    assert template_versions.current_version(LOST) == second
    assert settings.settings_by_type(EVENT_TYPES)[LOST.type].template_id == second.id
    assert not settings.settings_by_type(EVENT_TYPES)[LOST.type].enabled
    versions, has_older = template_versions.list_versions(LOST)
    assert [source_of(LOST, version, "en") for version in versions] == [SECOND, FIRST]
    assert {each.created_by for each in versions} == {"portal"}
    assert not has_older


def test_an_older_version_and_the_default_can_be_restored(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    saved(tenant, SECOND, first.id)
    template_versions.use_version(tenant, LOST, first)
    assert template_versions.current_version(LOST) == first
    template_versions.use_version(tenant, LOST, None)
    assert template_versions.current_version(LOST) is None
    assert len(template_versions.list_versions(LOST)[0]) == 2


def test_changes_are_audited(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    template_versions.use_version(tenant, LOST, None)
    template_versions.use_version(tenant, LOST, None)
    template_versions.use_version(tenant, LOST, first)
    when = first.created_at.isoformat(sep=" ", timespec="seconds")
    assert told() == [
        ("template.changed", LOST.type, {"subject": [LOST.subject, FIRST.subject], "body": "changed"}),
        ("template.restored", LOST.type, {"version": [when, "default"]}),
        ("template.used_version", LOST.type, {"version": ["default", when]}),
    ]


def test_saving_without_changes_creates_no_version(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    assert saved(tenant, FIRST, first.id) == first
    assert len(template_versions.list_versions(LOST)[0]) == len(told()) == 1


@pytest.mark.parametrize("based_on", [None, UUID(int=0)])
def test_a_conflicting_save_is_rejected(tenant: Tenant, based_on: UUID | None) -> None:
    first = saved(tenant, FIRST)
    refused = template_versions.save_version(tenant, LOST, SECOND, based_on)
    assert refused == Refusal("based_on", "portal has saved another version in the meantime.")
    assert template_versions.current_version(LOST) == first
    assert saved(tenant, SECOND, first.id).subject == SECOND.subject


def test_saving_after_the_default_was_restored_is_rejected(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    template_versions.use_version(tenant, LOST, None)
    refused = template_versions.save_version(tenant, LOST, SECOND, first.id)
    assert refused == Refusal("based_on", "The default has been restored in the meantime.")


def test_unsafe_templates_are_not_saved(tenant: Tenant) -> None:
    refused = template_versions.save_version(
        tenant, LOST, TemplateSource(TemplateFormat.HTML, "S", '<p style="%%REASON%%">'), None
    )
    assert isinstance(refused, Refusal)
    assert refused.field == "body"
    assert template_versions.list_versions(LOST) == ([], False)


def test_versions_are_paginated(tenant: Tenant) -> None:
    last: MailTemplate | None = None
    for number in range(template_versions.PAGE_SIZE + 1):
        last = saved(tenant, TemplateSource(TemplateFormat.MARKDOWN, f"S{number}", "B"), last.id if last else None)
    page, older = template_versions.list_versions(LOST)
    assert (page[0].subject, page[-1].subject, older) == ("S20", "S1", True)
    page, older = template_versions.list_versions(LOST, page[-1].id)
    assert ([each.subject for each in page], older) == (["S0"], False)


@pytest.mark.parametrize(
    ("subject", "body", "constraint"),
    [
        ("", "x", "subject_length"),
        ("x" * (MAX_SUBJECT_LENGTH + 1), "x", "subject_length"),
        ("x", "", "body_size"),
        ("x", "é" * (MAX_BODY_LENGTH // 2 + 1), "body_size"),
    ],
)
def test_the_database_limits_lengths_too(tenant: Tenant, subject: str, body: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        template_versions.save_version(tenant, LOST, TemplateSource(TemplateFormat.MARKDOWN, subject, body), None)


def test_a_setting_refers_only_to_versions_of_its_tenant_and_event_type(tenant: Tenant, globex: str) -> None:
    first = saved(tenant, FIRST)
    other = tenant_service.find(globex)
    assert other is not None
    enter_scope(other.id)
    assert template_versions.find_version(LOST, first.id) is None
    for owner, event_type in ((other.id, LOST.type), (tenant.id, "user.created")):
        with pytest.raises(DBAPIError, match="fk_notification_settings"):
            sql(
                "INSERT INTO notification_settings (tenant_id, event_type, enabled, audience, template_id)"
                " VALUES (:owner, :event_type, true, 'both', :version)",
                owner=owner,
                event_type=event_type,
                version=first.id,
            )


def test_versions_are_deleted_with_their_tenant(tenant: Tenant) -> None:
    saved(tenant, FIRST)
    sql("DELETE FROM tenants")
    assert sql("SELECT count(*) FROM mail_templates")[0][0] == 0
