"""Parsing and saving the "Emails of Recipients", and the events of each recipient."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.models import Recipient
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.audit.test_log import recorded

LOST = "queue.call_lost"


@pytest.mark.parametrize(
    "text",
    [
        "a@x.example;b@x.example",
        "a@x.example, b@x.example",
        "a@x.example\r\nb@x.example",
        " a@x.example ;;,\n b@x.example;",
        "a@x.example b@x.example",
        "Doe, Ann <a@x.example>；mailto:b@x.example",  # noqa: RUF001 (full-width, as an input method types it)
    ],
)
def test_the_separators(text: str) -> None:
    assert recipients.parse_emails(text) == ["a@x.example", "b@x.example"]


def test_duplicates_are_removed_and_the_order_is_kept() -> None:
    assert recipients.parse_emails("b@x.example; a@x.example; B@X.example") == ["b@x.example", "a@x.example"]


def test_internationalised_domains() -> None:
    assert recipients.parse_emails("a@bücher.example") == ["a@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "bad",
    [
        "nobody",
        "a@b@c.example",
        "@x.example",
        "a b@x.example",
        "a@x.example\x00",
        "a@" + "x" * 300,
    ],
)
def test_one_invalid_email_address_rejects_the_whole_list(bad: str) -> None:
    refused = recipients.parse_emails(f"good@x.example; {bad}")
    assert isinstance(refused, Refusal)
    assert refused.field == "recipients"
    assert bad[:20].strip("\x00") in refused.text


@pytest.mark.parametrize("text", ["", " ; , \n"])
def test_at_least_one_recipient_is_required(text: str) -> None:
    assert recipients.parse_emails(text) == Refusal("recipients", "Enter at least one email address.")


def test_at_most_50_recipients_are_parsed() -> None:
    many = [f"a{number}@x.example" for number in range(51)]
    assert recipients.parse_emails(";".join(many[:50])) == many[:50]
    refused = recipients.parse_emails(";".join(many))
    assert isinstance(recipients.parse_emails("a@x.example " * 80_000), Refusal)
    before = time.process_time()
    assert isinstance(recipients.parse_emails("a@x.example " * 8_000), Refusal)
    assert time.process_time() - before < 2
    assert refused == Refusal("recipients", "Enter at most 50 email addresses. You entered 51.")


@pytest.mark.parametrize("piece", [",a", ">", "a ", ",a@x.example", "a@x.example>"])
def test_a_long_text_of_too_many_is_refused_in_a_moment(piece: str) -> None:
    text = piece * (recipients.MAX_TEXT_LENGTH // len(piece))
    before = time.thread_time()
    refused = recipients.parse_emails(text)
    assert time.thread_time() - before < 0.5
    assert isinstance(refused, Refusal)


def test_both_addresses_of_a_link_are_taken() -> None:
    assert recipients.parse_emails("mailto:a@x.example?cc=b@x.example") == ["a@x.example", "b@x.example"]


def test_each_tenant_has_its_own_recipients(context: Flask) -> None:
    acme, globex = (tenant_service.add(name, f"{name}.example", "UTC") for name in ("acme", "globex"))
    assert isinstance(acme, Tenant)
    assert isinstance(globex, Tenant)
    for tenant in (acme, globex):
        enter_scope(tenant.id)
        recipients.replace(tenant, [f"one@{tenant.domain}", f"two@{tenant.domain}"])
    enter_scope(acme.id)
    recipients.replace(acme, ["two@acme.example", "three@acme.example"])
    assert recipients.list_emails() == ["two@acme.example", "three@acme.example"]
    enter_scope(globex.id)
    assert recipients.list_emails() == ["one@globex.example", "two@globex.example"]


def emails_for(event_type: str) -> Sequence[str]:
    """Return who gets an event of the tenant Acme now."""
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    return recipients.decide_about(tenant, event_type, [])[0].now


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, with two recipients, in whose scope the session is."""
    tenant = tenant_service.find(acme)
    assert tenant is not None
    enter_scope(tenant.id)
    recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
    return tenant


