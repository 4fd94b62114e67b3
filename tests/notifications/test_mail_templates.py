"""Versions of a template: saved, used again, told; and two people at once."""

from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from portal.audit.models import AuditEntry
from portal.database import enter_scope, every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications import mail_templates, switches
from portal.notifications.kinds import KINDS
from portal.notifications.mail_templates import of_version
from portal.notifications.models import LARGEST_BODY, LONGEST_SUBJECT, MailTemplate
from portal.notifications.wording import Format, Wording
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.notifications.test_wording import LOST, saved, tenant
from tests.sql import sql

__all__ = ["tenant"]

FIRST, SECOND = (Wording(Format.MARKDOWN, f"{word} %%CALLER_NAME%%", f"{word}.") for word in ("One", "Two"))


def told() -> list[tuple[str, str, object]]:
    """Return the entries of the audit trail about templates."""
    with every_tenant():
        rows = db.session.query(AuditEntry).where(AuditEntry.action.like("template.%")).order_by(AuditEntry.id).all()
        db.session.commit()
    return [(row.action, row.subject, row.changes) for row in rows]


def test_at_first_all_are_the_default(tenant: Tenant) -> None:
    assert [(each.kind, each.version) for each in mail_templates.in_use()] == [(kind, None) for kind in KINDS.values()]
    assert mail_templates.in_use()[-1].wording("en") == Wording(Format.MARKDOWN, LOST.subject, LOST.body)


def test_what_is_saved_is_in_use_and_what_was_before_is_kept(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    second = saved(tenant, SECOND, first.id)
    assert mail_templates.in_use_of(LOST) == second
    assert switches.switch(LOST.type).template == second.id
    assert not switches.switch(LOST.type).enabled
    versions, older = mail_templates.versions(LOST)
    assert [of_version(each) for each in versions] == [SECOND, FIRST]
    assert {each.created_by for each in versions} == {"portal"}
    assert not older


def test_each_version_and_the_default_are_one_step_back(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    saved(tenant, SECOND, first.id)
    mail_templates.use(tenant, LOST, first)
    assert mail_templates.in_use_of(LOST) == first
    mail_templates.use(tenant, LOST, None)
    assert mail_templates.in_use_of(LOST) is None
    assert len(mail_templates.versions(LOST)[0]) == 2


def test_all_of_it_is_told(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    mail_templates.use(tenant, LOST, None)
    mail_templates.use(tenant, LOST, None)
    mail_templates.use(tenant, LOST, first)
    when = first.created_at.isoformat(sep=" ", timespec="seconds")
    assert told() == [
        ("template.changed", LOST.type, {"subject": [LOST.subject, FIRST.subject], "body": "changed"}),
        ("template.restored", LOST.type, {"version": [when, "default"]}),
        ("template.used_version", LOST.type, {"version": ["default", when]}),
    ]


def test_saving_without_a_change_makes_no_version(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    assert saved(tenant, FIRST, first.id) == first
    assert len(mail_templates.versions(LOST)[0]) == len(told()) == 1


@pytest.mark.parametrize("based_on", [None, UUID(int=0)])
def test_who_saves_second_is_told_and_changes_nothing(tenant: Tenant, based_on: UUID | None) -> None:
    first = saved(tenant, FIRST)
    refused = mail_templates.save(tenant, LOST, SECOND, based_on)
    assert refused == Refusal("based_on", "portal saved another version meanwhile.")
    assert mail_templates.in_use_of(LOST) == first
    assert saved(tenant, SECOND, first.id).subject == SECOND.subject


def test_who_saves_after_the_default_was_restored_is_told(tenant: Tenant) -> None:
    first = saved(tenant, FIRST)
    mail_templates.use(tenant, LOST, None)
    refused = mail_templates.save(tenant, LOST, SECOND, first.id)
    assert refused == Refusal("based_on", "The default was restored meanwhile.")


def test_what_cannot_be_made_safe_is_not_saved(tenant: Tenant) -> None:
    refused = mail_templates.save(tenant, LOST, Wording(Format.HTML, "S", '<p style="%%REASON%%">'), None)
    assert isinstance(refused, Refusal)
    assert refused.field == "body"
    assert mail_templates.versions(LOST) == ([], False)


def test_versions_come_in_pages(tenant: Tenant) -> None:
    last: MailTemplate | None = None
    for number in range(mail_templates.PAGE + 1):
        last = saved(tenant, Wording(Format.MARKDOWN, f"S{number}", "B"), last.id if last else None)
    page, older = mail_templates.versions(LOST)
    assert (page[0].subject, page[-1].subject, older) == ("S20", "S1", True)
    page, older = mail_templates.versions(LOST, page[-1].id)
    assert ([each.subject for each in page], older) == (["S0"], False)


@pytest.mark.parametrize(
    ("subject", "body", "constraint"),
    [
        ("", "x", "subject_fits"),
        ("x" * (LONGEST_SUBJECT + 1), "x", "subject_fits"),
        ("x", "", "body_fits"),
        ("x", "é" * (LARGEST_BODY // 2 + 1), "body_fits"),
    ],
)
def test_the_database_bounds_them_too(tenant: Tenant, subject: str, body: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        mail_templates.save(tenant, LOST, Wording(Format.MARKDOWN, subject, body), None)


def test_a_switch_names_a_version_of_its_own_tenant_and_event(tenant: Tenant, globex: str) -> None:
    first = saved(tenant, FIRST)
    other = directory.find(globex)
    assert other is not None
    enter_scope(other.id)
    assert mail_templates.find(LOST, first.id) is None
    for owner, event_type in ((other.id, LOST.type), (tenant.id, "user.created")):
        with pytest.raises(DBAPIError, match="fk_notification_switches"):
            sql(
                "INSERT INTO notification_switches (tenant_id, event_type, enabled, audience, template_id)"
                " VALUES (:owner, :event_type, true, 'both', :version)",
                owner=owner,
                event_type=event_type,
                version=first.id,
            )


def test_they_go_with_their_tenant(tenant: Tenant) -> None:
    saved(tenant, FIRST)
    sql("DELETE FROM tenants")
    assert sql("SELECT count(*) FROM mail_templates")[0][0] == 0
