"""The registry: every rule here holds for each kind in it."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from portal.notifications import events, kinds
from portal.notifications.digest import EVERY_KIND
from portal.notifications.fields import EventData, Number
from portal.notifications.kinds import KINDS, EventKind
from portal.notifications.placeholders import Context, Feeds, feeds, plain, to_copy, values
from portal.notifications.rendering import qr_code, render, sample_words
from portal.notifications.templates import Look, unknown_placeholders

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
ACME = Context("Acme", "acme.example", "Europe/Berlin", pbx_web_domain="pbx.example")
QR_CODE = qr_code("cid:qr", "https://portal.example/provision/token")
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=str)

QUEUE = "queue_number* queue_name caller_number* caller_name call_id "
FIELDS = {
    "user.created": (
        "extension_number* extension_password user_name user_password display_name email voicemail_pin sip_domain "
        "login_ip private_ip udp_port tcp_port tls_port transport"
    ),
    "queue.sla_breached": QUEUE + "sla_seconds* waited_seconds callers_waiting callers_breached",
    "queue.callback_completed": QUEUE + "callback_number* requested_at agent_extension attempts",
    "queue.callback_failed": QUEUE + "callback_number* requested_at attempt max_attempts reason sip_status",
    "queue.call_lost": QUEUE + "waited_seconds position reason",
}
PLACEHOLDERS = (
    "DISPLAY_NAME USER_NAME USER_PASSWORD EXTENSION_NUMBER EXTENSION_PASSWORD VOICEMAIL_PIN DOMAIN SIP_PUBLIC_IP "
    "SIP_PRIVATE_IP UDP_PORT TCP_PORT TLS_PORT QR_CODE TENANT_NAME CALLER_NAME CALLER_NUMBER QUEUE_NAME QUEUE_NUMBER "
    "DATE_TIME SLA_TIME BREACHSLANO WAITSESSIONNO CALL_BACK_NUMBER PBX_WEB_DOMAIN WAITED_TIME REASON POSITION ATTEMPT"
)


def _sample(kind: EventKind, **changes: Any) -> EventData:
    return kind.fields.model_validate({**kind.sample, **changes})


def _least(kind: EventKind) -> EventData:
    required = {name for name, field in kind.fields.model_fields.items() if field.is_required()}
    return kind.fields.model_validate({name: kind.sample[name] for name in required})


def test_the_fields_are_those_of_the_domain() -> None:
    found = {
        kind.type: " ".join(name + "*" * field.is_required() for name, field in kind.fields.model_fields.items())
        for kind in KINDS.values()
    }
    assert found == FIELDS


def test_the_placeholders_are_those_of_the_domain() -> None:
    assert {name for kind in KINDS.values() for name in kind.placeholders} == set(PLACEHOLDERS.split())


@every_kind
def test_it_stands_under_its_type_and_is_described(kind: EventKind) -> None:
    assert KINDS[kind.type] is kind
    assert kind.label
    assert kind.help.endswith(".")


def test_alerts_expire_after_a_day_and_a_welcome_after_three() -> None:
    assert {kind.expiry for kind in KINDS.values() if kind.look is not Look.WELCOME} == {timedelta(hours=24)}
    assert KINDS["user.created"].expiry == timedelta(hours=72)


@every_kind
def test_its_sample_has_every_field_and_is_what_a_pbx_may_send(kind: EventKind) -> None:
    assert set(kind.sample) == set(kind.fields.model_fields)
    body = json.dumps({"type": kind.type, "data": kind.sample}).encode()
    event = events.parse(body, NOW)
    assert isinstance(event, events.Event), event
    assert event.data == _sample(kind)


@pytest.mark.parametrize("kind", EVERY_KIND.values(), ids=str)
def test_its_sample_reads_the_same_on_any_day(kind: EventKind) -> None:
    later = NOW + timedelta(days=400)
    today, then = (values(kind.sample_data(day), day, ACME) for day in (NOW, later))
    assert {name for name in today if today[name] != then[name]} <= {"DATE_TIME"}


@every_kind
def test_its_mail_names_no_unknown_placeholder(kind: EventKind) -> None:
    assert unknown_placeholders(kind.subject, kind.body + kind.why, kind.placeholders) == []


@every_kind
def test_its_mail_reads_well_with_nothing_but_the_required_fields(kind: EventKind) -> None:
    words = render(kind, _least(kind), NOW, ACME)
    for text in (words.subject, words.text, words.html):
        assert "%%" not in text
        assert "()" not in text
        assert "None" not in text
    body, _, _ = words.text.partition("\n-- \n")
    assert not re.search(r"(:|-) *$|  |\n\n\n|\S \.|\*\*|\x02|\x03", body, re.MULTILINE), body
    assert not re.search(r":\s*$|: :|  ", words.subject), words.subject


@every_kind
def test_every_value_that_its_mail_uses_is_shown_in_both_forms(kind: EventKind) -> None:
    used = {name for name in kind.placeholders if f"%%{name}%%" in kind.body}
    for name, mark in feeds(kind.fields).items():
        if mark.placeholder in used and isinstance(kind.sample[name], str) and mark.words in (plain, to_copy):
            words = sample_words(kind, NOW, ACME, QR_CODE)
            assert str(kind.sample[name]) in words.text
            assert str(kind.sample[name]) in words.html


def test_secrets_are_marked() -> None:
    secret = {kind.type: kind.fields.secret_names() for kind in KINDS.values() if kind.fields.secret_names()}
    assert secret == {"user.created": {"extension_password", "user_password", "voicemail_pin"}}


@every_kind
def test_secrets_stay_out_of_what_is_kept_and_printed(kind: EventKind) -> None:
    data = _sample(kind)
    assert kind.fields.model_validate(data.public() | data.secrets()) == data
    assert kind.fields.model_validate(data.public()).secrets() == {}
    kept, printed = json.dumps(data.public()), repr(data) + str(data) + repr(kind)
    for secret in data.secrets():
        assert f'"{kind.sample[secret]}"' not in kept
        assert f"'{kind.sample[secret]}'" not in printed


@every_kind
def test_its_queue_is_known_where_it_is_about_one(kind: EventKind) -> None:
    assert _sample(kind).queue == ("8000" if kind.type.startswith("queue.") else None)


def test_only_a_new_user_is_written_to() -> None:
    written_to = {kind.type: _sample(kind).addressee for kind in KINDS.values() if _sample(kind).addressee}
    assert written_to == {"user.created": "ana.kovac@acme.example"}
    assert _least(KINDS["user.created"]).addressee is None


class Voicemail(EventData):
    """Data of a sixth kind."""

    mailbox: Annotated[Number, Feeds("MAILBOX")]


def test_a_sixth_kind_needs_nothing_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sixth = replace(
        KINDS["queue.call_lost"],
        type="voicemail.left",
        fields=Voicemail,
        subject="Message in %%MAILBOX%%",
        body="Listen to **%%MAILBOX%%** at %%CALLER_NAME%%.",
        sample={"mailbox": "1001"},
    )
    for module in (kinds, events):
        monkeypatch.setattr(module, "KINDS", {**KINDS, sixth.type: sixth})
    event = events.parse(b'{"type": "voicemail.left", "data": {"mailbox": "1001", "other": 1}}', NOW)
    assert isinstance(event, events.Event)
    words = render(event.kind, event.data, event.time, ACME)
    assert words.subject == "Message in 1001"
    assert words.text.startswith("Listen to 1001 at .\n")
    assert "MAILBOX" in sixth.placeholders
    problem = events.parse(b'{"type": "voicemail.left", "data": {}}', NOW)
    assert isinstance(problem, events.Problem)
    assert [error.field for error in problem.errors] == ["data.mailbox"]