def listed() -> Sequence[Recipient]:
    db.session.expire_all()
    return recipients.list_recipients()


def all_but(*event_types: str) -> list[str]:
    return [each for each in EVENT_TYPES if each not in event_types]


def test_recipients_get_their_chosen_events(tenant: Tenant) -> None:
    ops, _ = listed()
    recipients.choose_events(tenant, ops, all_but(LOST))
    assert emails_for(LOST) == ["night@acme.example"]
    assert emails_for("user.created") == ["ops@acme.example", "night@acme.example"]
    recipients.choose_events(tenant, ops, all_but())
    assert emails_for(LOST) == ["ops@acme.example", "night@acme.example"]


def test_recipients_get_new_event_types(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    ops, _ = listed()
    recipients.choose_events(tenant, ops, [])
    assert "ops@acme.example" not in emails_for(LOST)
    assert "ops@acme.example" in emails_for("queue.later")


def test_replacing_the_list_keeps_the_events_of_remaining_recipients(tenant: Tenant) -> None:
    ops, night = listed()
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.pause(tenant, night, date(2999, 1, 1))
    recipients.replace(tenant, ["OPS@acme.example", "new@acme.example"])
    ops, new = listed()
    assert (ops.email, ops.excluded_event_types) == ("OPS@acme.example", [LOST])
    assert (new.email, new.excluded_event_types, new.paused_until) == ("new@acme.example", [], None)
    recipients.replace(tenant, ["ops@acme.example", "night@acme.example"])
    assert not listed()[1].is_paused


def test_a_pause_ends_when_its_day_begins_in_the_tenants_time_zone(tenant: Tenant) -> None:
    ops, _ = listed()
    recipients.pause(tenant, ops, date(2999, 7, 5))
    assert listed()[0].paused_until == datetime(2999, 7, 4, 22, tzinfo=UTC)  # Berlin, in summer
    assert emails_for(LOST) == ["night@acme.example"]
    recipients.resume(tenant, ops)
    assert emails_for(LOST) == ["ops@acme.example", "night@acme.example"]
    ops.paused_until = datetime.now(UTC) - timedelta(seconds=1)
    db.session.commit()
    assert len(emails_for(LOST)) == 2


def test_adding_and_removing_recipients(tenant: Tenant) -> None:
    assert recipients.add(tenant, ["new@acme.example"]) is None
    assert recipients.list_emails() == ["ops@acme.example", "night@acme.example", "new@acme.example"]
    refused = recipients.add(tenant, ["NEW@acme.example"])
    assert refused
    assert "already" in refused.text
    for each in listed()[:2]:
        assert recipients.remove(tenant, each) is None
    refused = recipients.remove(tenant, listed()[0])
    assert refused
    assert recipients.list_emails() == ["new@acme.example"]


def test_a_51st_recipient_is_rejected(tenant: Tenant) -> None:
    recipients.replace(tenant, [f"a{number}@x.example" for number in range(50)])
    refused = recipients.add(tenant, ["b@x.example"])
    assert refused
    assert "50" in refused.text
    assert len(recipients.list_emails()) == 50


def test_changes_of_recipients_are_audited(tenant: Tenant) -> None:
    before, (ops, _) = len(recorded()), listed()
    recipients.add(tenant, ["new@acme.example"])
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.choose_events(tenant, ops, all_but(LOST))
    recipients.pause(tenant, ops, date(2999, 1, 1))
    recipients.resume(tenant, ops)
    recipients.resume(tenant, ops)
    recipients.remove(tenant, ops)
    two, three = ["night@acme.example", "ops@acme.example"], ["new@acme.example"]
    assert recorded(before) == [
        ("recipients.changed", "", {"recipients": [two, sorted(two + three)]}),
        ("recipient.events_chosen", "ops@acme.example", {"events": [all_but(), all_but(LOST)]}),
        ("recipient.paused", "ops@acme.example", {"until": [None, "2999-01-01"]}),
        ("recipient.resumed", "ops@acme.example", {}),
        ("recipients.changed", "", {"recipients": [sorted(two + three), sorted([two[0], *three])]}),
    ]
