"""The versions of a tenant's email templates: saving a version and choosing the one in use."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.orm import load_only

from portal.audit.log import Change, current_actor, record
from portal.errors import Refusal
from portal.events.event_type import EventType
from portal.extensions import db
from portal.mail_templates.models import MailTemplate
from portal.mail_templates.placement import MisplacedPlaceholder
from portal.mail_templates.source import TemplateFormat, TemplateSource, check_source, default_source
from portal.notifications.models import NotificationSetting
from portal.notifications.settings import lock_setting
from portal.tenants.models import Tenant

PAGE_SIZE = 20


def source_of(event_type: EventType, version: MailTemplate | None, language: str) -> TemplateSource:
    """Return the source of a version; None means the default, in this language."""
    if version is None:
        return default_source(event_type, language)
    return TemplateSource(TemplateFormat(version.format), version.subject, version.body)


def current_versions() -> Mapping[str, MailTemplate]:
    """Return the versions in use by event type, for the tenant in scope. Types with the default are not included."""
    rows = db.session.scalars(select(MailTemplate).where(MailTemplate.id.in_(select(NotificationSetting.template_id))))
    return {row.event_type: row for row in rows}


def current_version(event_type: EventType) -> MailTemplate | None:
    """Return the version in use for an event type of the tenant in scope; None means the default."""
    template_id = select(NotificationSetting.template_id).where(NotificationSetting.event_type == event_type.type)
    return db.session.scalar(select(MailTemplate).where(MailTemplate.id == template_id.scalar_subquery()))


def find_version(event_type: EventType, version_id: UUID | None) -> MailTemplate | None:
    """Return a version for an event type of the tenant in scope, or None if there is none with this id."""
    if version_id is None:
        return None
    query = select(MailTemplate).where(MailTemplate.event_type == event_type.type, MailTemplate.id == version_id)
    return db.session.scalar(query)


def list_versions(event_type: EventType, before: UUID | None = None) -> tuple[Sequence[MailTemplate], bool]:
    """Return a page of versions without their bodies, the newest first, and whether there are older ones."""
    query = select(MailTemplate).where(MailTemplate.event_type == event_type.type)
    if before:
        query = query.where(MailTemplate.id < before)
    columns = load_only(MailTemplate.subject, MailTemplate.format, MailTemplate.created_at, MailTemplate.created_by)
    rows = db.session.scalars(query.order_by(MailTemplate.id.desc()).limit(PAGE_SIZE + 1).options(columns)).all()
    return rows[:PAGE_SIZE], len(rows) > PAGE_SIZE


def save_version(
    tenant: Tenant, event_type: EventType, new: TemplateSource, based_on: UUID | None
) -> MailTemplate | Refusal:
    """Save a new version, use it from now on, and return it. If nothing has changed, return the one in use.

    `based_on` is the version that the author started from. If another one is in use by now, nothing is saved.
    """
    try:
        check_source(event_type, new)
    except MisplacedPlaceholder as error:
        return Refusal("body", str(error))
    setting = lock_setting(tenant, event_type.type)
    old = find_version(event_type, setting.template_id)
    if setting.template_id != based_on:
        db.session.rollback()
        return Refusal("based_on", _conflict(old))
    old_source = source_of(event_type, old, tenant.language)
    if old and old_source == new:
        db.session.rollback()
        return old
    version = MailTemplate(
        event_type=event_type.type,
        format=new.format,
        subject=new.subject,
        body=new.body,
        created_by=current_actor().name,
    )
    db.session.add(version)
    db.session.flush()
    setting.template_id = version.id
    record("template.changed", event_type.type, tenant_id=tenant.id, changes=_changes(old_source, new))
    db.session.commit()
    return version


def use_version(tenant: Tenant, event_type: EventType, version: MailTemplate | None) -> None:
    """Use a version from now on; None means the default."""
    setting = lock_setting(tenant, event_type.type)
    old = find_version(event_type, setting.template_id)
    setting.template_id = version.id if version else None
    action = "template.used_version" if version else "template.restored"
    changes: dict[str, Change] = {"version": [_version_name(old), _version_name(version)]}
    record(action, event_type.type, tenant_id=tenant.id, changes=changes)
    db.session.commit()


def _changes(old: TemplateSource, new: TemplateSource) -> dict[str, Change]:
    changes: dict[str, Change] = {"subject": [old.subject, new.subject], "format": [old.format, new.format]}
    return changes | ({"body": "changed"} if old.body != new.body else {})


def _version_name(version: MailTemplate | None) -> str:
    return version.created_at.isoformat(sep=" ", timespec="seconds") if version else "default"


def _conflict(version: MailTemplate | None) -> str:
    if version is None:
        return str(gettext("The default has been restored in the meantime."))
    return str(gettext("%(name)s has saved another version in the meantime.", name=version.created_by))
