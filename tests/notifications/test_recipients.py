"""Reading and keeping the "Emails of Recipients", and what each of them gets."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from flask import Flask

from portal.database import enter_scope
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.kinds import KINDS
from portal.notifications.models import Recipient
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.audit.test_entries import told

LOST = "queue.call_lost"


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


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, with two recipients, in whose scope the session is."""
    tenant = directory.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
    return tenant


def listed() -> Sequence[Recipient]:
    db.session.expire_all()
    return recipients.listed()


def all_but(*event_types: str) -> list[str]:
    return [each for each in KINDS if each not in event_types]


def test_who_gets_which_event(tenant: Tenant) -> None:
    ops, _ = listed()
    recipients.choose_events(tenant, ops, all_but(LOST))
    assert recipients.wanting(LOST) == ["night@acme.example"]
    assert recipients.wanting("user.created") == ["ops@acme.example", "night@acme.example"]
    recipients.choose_events(tenant, ops, all_but())
    assert recipients.wanting(LOST) == ["ops@acme.example", "night@acme.example"]


def test_a_kind_that_comes_later_is_on(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    ops, _ = listed()
    recipients.choose_events(tenant, ops, [])
    assert "ops@acme.example" not in recipients.wanting(LOST)
    assert "ops@acme.example" in recipients.wanting("queue.later")


def test_replacing_the_list_keeps_what_those_get_that_remain(tenant: Tenant) -> None:
    ops, night = listed()
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.pause(tenant, night, date(2999, 1, 1))
    recipients.replace(tenant, ["OPS@acme.example", "new@acme.example"])
    ops, new = listed()
    assert (ops.address, ops.excluded_events) == ("OPS@acme.example", [LOST])
    assert (new.address, new.excluded_events, new.paused_until) == ("new@acme.example", [], None)
    recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
    assert not listed()[1].is_paused


def test_a_pause_ends_when_its_day_begins_at_the_tenants(tenant: Tenant) -> None:
    ops, _ = listed()
    recipients.pause(tenant, ops, date(2999, 7, 5))
    assert listed()[0].paused_until == datetime(2999, 7, 4, 22, tzinfo=UTC)  # Berlin, in summer
    assert recipients.wanting(LOST) == ["night@acme.example"]
    recipients.resume(tenant, ops)
    assert recipients.wanting(LOST) == ["ops@acme.example", "night@acme.example"]
    ops.paused_until = datetime.now(UTC) - timedelta(seconds=1)
    db.session.commit()
    assert len(recipients.wanting(LOST)) == 2


def test_adding_and_removing_one(tenant: Tenant) -> None:
    assert recipients.add(tenant, "new@acme.example") is None
    assert recipients.addresses() == ["ops@acme.example", "night@acme.example", "new@acme.example"]
    refused = recipients.add(tenant, "NEW@acme.example")
    assert refused
    assert "already" in refused.text
    for each in listed()[:2]:
        assert recipients.remove(tenant, each) is None
    refused = recipients.remove(tenant, listed()[0])
    assert refused
    assert recipients.addresses() == ["new@acme.example"]


def test_there_is_no_51st(tenant: Tenant) -> None:
    recipients.replace(tenant, [f"a{number}@x.example" for number in range(50)])
    refused = recipients.add(tenant, "b@x.example")
    assert refused
    assert "50" in refused.text
    assert len(recipients.addresses()) == 50


def test_each_change_is_told(tenant: Tenant) -> None:
    before, (ops, _) = len(told()), listed()
    recipients.add(tenant, "new@acme.example")
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.pause(tenant, ops, date(2999, 1, 1))
    recipients.resume(tenant, ops)
    recipients.resume(tenant, ops)
    recipients.remove(tenant, ops)
    two, three = ["night@acme.example", "ops@acme.example"], ["new@acme.example"]
    assert told(before) == [
        ("recipients.changed", "", {"recipients": [two, sorted(two + three)]}),
        ("recipient.events_chosen", "ops@acme.example", {"events": [all_but(), all_but(LOST)]}),
        ("recipient.paused", "ops@acme.example", {"until": [None, "2999-01-01"]}),
        ("recipient.resumed", "ops@acme.example", {}),
        ("recipients.changed", "", {"recipients": [sorted(two + three), sorted([two[0], *three])]}),
    ]
