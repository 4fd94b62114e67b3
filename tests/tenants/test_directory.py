"""Finding, adding, editing and suspending tenants."""

import pytest
from flask import Flask

from portal.errors import Refusal
from portal.tenants import directory
from portal.tenants.models import Tenant


@pytest.fixture
def acme(context: Flask) -> Tenant:
    tenant = directory.add("Acme", "acme.example", "Europe/Berlin")
    assert isinstance(tenant, Tenant)
    return tenant


def test_a_tenant_is_found_by_its_domain_in_any_case(acme: Tenant) -> None:
    assert directory.find("ACME.example") is acme
    assert directory.find("acme") is None


def test_a_domain_belongs_to_one_tenant(acme: Tenant) -> None:
    refused = Refusal("domain", "Another tenant has this domain already.")
    assert directory.add("Other", "acme.example", "UTC") == refused
    other = directory.add("Other", "other.example", "UTC")
    assert isinstance(other, Tenant)
    assert directory.edit(other, "Changed", "acme.example", "UTC") == refused
    assert (other.name, other.domain) == ("Other", "other.example")


def test_a_search_looks_into_names_and_domains_and_takes_signs_as_they_are(acme: Tenant) -> None:
    directory.add("100% Fun_Park", "park.example", "UTC")

    def found(text: str) -> list[str]:
        return [tenant.domain for tenant in directory.search(text)[0]]

    assert found("") == ["acme.example", "park.example"]
    assert found("CME.ex") == found("aCm") == ["acme.example"]
    assert found("%") == found("fun_p") == ["park.example"]
    assert found("\\") == found("_x") == []
    assert found("A") == ["acme.example", "park.example"]
    assert found("ac") == found("c") == ["acme.example"]
    directory.edit(acme, "abcbcd", "acme.example", "UTC")
    assert found("cbc") == ["acme.example"]
    assert found("abcd") == []  # though each three of its letters are in the name


def test_pages_follow_each_other(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PAGE", 2)
    for letter in "cab":
        directory.add(letter, f"{letter}.example", "UTC")
    first, more = directory.search()
    assert ([tenant.name for tenant in first], more) == (["a", "b"], True)
    second, more = directory.search(after=first[-1].domain)
    assert ([tenant.name for tenant in second], more) == (["c"], False)


def test_suspending_keeps_its_first_time(acme: Tenant) -> None:
    directory.suspend(acme)
    since = acme.suspended_at
    directory.suspend(acme)
    assert acme.is_suspended
    assert acme.suspended_at == since
    directory.resume(acme)
    assert acme.status == "active"
