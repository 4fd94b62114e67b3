"""What a PBX may post, and what it is told when it may not."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.notifications.events import Event, Problem, ProblemKind, parse
from portal.notifications.kinds import KINDS, CallbackCompleted, CallLost, SlaBreached, UserCreated

NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
LOST = {"queue_number": "8000", "caller_number": "+442079460123"}
CALLBACK = {**LOST, "callback_number": "+442079460123"}
UNDERSTOOD = [
    "2026-11-23T09:00:00Z",
    "2026-11-23t09:00:00z",
    "2026-11-23T10:00:00+01:00",
    "2026-11-23T09:00:00.000000000Z",
    1795424400,
    1795424400.0,
    "1795424400",
]
NO_TIMES = [
    *("2026-11-23", "2026-11-23T09:00:00", "2026-13-01T00:00:00Z", "now", True, [], {}, "1e9", "٣", "-1"),
    *(
        10**12,
        10**15,
        10**17,
        2**63,
        2**70,
        1e300,
        -(10**17),
    ),  # beyond years, a C library, numbers
]


def _body(data: object = LOST, **attributes: Any) -> bytes:
    return json.dumps({"type": "queue.call_lost", "data": data, **attributes}).encode()


def _event(data: object = LOST, **attributes: Any) -> Event:
    event = parse(_body(data, **attributes), NOW)
    assert isinstance(event, Event), event
    return event


def _errors(data: object = LOST, **attributes: Any) -> dict[str, str]:
    problem = parse(_body(data, **attributes), NOW)
    assert isinstance(problem, Problem), problem
    assert problem.kind is ProblemKind.INVALID
    return {error.field: error.message for error in problem.errors}


def test_a_whole_event() -> None:
    event = _event(
        LOST | {"waited_seconds": 90, "reason": "hangup"},
        specversion="1.0",
        id="7f0c",
        source="/pbx",
        time="2026-11-23T09:00:00Z",
        tenant="ACME.Example.",
        datacontenttype="application/json; charset=utf-8",
    )
    assert (event.id, event.tenant, event.kind) == ("7f0c", "acme.example", KINDS["queue.call_lost"])
    assert event.time == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert event.data == CallLost(**LOST, waited_seconds=90, reason="hangup")


def test_what_is_optional_may_be_missing() -> None:
    event = _event()
    assert (event.id, event.tenant, event.time) == (None, None, NOW)
    assert _event(id=None, tenant=None, time=None, specversion=None, datacontenttype=None) == event


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"call lost",
        b'{"type": "queue.call_lost"',
        b"[]",
        b'"text"',
        b'{"type": "queue.call_lost", "data": {"caller_number": "\xff"}}',
        b'{"type": "queue.call_lost", "data": {"caller_number": "\\ud83d"}}',
        b'{"type": "queue.call_lost", "data": {"caller_number": "a\nb"}}',
        b'{"type": "queue.call_lost", "data": {"waited_seconds": NaN}}',
        b'{"type": "queue.call_lost", "data": {"waited_seconds": -Infinity}}',
        b'{"type": "queue.call_lost", "type": "user.created", "data": {}}',
        b'{"data": {"queue_number": "1", "queue_number": "2"}}',
        b'{"number": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"data": ' * 50_000 + b"1" + b"}" * 50_000,
        '{"type": "queue.call_lost"}'.encode("utf-16"),
    ],
    ids=lambda body: body[:60],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    problem = parse(body, NOW)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.errors) == (ProblemKind.MALFORMED, ())
    assert problem.detail.endswith(".")
    assert "sys." not in problem.detail


def test_pairs_of_surrogates_and_a_byte_order_mark_are_json() -> None:
    body = b'\xef\xbb\xbf{"type": "queue.call_lost", "data": {"queue_number": "1", "caller_number": "\\ud83d\\ude00"}}'
    event = parse(body, NOW)
    assert isinstance(event, Event)
    assert event.data == CallLost(queue_number="1", caller_number="😀")


def test_all_wrong_fields_are_told_at_once() -> None:
    assert _errors(
        {"queue_number": 8000, "waited_seconds": "soon", "reason": "bored"},
        id="",
        tenant="two words",
        specversion="0.3",
    ) == {
        "specversion": "Send one of these: 1.0.",
        "id": "This must not be empty.",
        "tenant": "Send a domain name, like acme.example.",
        "data.queue_number": "Send this as text in quotes.",
        "data.caller_number": "This field is required and must not be empty.",
        "data.waited_seconds": "Send a whole number from 0 to 604800.",
        "data.reason": "Send one of these: hangup, timeout, no_agents, other.",
    }


@pytest.mark.parametrize("name", [None, "", "queue.unknown", "QUEUE.CALL_LOST", 1, [], {}, "x" * 10_000])
def test_an_unknown_type_names_the_known_ones(name: object) -> None:
    (message,) = _errors(type=name).values()
    assert list(_errors(type=name)) == ["type"]
    assert len(message) < 200


@pytest.mark.parametrize("data", [None, [], "text", 1])
def test_data_must_be_an_object(data: object) -> None:
    assert list(_errors(data)) == ["data"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_each_required_field_is_missed(kind: Any) -> None:
    required = {name for name, field in kind.fields.model_fields.items() if field.is_required()}
    for absent in (None, "", "  ", "\u200e"):
        assert set(_errors(dict.fromkeys(required, absent), type=kind.type)) == {f"data.{name}" for name in required}


@pytest.mark.parametrize("identifier", ["", " ", "x" * 201, "x" * 10_000, "a\x00b", "a\r\nb", "\u2028", 7, [], True])
def test_a_wrong_id(identifier: object) -> None:
    assert list(_errors(id=identifier)) == ["id"]


def test_the_longest_id() -> None:
    assert _event(id="x" * 200).id == "x" * 200


@pytest.mark.parametrize("time", UNDERSTOOD)
def test_times_that_pbxs_send(time: object) -> None:
    at_nine = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert _event(time=time).time == at_nine
    data = _event(CALLBACK | {"requested_at": time}, type="queue.callback_completed").data
    assert isinstance(data, CallbackCompleted)
    assert data.requested_at == at_nine


@pytest.mark.parametrize("time", NO_TIMES)
def test_what_is_no_time(time: object) -> None:
    assert list(_errors(time=time)) == ["time"]
    requested = CALLBACK | {"requested_at": time}
    assert list(_errors(requested, type="queue.callback_completed")) == ["data.requested_at"]


@pytest.mark.parametrize(
    ("off", "accepted"),
    [
        (timedelta(days=1), True),
        (timedelta(days=1, seconds=1), False),
        (-timedelta(days=30), True),
        (-timedelta(days=30, seconds=1), False),
        (timedelta(days=365_000), False),
    ],
)
def test_times_far_off_are_wrong(off: timedelta, accepted: bool) -> None:
    event = parse(_body(time=(NOW + off).isoformat()), NOW)
    assert isinstance(event, Event) is accepted


def test_what_was_recorded_stays_valid() -> None:
    data = CallbackCompleted.model_validate(CALLBACK | {"requested_at": "2001-01-01T00:00:00Z"})
    assert data.requested_at == datetime(2001, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("sent", "kept"), [(90, 90), ("90", 90), (90.0, 90), (0, 0), ("", None), (None, None)])
def test_durations_that_pbxs_send(sent: object, kept: int | None) -> None:
    data = _event(LOST | {"waited_seconds": sent}).data
    assert isinstance(data, CallLost)
    assert data.waited_seconds == kept


@pytest.mark.parametrize("sent", [-1, "-1", 1.5, "1.5", "90s", True, [], 604_801, 1e300, "٣", "9" * 200])
def test_what_is_no_duration(sent: object) -> None:
    assert list(_errors(LOST | {"waited_seconds": sent})) == ["data.waited_seconds"]
    assert list(_errors(LOST | {"sla_seconds": sent}, type="queue.sla_breached")) == ["data.sla_seconds"]


@pytest.mark.parametrize("port", [0, 65_536, -1, "sip", 70_000])
def test_what_is_no_port(port: object) -> None:
    assert list(_errors({"extension_number": "1", "tls_port": port}, type="user.created")) == ["data.tls_port"]


@pytest.mark.parametrize("text", ["a\x00", "a\r\nBcc: x@evil.example", "\ttab", "\x7f", "\x85", "\u2028", "\x1b[2J"])
@pytest.mark.parametrize("field", ["queue_number", "queue_name", "caller_number", "caller_name", "call_id"])
def test_control_characters_are_refused_in_what_is_used(field: str, text: str) -> None:
    errors = _errors(LOST | {field: text})
    assert errors == {f"data.{field}": "Control characters, such as line breaks, are not allowed here."}


def test_marks_that_turn_the_direction_of_text_are_dropped() -> None:
    data = _event(LOST | {"caller_name": "\u202eGPJ.exe\u2066 \u05d0\u200f"}).data
    assert isinstance(data, CallLost)
    assert data.caller_name == "GPJ.exe \u05d0"


def test_texts_are_bounded() -> None:
    assert _event(LOST | {"caller_name": "x" * 200, "caller_number": "1" * 64})
    assert _errors(LOST | {"caller_name": "x" * 201, "caller_number": "1" * 65}) == {
        "data.caller_name": "Send at most 200 characters.",
        "data.caller_number": "Send at most 64 characters.",
    }
    assert list(_errors(LOST | {"caller_name": "x" * 1_000_000})) == ["data.caller_name"]


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, "\x00\r\n<script>", "x" * 300, -1, 1.5, [], True, None])
def test_unknown_fields_are_ignored_and_not_kept(value: object) -> None:
    event = _event(LOST | {"sip_call_info": value, "data": value}, subject=value, source=value, traceparent=value)
    assert event == _event()
    assert event.data.public() == LOST


def test_the_canonical_form_is_the_same_for_the_same_content() -> None:
    reordered = {"caller_number": "+442079460123", "extra": 1, "queue_name": None, "queue_number": " 8000 "}
    assert _event(reordered, source="/pbx", tenant="acme.example").canonical == _event(id="1").canonical
    later = parse(_body(), NOW + timedelta(hours=1))
    assert isinstance(later, Event)
    assert later.canonical == _event().canonical
    at_nine = {_event(time=time).canonical for time in UNDERSTOOD}
    assert len(at_nine) == 1
    assert at_nine != {_event().canonical}
    assert _event(LOST | {"position": 1}).canonical != _event().canonical


def test_the_canonical_form_holds_secrets_and_is_not_printed() -> None:
    event = _event({"extension_number": "1001", "extension_password": "hush-hush"}, type="user.created")
    assert "hush-hush" in event.canonical
    assert "hush-hush" not in repr(event)


def test_errors_never_repeat_a_value() -> None:
    wrong = {
        "extension_number": "1001",
        "extension_password": "hush\x00hush",
        "voicemail_pin": 4821,
        "user_password": "hush" * 100,
        "email": "hush hush",
        "sip_domain": "hush hush",
        "udp_port": "hush",
        "transport": "hush",
    }
    errors = _errors(wrong, type="user.created", tenant="hush hush", time="hush", datacontenttype="hush")
    assert set(errors) == {
        "tenant",
        "time",
        "datacontenttype",
        *(f"data.{name}" for name in wrong if "ext" not in name),
    } | {"data.extension_password"}
    assert "hush" not in str(errors)
    assert "4821" not in str(errors)


@pytest.mark.parametrize(
    ("field", "sent", "kept"),
    [
        ("email", "Ana@BÜCHER.example", "Ana@xn--bcher-kva.example"),
        ("sip_domain", "SIP.Bücher.example.", "sip.xn--bcher-kva.example"),
        ("sip_domain", "pbx", "pbx"),
        ("login_ip", "203.0.113.10", "203.0.113.10"),
        ("login_ip", "2001:DB8::1", "2001:db8::1"),
        ("private_ip", "pbx.acme.example", "pbx.acme.example"),
        ("extension_password", " spaces stay ", " spaces stay "),
        ("transport", "tls", "tls"),
    ],
)
def test_a_user_in_its_kept_form(field: str, sent: str, kept: str) -> None:
    data = _event({"extension_number": "1001", field: sent}, type="user.created").data
    assert getattr(data, field) == kept


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("email", "ana@acme.example, eve@evil.example"),
        ("email", "ana@acme.example\r\nBcc: eve@evil.example"),
        ("email", "änä@acme.example"),
        ("email", "Ana <ana@acme.example>"),
        ("email", "ana"),
        ("sip_domain", "acme example"),
        ("sip_domain", "-.-"),
        ("sip_domain", "x" * 64 + ".example"),
        ("login_ip", "203.0.113.10/24"),
        ("transport", "sctp"),
    ],
)
def test_a_wrong_user(field: str, sent: str) -> None:
    assert list(_errors({"extension_number": "1001", field: sent}, type="user.created")) == [f"data.{field}"]


@pytest.mark.parametrize(
    "media_type", ["application/json", "text/json", "application/vnd.pbx+json;v=1", "APPLICATION/JSON"]
)
def test_data_in_json(media_type: str) -> None:
    assert _event(datacontenttype=media_type)


@pytest.mark.parametrize("media_type", ["text/xml", "", "application/jsonp", 1])
def test_data_in_another_form(media_type: object) -> None:
    assert list(_errors(datacontenttype=media_type)) == ["datacontenttype"]


def test_the_clock_is_used_where_no_time_is_given() -> None:
    event = parse(_body())
    assert isinstance(event, Event)
    assert timedelta() <= datetime.now(UTC) - event.time < timedelta(minutes=1)


def test_samples_of_each_model_are_typed() -> None:
    assert isinstance(_event(LOST | {"sla_seconds": 60}, type="queue.sla_breached").data, SlaBreached)
    assert isinstance(_event({"extension_number": "1"}, type="user.created").data, UserCreated)
