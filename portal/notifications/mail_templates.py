"""The versions of a tenant's mail templates: saving one, and which one is in use."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.orm import load_only

from portal.audit.entries import Change, note
from portal.audit.who import actor
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications import wording
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.models import MailTemplate, NotificationSwitch
from portal.notifications.switches import to_change
from portal.notifications.unfit import Unfit
from portal.notifications.wording import Format, Wording
from portal.tenants.models import Tenant

PAGE = 20  # versions


@dataclass(frozen=True, slots=True)
class InUse:
    """The words of an event kind's mail in use; `version` is None where they are the default."""

    kind: EventKind
    version: MailTemplate | None

    def wording(self, language: str) -> Wording:
        """Return subject and body; the default ones are in the language."""
        return of_version(self.version) if self.version else wording.default(self.kind, language)


def of_version(version: MailTemplate) -> Wording:
    """Return the words of a version."""
    return Wording(Format(version.format), version.subject, version.body)


def in_use() -> Sequence[InUse]:
    """Return the words in use of each kind, for the tenant in scope."""
    rows = db.session.scalars(select(MailTemplate).where(MailTemplate.id.in_(select(NotificationSwitch.template_id))))
    found = {row.event_type: row for row in rows}
    return [InUse(kind, found.get(kind.type)) for kind in KINDS.values()]


def in_use_of(kind: EventKind) -> MailTemplate | None:
    """Return the version in use of a kind's template of the tenant in scope, None for the default."""
    named = select(NotificationSwitch.template_id).where(NotificationSwitch.event_type == kind.type).scalar_subquery()
    return db.session.scalar(select(MailTemplate).where(MailTemplate.id == named))


def find(kind: EventKind, version: UUID | None) -> MailTemplate | None:
    """Return a version of the kind's template of the tenant in scope, None where there is no such one."""
    if version is None:
        return None
    query = select(MailTemplate).where(MailTemplate.event_type == kind.type, MailTemplate.id == version)
    return db.session.scalar(query)


def versions(kind: EventKind, before: UUID | None = None) -> tuple[Sequence[MailTemplate], bool]:
    """Return a page of versions without their bodies, the newest first, and whether there are older ones."""
    query = select(MailTemplate).where(MailTemplate.event_type == kind.type)
    if before:
        query = query.where(MailTemplate.id < before)
    shown = load_only(MailTemplate.subject, MailTemplate.format, MailTemplate.created_at, MailTemplate.created_by)
    rows = db.session.scalars(query.order_by(MailTemplate.id.desc()).limit(PAGE + 1).options(shown)).all()
    return rows[:PAGE], len(rows) > PAGE


def save(tenant: Tenant, kind: EventKind, new: Wording, based_on: UUID | None) -> MailTemplate | Refusal:
    """Return the new version, which is in use from now on; the one in use where the words are the same.

    `based_on` is the version that the author began with. Where another one is in use by now, nothing is saved.
    """
    try:
        wording.compiled(kind, new)
    except Unfit as unfit:
        return Refusal("body", str(unfit))
    switch = to_change(tenant, kind.type)
    old = find(kind, switch.template_id)
    if switch.template_id != based_on:
        db.session.rollback()
        return Refusal("based_on", _newer(old))
    if old and of_version(old) == new:
        db.session.rollback()
        return old
    version = MailTemplate(
        event_type=kind.type, format=new.format, subject=new.subject, body=new.body, created_by=actor().name
    )
    db.session.add(version)
    db.session.flush()
    switch.template_id = version.id
    note(
        "template.changed",
        kind.type,
        tenant_id=tenant.id,
        changes=_changes(InUse(kind, old).wording(tenant.locale), new),
    )
    db.session.commit()
    return version


def use(tenant: Tenant, kind: EventKind, version: MailTemplate | None) -> None:
    """Use a version from now on, or the default for None."""
    switch = to_change(tenant, kind.type)
    old = find(kind, switch.template_id)
    switch.template_id = version.id if version else None
    action = "template.used_version" if version else "template.restored"
    note(action, kind.type, tenant_id=tenant.id, changes={"version": [_name(old), _name(version)]})
    db.session.commit()


def _changes(old: Wording, new: Wording) -> dict[str, Change]:
    changes: dict[str, Change] = {"subject": [old.subject, new.subject], "format": [old.format, new.format]}
    return changes | ({"body": "changed"} if old.body != new.body else {})


def _name(version: MailTemplate | None) -> str:
    return _minute(version.created_at) if version else "default"


def _minute(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")


def _newer(version: MailTemplate | None) -> str:
    if version is None:
        return str(gettext("The default was restored meanwhile."))
    return str(gettext("%(name)s saved another version meanwhile.", name=version.created_by))
