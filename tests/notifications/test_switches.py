"""Which events send mail."""

import pytest
from flask import Flask

from portal.database import enter_scope
from portal.notifications import switches
from portal.notifications.kinds import KINDS
from portal.notifications.switches import Audience, Switch
from portal.tenants import directory
from portal.tenants.models import Tenant


@pytest.fixture
def tenants(context: Flask) -> tuple[Tenant, Tenant]:
    acme, globex = (directory.add(name, f"{name}.example", "UTC") for name in ("acme", "globex"))
    assert isinstance(acme, Tenant)
    assert isinstance(globex, Tenant)
    enter_scope(acme.id)
    return acme, globex


def test_all_are_off_at_first(tenants: tuple[Tenant, Tenant]) -> None:
    assert switches.switches(KINDS) == dict.fromkeys(KINDS, Switch(enabled=False, audience=Audience.BOTH))


def test_one_is_turned_on_and_off(tenants: tuple[Tenant, Tenant]) -> None:
    acme, _ = tenants
    switches.turn(acme, ["queue.call_lost"], on=True)
    on = [event_type for event_type, switch in switches.switches(KINDS).items() if switch.enabled]
    assert on == ["queue.call_lost"]
    switches.turn(acme, ["queue.call_lost"], on=False)
    assert not switches.switch("queue.call_lost").enabled


def test_the_audience_outlives_the_switch(tenants: tuple[Tenant, Tenant]) -> None:
    acme, _ = tenants
    switches.choose_audience(acme, "user.created", Audience.USER)
    assert switches.switch("user.created") == Switch(enabled=False, audience=Audience.USER)
    switches.turn(acme, KINDS, on=True)
    assert switches.switch("user.created") == Switch(enabled=True, audience=Audience.USER)


def test_another_tenant_does_not_notice(tenants: tuple[Tenant, Tenant]) -> None:
    acme, globex = tenants
    switches.turn(acme, KINDS, on=True)
    enter_scope(globex.id)
    assert switches.switch("queue.call_lost") == Switch()
