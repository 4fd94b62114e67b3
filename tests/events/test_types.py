"""The registry of event types: rules that hold for each of them."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from portal.events import parsing, types
from portal.events.event_type import EmailStyle, EventData, EventType
from portal.events.fields import PhoneNumber
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.events.types import EVENT_TYPES
from portal.events.values import Placeholder, format_copyable, format_text, placeholders_by_field
from portal.mail_templates.compiler import qr_code_value, render_message, unknown_placeholders
from portal.mail_templates.placeholders import MailContext, placeholder_values
from tests.required_fields import described_as_required, needed, sample_of

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
ACME = MailContext("Acme", "acme.example", "Europe/Berlin", pbx_web_domain="pbx.example")
QR_CODE = qr_code_value("cid:qr", "https://portal.example/provision/token")
every_event_type = pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=str)

QUEUE = "queue_number* queue_name caller_number* caller_name call_id "
FIELDS = {
    "user.created": (
        "extension_number* extension_password user_name user_password display_name email language voicemail_pin "
        "sip_domain realm login_ip private_ip udp_port tcp_port tls_port transport"
    ),
    "queue.sla_breached": QUEUE + "sla_seconds* waited_seconds callers_waiting callers_breached",
    "queue.callback_completed": QUEUE + "callback_number* requested_at agent_extension attempts",
    "queue.callback_failed": QUEUE + "callback_number* requested_at attempt max_attempts reason sip_status",
    "queue.call_lost": QUEUE + "waited_seconds position reason",
}
PLACEHOLDERS = (
    "DISPLAY_NAME USER_NAME USER_PASSWORD EXTENSION_NUMBER EXTENSION_PASSWORD VOICEMAIL_PIN DOMAIN SIP_PUBLIC_IP "
    "SIP_PRIVATE_IP UDP_PORT TCP_PORT TLS_PORT QR_CODE TENANT_NAME CALLER_NAME CALLER_NUMBER QUEUE_NAME QUEUE_NUMBER "
    "DATE_TIME SLA_TIME BREACHSLANO WAITSESSIONNO CALL_BACK_NUMBER PBX_WEB_DOMAIN WAITED_TIME REASON POSITION ATTEMPT "
    "EVENT_URL REPLY_TO"
)


def _sample(event_type: EventType, **changes: Any) -> EventData:
    return event_type.fields.model_validate({**event_type.sample, **changes})


def _with_only(event_type: EventType, names: set[str]) -> EventData:
    return event_type.fields.model_validate(sample_of(event_type, names))


def test_event_types_have_exactly_these_fields() -> None:
    found = {
        event_type.type: " ".join(
            name + "*" * (name in described_as_required(event_type)) for name in event_type.fields.model_fields
        )
        for event_type in EVENT_TYPES.values()
    }
    assert found == FIELDS


def test_the_labels_are_portsips_names() -> None:
    assert {name: event_type.label for name, event_type in EVENT_TYPES.items()} == {
        "user.created": "A new user was created",
        "queue.sla_breached": "When queue SLA time has been breached",
        "queue.callback_completed": "When a queue callback has been made",
        "queue.callback_failed": "When the queue callback is unsuccessful",
        "queue.call_lost": "When a queue call is lost",
    }


def test_event_types_fill_in_exactly_these_placeholders() -> None:
    assert {name for event_type in EVENT_TYPES.values() for name in event_type.placeholders} == set(
        PLACEHOLDERS.split()
    )


@every_event_type
def test_it_is_registered_under_its_type_with_label_and_help(event_type: EventType) -> None:
    assert EVENT_TYPES[event_type.type] is event_type
    assert event_type.label
    assert event_type.help.endswith(".")


def test_alerts_expire_after_one_day_and_welcome_emails_after_three() -> None:
    assert {event_type.expiry for event_type in EVENT_TYPES.values() if event_type.style is not EmailStyle.WELCOME} == {
        timedelta(hours=24)
    }
    assert EVENT_TYPES["user.created"].expiry == timedelta(hours=72)


@every_event_type
def test_its_sample_has_every_field_and_is_valid(event_type: EventType) -> None:
    assert set(event_type.sample) == set(event_type.fields.model_fields)
    body = json.dumps({"type": event_type.type, "data": event_type.sample}).encode()
    event = parsing.parse_event(body, NOW)
    assert isinstance(event, parsing.Event), event
    assert event.data == _sample(event_type)


@pytest.mark.parametrize("event_type", ALL_EVENT_TYPES.values(), ids=str)
def test_its_sample_does_not_depend_on_the_day(event_type: EventType) -> None:
    later = NOW + timedelta(weeks=58)
    today, then = (placeholder_values(event_type.sample_data(day), day, ACME) for day in (NOW, later))
    assert {name for name in today if today[name] != then[name]} <= {"DATE_TIME"}


@every_event_type
def test_its_email_has_no_unknown_placeholder(event_type: EventType) -> None:
    assert (
        unknown_placeholders(event_type.subject, event_type.body + event_type.footnote, event_type.placeholders) == []
    )


def test_only_these_fields_are_needed() -> None:
    found = {event_type.type: needed(event_type) for event_type in EVENT_TYPES.values()}
    assert found == {name: {"extension_number" if name == "user.created" else "queue_number"} for name in EVENT_TYPES}


@pytest.mark.parametrize("fields", [described_as_required, needed])
@every_event_type
def test_its_email_is_well_formed_with_only_the_required_fields(
    event_type: EventType, fields: Callable[[EventType], set[str]]
) -> None:
    words = render_message(event_type, _with_only(event_type, fields(event_type)), NOW, ACME)
    for text in (words.subject, words.text, words.html):
        assert "%%" not in text
        assert "()" not in text
        assert "None" not in text
    body, _, _ = words.text.partition("\n-- \n")
    assert not re.search(r"(:|-) *$|  |\n\n\n|\S \.|\*\*|\x02|\x03", body, re.MULTILINE), body
    assert not re.search(r":\s*$|: :|  ", words.subject), words.subject


def test_the_email_about_a_long_wait_reads_well_without_the_threshold() -> None:
    event_type = EVENT_TYPES["queue.sla_breached"]
    words = render_message(event_type, _with_only(event_type, {"queue_number"}), NOW, ACME)
    assert words.subject == "Long wait in queue 8000: more than the time allowed"
    assert "anonymous has waited longer than the time allowed, the queue's SLA threshold." in words.text


@every_event_type
def test_every_value_in_its_email_is_in_text_and_html(event_type: EventType) -> None:
    used = {name for name in event_type.placeholders if f"%%{name}%%" in event_type.body}
    for name, mark in placeholders_by_field(event_type.fields).items():
        if (
            mark.name in used
            and isinstance(event_type.sample[name], str)
            and mark.format in (format_text, format_copyable)
        ):
            words = render_message(event_type, event_type.sample_data(NOW), NOW, ACME, QR_CODE)
            assert str(event_type.sample[name]) in words.text
            assert str(event_type.sample[name]) in words.html


def test_secret_fields() -> None:
    secret = {
        event_type.type: event_type.fields.secret_names()
        for event_type in EVENT_TYPES.values()
        if event_type.fields.secret_names()
    }
    assert secret == {"user.created": {"extension_password", "user_password", "voicemail_pin"}}


@every_event_type
def test_secrets_are_neither_in_public_fields_nor_printed(event_type: EventType) -> None:
    data = _sample(event_type)
    assert event_type.fields.model_validate(data.public_fields() | data.secret_fields()) == data
    assert event_type.fields.model_validate(data.public_fields()).secret_fields() == {}
    kept, printed = json.dumps(data.public_fields()), repr(data) + str(data) + repr(event_type)
    for secret in data.secret_fields():
        assert f'"{event_type.sample[secret]}"' not in kept
        assert f"'{event_type.sample[secret]}'" not in printed


@every_event_type
def test_queue_events_have_a_queue(event_type: EventType) -> None:
    assert _sample(event_type).queue == ("8000" if event_type.type.startswith("queue.") else None)


def test_only_a_new_user_has_an_email_address() -> None:
    written_to = {
        event_type.type: _sample(event_type).user_email
        for event_type in EVENT_TYPES.values()
        if _sample(event_type).user_email
    }
    assert written_to == {"user.created": "ana.kovac@acme.example"}
    assert _with_only(EVENT_TYPES["user.created"], {"extension_number"}).user_email is None


class Voicemail(EventData):
    """Data of a sixth event_type."""

    mailbox: Annotated[PhoneNumber, Placeholder("MAILBOX")]


def test_a_sixth_event_type_needs_only_its_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    sixth = replace(
        EVENT_TYPES["queue.call_lost"],
        type="voicemail.left",
        fields=Voicemail,
        subject="Message in %%MAILBOX%%",
        body="Listen to **%%MAILBOX%%** at %%CALLER_NAME%%.",
        sample={"mailbox": "1001"},
    )
    for module in (types, parsing):
        monkeypatch.setattr(module, "EVENT_TYPES", {**EVENT_TYPES, sixth.type: sixth})
    event = parsing.parse_event(b'{"type": "voicemail.left", "data": {"mailbox": "1001", "other": 1}}', NOW)
    assert isinstance(event, parsing.Event)
    words = render_message(event.event_type, event.data, event.time, ACME)
    assert words.subject == "Message in 1001"
    assert words.text.startswith("Listen to 1001 at .\n")
    assert "MAILBOX" in sixth.placeholders
    problem = parsing.parse_event(b'{"type": "voicemail.left", "data": {}}', NOW)
    assert isinstance(problem, parsing.Problem)
    assert [error.field for error in problem.errors] == ["data.mailbox"]
