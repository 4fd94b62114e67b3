"""Notification settings of each event type."""

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.notifications import settings
from portal.notifications.settings import Audience, EventSetting
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant


@pytest.fixture
def tenants(context: Flask) -> tuple[Tenant, Tenant]:
    acme, globex = (tenant_service.add(name, f"{name}.example", "UTC") for name in ("acme", "globex"))
    assert isinstance(acme, Tenant)
    assert isinstance(globex, Tenant)
    enter_scope(acme.id)
    return acme, globex


def test_all_event_types_are_off_at_first(tenants: tuple[Tenant, Tenant]) -> None:
    assert settings.settings_by_type(EVENT_TYPES) == dict.fromkeys(
        EVENT_TYPES, EventSetting(enabled=False, audience=Audience.BOTH)
    )


def test_an_event_type_is_turned_on_and_off(tenants: tuple[Tenant, Tenant]) -> None:
    acme, _ = tenants
    settings.set_enabled(acme, ["queue.call_lost"], on=True)
    on = [event_type for event_type, switch in settings.settings_by_type(EVENT_TYPES).items() if switch.enabled]
    assert on == ["queue.call_lost"]
    settings.set_enabled(acme, ["queue.call_lost"], on=False)
    assert not settings.settings_by_type(EVENT_TYPES)["queue.call_lost"].enabled


def test_the_audience_is_kept_when_turned_off(tenants: tuple[Tenant, Tenant]) -> None:
    acme, _ = tenants
    settings.set_audience(acme, "user.created", Audience.USER)
    assert settings.settings_by_type(EVENT_TYPES)["user.created"] == EventSetting(enabled=False, audience=Audience.USER)
    settings.set_enabled(acme, EVENT_TYPES, on=True)
    assert settings.settings_by_type(EVENT_TYPES)["user.created"] == EventSetting(enabled=True, audience=Audience.USER)


def test_settings_belong_to_one_tenant(tenants: tuple[Tenant, Tenant]) -> None:
    acme, globex = tenants
    settings.set_enabled(acme, EVENT_TYPES, on=True)
    enter_scope(globex.id)
    assert settings.settings_by_type(EVENT_TYPES)["queue.call_lost"] == EventSetting()
