"""Which events send mail, and whom a mail about a user reaches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from portal.extensions import db
from portal.notifications.models import NotificationSwitch
from portal.signals import mend
from portal.tenants.models import Tenant


class Audience(StrEnum):
    """Whom a welcome mail reaches."""

    BOTH = "both"
    RECIPIENTS = "recipients"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether an event kind sends mail for a tenant, to whom, and in which words. The default is a new tenant's.

    `template` is the version in use of the tenant's own template, None the default.
    """

    enabled: bool = False
    audience: Audience = Audience.BOTH
    template: UUID | None = None


def switch(event_type: str) -> Switch:
    """Return the switch of one event type for the tenant in scope."""
    return switches([event_type])[event_type]


def switches(event_types: Iterable[str]) -> Mapping[str, Switch]:
    """Return the switches of these event types for the tenant in scope."""
    wanted = list(event_types)
    rows = db.session.scalars(select(NotificationSwitch).where(NotificationSwitch.event_type.in_(wanted)))
    found = {row.event_type: Switch(row.enabled, Audience(row.audience), row.template_id) for row in rows}
    return {each: found.get(each, Switch()) for each in wanted}


def turn(tenant: Tenant, event_types: Iterable[str], *, on: bool) -> None:
    """Turn the mails of these event types on or off."""
    mend(tenant.id)
    _set(tenant, event_types, enabled=on)


def choose_audience(tenant: Tenant, event_type: str, audience: Audience) -> None:
    """Choose whom the mails of an event type about a user reach."""
    _set(tenant, [event_type], audience=audience)


def _set(tenant: Tenant, event_types: Iterable[str], **values: object) -> None:
    for event_type in event_types:
        row = to_change(tenant, event_type)
        for name, value in values.items():
            setattr(row, name, value)
    db.session.commit()


def to_change(tenant: Tenant, event_type: str) -> NotificationSwitch:
    """Return the row of a switch, locked until the next commit: it is made where there is none, as a new tenant's."""
    new = {"tenant_id": tenant.id, "event_type": event_type, "enabled": False, "audience": Audience.BOTH}
    db.session.execute(insert(NotificationSwitch).values(new).on_conflict_do_nothing())
    wanted = select(NotificationSwitch).where(NotificationSwitch.event_type == event_type).with_for_update()
    return db.session.scalars(wanted.execution_options(populate_existing=True)).one()
