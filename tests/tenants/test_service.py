"""Finding, adding, editing and suspending tenants."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant


@pytest.fixture
def acme(context: Flask) -> Tenant:
    tenant = tenant_service.add("Acme", "acme.example", "Europe/Berlin")
    assert isinstance(tenant, Tenant)
    return tenant


def test_a_tenant_is_found_by_its_domain_in_any_case(acme: Tenant) -> None:
    assert tenant_service.find("ACME.example") is acme
    assert tenant_service.find("acme") is None


def test_a_domain_belongs_to_one_tenant(acme: Tenant) -> None:
    refused = Refusal("domain", "Another tenant already has this domain.")
    assert tenant_service.add("Other", "acme.example", "UTC") == refused
    other = tenant_service.add("Other", "other.example", "UTC")
    assert isinstance(other, Tenant)
    assert tenant_service.edit(other, "Changed", "acme.example", "UTC") == refused
    assert (other.name, other.domain) == ("Other", "other.example")


def test_suspending_again_keeps_the_first_time(acme: Tenant) -> None:
    tenant_service.suspend(acme)
    since = acme.suspended_at
    tenant_service.suspend(acme)
    assert acme.is_suspended
    assert acme.suspended_at == since
    tenant_service.resume(acme)
    assert not acme.is_suspended
