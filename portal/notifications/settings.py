"""Notification settings: which events are emailed and to whom, and the storm limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from portal.extensions import db
from portal.notifications.models import NotificationSetting
from portal.signals import notify_settings_changed
from portal.tenants.models import Tenant

MAX_STORM_EMAILS = 1000
MAX_STORM_MINUTES = 60


class Audience(StrEnum):
    """Who gets the emails about a user."""

    BOTH = "both"
    RECIPIENTS = "recipients"
    USER = "user"


@dataclass(frozen=True, slots=True)
class EventSetting:
    """Whether an event type is emailed for a tenant, to whom, and with which template. The defaults are a new tenant's.

    `template_id` is the version in use of the tenant's own template; None means the default.
    """

    enabled: bool = False
    audience: Audience = Audience.BOTH
    template_id: UUID | None = None


def settings_by_type(event_types: Iterable[str]) -> Mapping[str, EventSetting]:
    """Return the settings of these event types for the tenant in scope."""
    event_types = list(event_types)
    rows = db.session.scalars(select(NotificationSetting).where(NotificationSetting.event_type.in_(event_types)))
    saved = {row.event_type: EventSetting(row.enabled, Audience(row.audience), row.template_id) for row in rows}
    return {event_type: saved.get(event_type, EventSetting()) for event_type in event_types}


def set_enabled(tenant: Tenant, event_types: Iterable[str], *, on: bool) -> None:
    """Turn the emails about these event types on or off."""
    notify_settings_changed(tenant.id)
    _update(tenant, event_types, enabled=on)


def set_audience(tenant: Tenant, event_type: str, audience: Audience) -> None:
    """Set who gets the emails about an event type that is about a user."""
    _update(tenant, [event_type], audience=audience)


def _update(tenant: Tenant, event_types: Iterable[str], **values: object) -> None:
    for event_type in event_types:
        row = lock_setting(tenant, event_type)
        for name, value in values.items():
            setattr(row, name, value)
    db.session.commit()


def lock_setting(tenant: Tenant, event_type: str) -> NotificationSetting:
    """Return the row of a setting, locked until the next commit. If there is none, insert one with the defaults."""
    defaults = {"tenant_id": tenant.id, "event_type": event_type, "enabled": False, "audience": Audience.BOTH}
    db.session.execute(insert(NotificationSetting).values(defaults).on_conflict_do_nothing())
    row = select(NotificationSetting).where(NotificationSetting.event_type == event_type).with_for_update()
    return db.session.scalars(row.execution_options(populate_existing=True)).one()


def save_storm_limits(tenant: Tenant, limit: int, minutes: int) -> None:
    """Hold further emails about one queue after `limit` in `minutes` minutes. A current storm keeps its end time."""
    tenant.storm_limit, tenant.storm_minutes = limit, minutes
    db.session.commit()
