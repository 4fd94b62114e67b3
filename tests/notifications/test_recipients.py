"""Reading and keeping the "Emails of Recipients"."""

import pytest
from flask import Flask

from portal.database import enter_scope
from portal.errors import Refusal
from portal.notifications import recipients
from portal.tenants import directory
from portal.tenants.models import Tenant


@pytest.mark.parametrize(
    "text",
    [
        "a@x.example;b@x.example",
        "a@x.example, b@x.example",
        "a@x.example\r\nb@x.example",
        " a@x.example ;;,\n b@x.example;",
    ],
)
def test_the_separators(text: str) -> None:
    assert recipients.parse(text) == ["a@x.example", "b@x.example"]


def test_each_address_once_and_in_order() -> None:
    assert recipients.parse("b@x.example; a@x.example; B@X.example") == ["b@x.example", "a@x.example"]


def test_other_letters_in_a_domain() -> None:
    assert recipients.parse("a@bücher.example") == ["a@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "bad",
    [
        "nobody",
        "a@b@c.example",
        "@x.example",
        "a b@x.example",
        "Ann <a@x.example>",
        "a@x.example\x00",
        "a@" + "x" * 300,
    ],
)
def test_one_bad_address_is_named_and_nothing_is_taken(bad: str) -> None:
    refused = recipients.parse(f"good@x.example; {bad}")
    assert isinstance(refused, Refusal)
    assert refused.field == "recipients"
    assert bad[:20].strip("\x00") in refused.text


@pytest.mark.parametrize("text", ["", " ; , \n"])
def test_at_least_one(text: str) -> None:
    assert recipients.parse(text) == Refusal("recipients", "Enter at least one e-mail address.")


def test_at_most_50() -> None:
    many = [f"a{number}@x.example" for number in range(51)]
    assert recipients.parse(";".join(many[:50])) == many[:50]
    refused = recipients.parse(";".join(many))
    assert refused == Refusal("recipients", "Enter at most 50 e-mail addresses; these are 51.")


def test_each_tenant_has_its_own(context: Flask) -> None:
    acme, globex = (directory.add(name, f"{name}.example", "UTC") for name in ("acme", "globex"))
    assert isinstance(acme, Tenant)
    assert isinstance(globex, Tenant)
    for tenant in (acme, globex):
        enter_scope(tenant.id)
        recipients.replace(tenant, [f"one@{tenant.domain}", f"two@{tenant.domain}"])
    enter_scope(acme.id)
    recipients.replace(acme, ["two@acme.example", "three@acme.example"])
    assert recipients.addresses() == ["two@acme.example", "three@acme.example"]
    enter_scope(globex.id)
    assert recipients.addresses() == ["one@globex.example", "two@globex.example"]
