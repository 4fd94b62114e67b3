"""Finding, adding, editing and suspending tenants."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web import pagination


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


def test_a_search_finds_parts_of_names_and_domains_literally(acme: Tenant) -> None:
    tenant_service.add("100% Fun_Park", "park.example", "UTC")

    def found(text: str) -> list[str]:
        return [tenant.domain for tenant in tenant_service.search(text).rows]

    assert found("") == ["acme.example", "park.example"]
    assert found("CME.ex") == found("aCm") == ["acme.example"]
    assert found("%") == found("fun_p") == ["park.example"]
    assert found("\\") == found("_x") == []
    assert found("A") == ["acme.example", "park.example"]
    assert found("ac") == found("c") == ["acme.example"]
    tenant_service.edit(acme, "abcbcd", "acme.example", "UTC")
    assert found("cbc") == ["acme.example"]
    assert found("abcd") == []  # although every three letters of it are in the name


def test_pagination(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 2)
    for letter in "cab":
        tenant_service.add(letter, f"{letter}.example", "UTC")
    first = tenant_service.search()
    assert ([tenant.name for tenant in first.rows], first.next_key) == (["a", "b"], "b.example")
    second = tenant_service.search(after="b.example")
    assert ([tenant.name for tenant in second.rows], second.next_key) == (["c"], None)


def test_suspending_again_keeps_the_first_time(acme: Tenant) -> None:
    tenant_service.suspend(acme)
    since = acme.suspended_at
    tenant_service.suspend(acme)
    assert acme.is_suspended
    assert acme.suspended_at == since
    tenant_service.resume(acme)
    assert not acme.is_suspended
