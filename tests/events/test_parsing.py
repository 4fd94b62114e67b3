"""What a PBX may post, what is repaired in it, and the errors for what makes an event meaningless."""

import base64
import json
import math
import textwrap
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from portal.events.parsing import Event, FieldError, FieldWarning, Problem, ProblemKind, decode_text, parse_event
from portal.events.types import EVENT_TYPES, CallbackCompleted, CallLost, SlaBreached, UserCreated
from tests.required_fields import described_as_required, needed, sample_of

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
    event = parse_event(_body(data, **attributes), NOW)
    assert isinstance(event, Event), event
    return event


def _errors(data: object = LOST, **attributes: Any) -> dict[str, str]:
    problem = parse_event(_body(data, **attributes), NOW)
    assert isinstance(problem, Problem), problem
    assert problem.kind is ProblemKind.INVALID
    return {error.field: error.message for error in problem.errors}


def _warnings(data: object = LOST, **attributes: Any) -> dict[str, str]:
    return {warning.field: warning.message for warning in _event(data, **attributes).warnings}


def test_an_event_with_all_attributes() -> None:
    event = _event(
        LOST | {"waited_seconds": 90, "reason": "hangup"},
        specversion="1.0",
        id="7f0c",
        source="/pbx",
        time="2026-11-23T09:00:00Z",
        tenant="ACME.Example.",
        datacontenttype="application/json; charset=utf-8",
    )
    assert (event.id, event.tenant, event.event_type) == ("7f0c", "acme.example", EVENT_TYPES["queue.call_lost"])
    assert event.time == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert event.data == CallLost(**LOST, waited_seconds=90, reason="hangup")


def test_optional_attributes_may_be_missing() -> None:
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
        b"[" * 100_000,
        b'{"data": ' * 50_000 + b"1" + b"}" * 50_000,
    ],
    ids=lambda body: body[:60],
)
def test_invalid_json_is_malformed(body: bytes) -> None:
    problem = parse_event(body, NOW)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.errors) == (ProblemKind.MALFORMED, ())
    assert problem.detail.endswith(".")
    assert "sys." not in problem.detail


def test_surrogate_pairs_and_a_byte_order_mark_are_accepted() -> None:
    body = b'\xef\xbb\xbf{"type": "queue.call_lost", "data": {"queue_number": "1", "caller_number": "\\ud83d\\ude00"}}'
    event = parse_event(body, NOW)
    assert isinstance(event, Event)
    assert event.data == CallLost(queue_number="1", caller_number="😀")


def test_the_errors_of_all_needed_fields_are_reported_together() -> None:
    wrong = {"queue_number": [], "waited_seconds": "soon", "reason": "bored"}
    assert _errors(wrong, id="", tenant="two words", specversion="0.3") == {
        "tenant": "Send a domain name, like acme.example.",
        "data.queue_number": "Send this as text in quotes.",
    }


def test_the_warnings_of_all_other_fields_are_reported_together() -> None:
    wrong = {"waited_seconds": "soon", "reason": "bored", "caller_name": "x" * 201, "position": 1.6}
    event = _event(LOST | wrong, id="\x00", specversion="0.3", time="now", datacontenttype="text/xml")
    assert event.data == CallLost(**LOST, caller_name="x" * 200, position=2)
    assert {warning.field: warning.message for warning in event.warnings} == {
        "id": "This id was replaced. Send text of at most 200 characters, without control characters.",
        "specversion": "This was left out. Send one of these: 1.0.",
        "time": "This was left out. "
        "Send a time as RFC 3339 with its offset, like 2026-11-23T09:05:00Z, or as Unix seconds.",
        "datacontenttype": "This was left out. Only JSON data is supported: leave this out or send application/json.",
        "data.waited_seconds": "This was left out. Send a whole number from 0 to 604800.",
        "data.reason": "This was left out. Send one of these: hangup, timeout, no_agents, full, other.",
        "data.caller_name": "This was cut to 200 characters.",
        "data.position": "This was rounded to a whole number.",
    }


@pytest.mark.parametrize("name", [None, "", "queue.unknown", "call_lost", 1, [], {}, "x" * 10_000])
def test_an_unknown_type_is_answered_with_the_known_ones(name: object) -> None:
    (message,) = _errors(type=name).values()
    assert list(_errors(type=name)) == ["type"]
    assert len(message) < 200


@pytest.mark.parametrize("data", [None, [], "text", "[]", 1])
def test_data_must_be_an_object(data: object) -> None:
    assert list(_errors(data)) == ["data"]


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=str)
def test_every_missing_required_field_is_reported(kind: Any) -> None:
    sent: dict[str, Any]
    for sent in ({}, *(dict.fromkeys(needed(kind), absent) for absent in (None, "", "  ", "\u200e", "\x00\r\n"))):
        assert set(_errors(sent, type=kind.type)) == {f"data.{name}" for name in needed(kind)}
    expected = described_as_required(kind) - needed(kind)
    for sent in ({}, *(dict.fromkeys(expected, absent) for absent in (None, "", "  ", "\u200e"))):
        warnings = _warnings(sample_of(kind, needed(kind)) | sent, type=kind.type)
        assert set(warnings) == {f"data.{name}" for name in expected}
        assert all("This field is required and must not be empty." in message for message in warnings.values())


@pytest.mark.parametrize("number", [True, [], {}, math.nan, {"a": 1}, math.inf, None, ""])
@pytest.mark.parametrize(
    ("field", "type_", "kept"),
    [
        ("caller_number", "queue.call_lost", "anonymous"),
        ("callback_number", "queue.callback_failed", "unknown"),
        ("callback_number", "queue.callback_completed", "unknown"),
    ],
)
def test_an_unusable_number_does_not_lose_the_event(field: str, type_: str, kept: str, number: object) -> None:
    sent = CALLBACK | {field: number}
    assert getattr(_event(sent, type=type_).data, field) == kept
    assert list(_warnings(sent, type=type_)) == [f"data.{field}"]
    assert f"This was recorded as “{kept}”." in _warnings(sent, type=type_)[f"data.{field}"]
    assert _event(sent, type=type_).data.public_fields()[field] == kept


@pytest.mark.parametrize("name", [" queue.call_lost ", "QUEUE.CALL_LOST", "Queue.Call-Lost", "queue.call lost\n"])
def test_a_type_is_written_in_any_case(name: str) -> None:
    assert _event(type=name).data == _event().data
    assert _event(type=name).canonical == _event().canonical
    assert _warnings(type=name) == {"type": "This was read as “queue.call_lost”."}


@pytest.mark.parametrize("number", ["", "  ", "\u200e", "\x00", "\r\n\t", "\u2028"])
def test_no_caller_can_suppress_the_email_by_hiding_the_number(number: object) -> None:
    event = _event({"queue_number": "8000", "caller_number": number})
    assert event.data == CallLost(queue_number="8000", caller_number="anonymous")
    assert [warning.field for warning in event.warnings] == ["data.caller_number"]


@pytest.mark.parametrize("identifier", ["x" * 201, "x" * 10_000, "a\x00b", "a\r\nb", "a\u2028b", [], {"a": [1]}, True])
def test_an_unusable_id_is_replaced_by_one_that_is_the_same_for_a_repeat(identifier: object) -> None:
    event = _event(id=identifier)
    assert list(_warnings(id=identifier)) == ["id"]
    assert event.id
    assert event.id.isprintable()
    assert (event.id, len(event.id)) == (_event(id=identifier).id, 36)
    assert event.id != _event(id="x" * 202).id


@pytest.mark.parametrize(
    ("identifier", "kept"), [("", None), ("\u2028", None), (7, "7"), (7.0, "7"), (2**70, str(2**70))]
)
def test_ids_that_are_numbers_or_empty(identifier: object, kept: str | None) -> None:
    event = _event(id=identifier)
    assert (event.id, event.warnings) == (kept, ())


def test_the_longest_id() -> None:
    assert _event(id="x" * 200).id == "x" * 200


@pytest.mark.parametrize("time", UNDERSTOOD)
def test_valid_times(time: object) -> None:
    at_nine = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert _event(time=time).time == at_nine
    data = _event(CALLBACK | {"requested_at": time}, type="queue.callback_completed").data
    assert isinstance(data, CallbackCompleted)
    assert data.requested_at == at_nine


@pytest.mark.parametrize("time", NO_TIMES)
def test_an_invalid_time_is_left_out(time: object) -> None:
    assert (list(_warnings(time=time)), _event(time=time).time) == (["time"], NOW)
    requested = CALLBACK | {"requested_at": time}
    assert list(_warnings(requested, type="queue.callback_completed")) == ["data.requested_at"]


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
def test_times_too_far_from_now_are_left_out(off: timedelta, accepted: bool) -> None:
    time = NOW + off
    assert _event(time=time.isoformat()).time == (time if accepted else NOW)
    assert list(_warnings(time=time.isoformat())) == ([] if accepted else ["time"])


def test_recorded_times_stay_valid() -> None:
    data = CallbackCompleted.model_validate(CALLBACK | {"requested_at": "2001-01-01T00:00:00Z"})
    assert data.requested_at == datetime(2001, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("sent", "kept"), [(90, 90), ("90", 90), (90.0, 90), (0, 0), ("", None), (None, None)])
def test_valid_durations(sent: object, kept: int | None) -> None:
    data = _event(LOST | {"waited_seconds": sent}).data
    assert isinstance(data, CallLost)
    assert data.waited_seconds == kept


@pytest.mark.parametrize(("sent", "kept"), [(95.4, 95), (95.5, 96), ("1.5", 2), (-0.4, 0), (604_800.4, 604_800)])
def test_durations_are_rounded(sent: object, kept: int) -> None:
    data = _event(LOST | {"waited_seconds": sent}).data
    assert isinstance(data, CallLost)
    assert data.waited_seconds == kept
    assert _warnings(LOST | {"waited_seconds": sent}) == {"data.waited_seconds": "This was rounded to a whole number."}


@pytest.mark.parametrize("sent", [-1, "-1", "90s", True, [], 604_801, 8 * 86_400, 1e300, "٣", "9" * 200, 10**1000])
def test_an_invalid_duration_is_left_out(sent: object) -> None:
    assert list(_warnings(LOST | {"waited_seconds": sent})) == ["data.waited_seconds"]
    assert list(_warnings(LOST | {"sla_seconds": sent}, type="queue.sla_breached")) == ["data.sla_seconds"]
    assert _event(LOST | {"sla_seconds": sent}, type="queue.sla_breached").data == SlaBreached(**LOST)


@pytest.mark.parametrize("port", [0, 65_536, -1, "sip", 70_000])
def test_invalid_ports_are_left_out(port: object) -> None:
    assert list(_warnings({"extension_number": "1", "tls_port": port}, type="user.created")) == ["data.tls_port"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\x00b", "ab"),
        ("a\r\nBcc: x", "a Bcc: x"),
        ("a\t\tb", "a b"),
        ("a\x7f", "a"),
        ("a\x85b", "a b"),
        ("a\u2028b", "a b"),
        ("a\x1b[2J", "a[2J"),
        ("a\uffffb", "ab"),
        ("M\ud83dller", "M\ufffdller"),
    ],
)
@pytest.mark.parametrize("field", ["queue_number", "queue_name", "caller_number", "caller_name", "call_id"])
def test_text_is_cleaned(field: str, text: str, kept: str) -> None:
    assert getattr(_event(LOST | {field: text}).data, field) == kept
    assert list(_warnings(LOST | {field: text})) == [f"data.{field}"]


@pytest.mark.parametrize("number", [8000, 8000.0, "8000", " 8000 ", "8000\n"])
def test_numbers_are_taken_as_text(number: object) -> None:
    data = {"queue_number": number, "caller_number": 442079460123, "call_id": 17.25}
    event = _event(data)
    assert event.data == CallLost(queue_number="8000", caller_number="442079460123", call_id="17.25")
    assert event.warnings == ()


@pytest.mark.parametrize("value", [True, [], {}, [8000]])
def test_what_is_neither_text_nor_a_number_is_left_out_unless_it_is_required(value: object) -> None:
    assert list(_warnings(LOST | {"caller_name": value})) == ["data.caller_name"]
    assert list(_errors(LOST | {"queue_number": value})) == ["data.queue_number"]


RAW = b'{"type": "queue.call_lost", "data": {"queue_number": "8000", "caller_number": "1", "caller_name": %s}}'


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b'"M\xfcller"', "M\ufffdller"),  # ISO-8859-1
        (b'"Kova\xc4"', "Kova\ufffd"),  # UTF-8 that was cut inside a letter
        (b'"\xe2\x82"', "\ufffd\ufffd"),
        (b'"a\xed\xa0\xbdb"', "a\ufffd\ufffd\ufffdb"),  # a surrogate in UTF-8
        (b'"\\ud83d"', "\ufffd"),
        (b'"a\tb"', "a b"),
        (b'"a\r\nb"', "a b"),
        (b'"a\x00b"', "ab"),
        (b'"\\u0000a"', "a"),
        (b"NaN", None),
        (b"-Infinity", None),
        (b"1e999", None),
        (b"9" * 5000, None),
        (b'"one", "caller_name": "two"', "two"),
    ],
)
def test_a_faulty_value_does_not_lose_the_event(raw: bytes, kept: str | None) -> None:
    event = parse_event(RAW % raw, NOW)
    assert isinstance(event, Event)
    assert isinstance(event.data, CallLost)
    assert event.data.caller_name == kept
    assert [warning.field for warning in event.warnings] == ["data.caller_name"]


def test_a_name_that_is_sent_twice_is_a_warning_if_it_has_a_meaning() -> None:
    body = RAW.replace(b'"type"', b'"x": 1, "x": 2, "type"') % b'"one", "y": 1, "y": 2, "caller_name": "two"'
    event = parse_event(body, NOW)
    assert isinstance(event, Event)
    assert [warning.field for warning in event.warnings] == ["data.caller_name"]


@pytest.mark.parametrize("distinct", [3_000, 5_999])
def test_thousands_of_names_are_read_in_no_time(distinct: int) -> None:
    body = RAW % (b'"one", ' + b", ".join(b'"%x": 1' % (number % distinct) for number in range(6_000)))
    assert len(body) < 65_536
    began = time.process_time()
    event = parse_event(body, NOW)
    assert time.process_time() - began < 0.3
    assert isinstance(event, Event)
    assert event.warnings == ()


@pytest.mark.parametrize("number", ["", " ", "\u202e", None])
def test_a_caller_who_hides_their_number_does_not_suppress_the_event(number: str | None) -> None:
    event = _event(LOST | {"caller_number": number})
    assert isinstance(event.data, CallLost)
    assert event.data.caller_number == "anonymous"
    assert [warning.field for warning in event.warnings] == ["data.caller_number"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_encoding_of_the_body_is_recognised(encoding: str) -> None:
    event = parse_event((RAW % '"Kovač 😀"'.encode()).decode().encode(encoding), NOW)
    assert isinstance(event, Event)
    assert isinstance(event.data, CallLost)
    assert (event.data.caller_name, event.warnings) == ("Kovač 😀", ())


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        (b"M\xfcller", "ISO-8859-1", "Müller"),
        (b"M\xfcller", "windows-1252", "Müller"),
        (b"M\xfcller", "latin1", "Müller"),
        ("Müller".encode(), "utf-8", "Müller"),
        ("Müller".encode(), "UTF8", "Müller"),
        ("Müller".encode(), "no-such-set", "Müller"),
        (b"\\u00fc", "unicode_escape", "\\u00fc"),
        ("M\u00fc".encode("utf-16"), "iso-8859-1", "Mü"),
    ],
)
def test_the_declared_character_set_is_used(body: bytes, charset: str, text: str) -> None:
    assert decode_text(body, charset) == text


@pytest.mark.parametrize("charset", [None, "utf-8", "UTF8", "iso-8859-1", "windows-1252", "utf-16le", "no-such-set"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_about_the_character_set(encoding: str, charset: str | None) -> None:
    warnings: list[FieldWarning] = []
    assert decode_text('{"a": "Müller"}'.encode(encoding), charset, warnings) == '{"a": "Müller"}'
    assert warnings == []
    assert decode_text(b"\xef\xbb\xbf" + "{}".encode("utf-8-sig"), charset) == "{}"


@pytest.mark.parametrize("charset", ["utf-16le", "UTF-16", "utf-32", "cp037", "cp500"])
def test_a_character_set_in_which_it_is_no_json_is_not_used(charset: str) -> None:
    warnings: list[FieldWarning] = []
    assert decode_text(' {"a": "Müller"}'.encode(), charset, warnings) == ' {"a": "Müller"}'
    assert [warning.field for warning in warnings] == ["Content-Type"]
    assert decode_text('{"a": "Müller"}'.encode("cp037"), "cp037") == '{"a": "Müller"}'


def test_data_may_be_encoded() -> None:
    encoded = base64.b64encode(json.dumps(LOST).encode()).decode()
    event = parse_event(json.dumps({"type": "queue.call_lost", "data_base64": encoded}).encode(), NOW)
    assert isinstance(event, Event)
    assert (event.data, event.warnings) == (_event().data, ())
    assert list(_warnings(json.dumps(LOST))) == ["data"]
    name = json.dumps(LOST | {"caller_name": "ÿ?>~ïþ¿"}, ensure_ascii=False).encode()
    plain, url_safe = base64.b64encode(name).decode(), base64.urlsafe_b64encode(name).decode()
    assert plain != url_safe
    for sent in (
        f"{plain}\n",
        "\r\n".join(textwrap.wrap(plain, 20)),
        url_safe,
        url_safe.rstrip("="),
        plain.rstrip("="),
    ):
        for empty in (None, dict[str, Any]()):
            assert _event(empty, data_base64=sent) == _event(LOST | {"caller_name": "ÿ?>~ïþ¿"})
    for wrong in ("=", "not base64!", base64.b64encode(b"[]").decode(), 7):
        problem = parse_event(json.dumps({"type": "queue.call_lost", "data_base64": wrong}).encode(), NOW)
        assert isinstance(problem, Problem)
        assert problem.errors == (FieldError("data_base64", "Send a JSON object in Base64."),)


def test_bidi_control_characters_are_removed() -> None:
    data = _event(LOST | {"caller_name": "\u202eGPJ.exe\u2066 \u05d0\u200f"}).data
    assert isinstance(data, CallLost)
    assert data.caller_name == "GPJ.exe \u05d0"


def test_text_is_cut() -> None:
    uri = "sip:" + "1" * 80
    assert _warnings(LOST | {"caller_name": "x" * 200, "caller_number": uri}) == {}
    long = _event(LOST | {"caller_name": "y" * 60_000, "caller_number": uri * 9})
    assert long.data == CallLost(queue_number="8000", caller_number=(uri * 9)[:200], caller_name="y" * 200)
    assert {warning.message for warning in long.warnings} == {"This was cut to 200 characters."}


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, "\x00\r\n<script>", "x" * 300, -1, 1.5, [], True, None])
def test_unknown_fields_are_ignored_and_not_kept(value: object) -> None:
    event = _event(LOST | {"sip_call_info": value, "data": value}, subject=value, source=value, traceparent=value)
    assert event == _event()
    assert event.data.public_fields() == LOST


def test_the_canonical_form_is_the_same_for_the_same_content() -> None:
    reordered = {"caller_number": "+442079460123", "extra": 1, "queue_name": None, "queue_number": " 8000 "}
    assert _event(reordered, source="/pbx", tenant="acme.example").canonical == _event(id="1").canonical
    later = parse_event(_body(), NOW + timedelta(hours=1))
    assert isinstance(later, Event)
    assert later.canonical == _event().canonical
    at_nine = {_event(time=time).canonical for time in UNDERSTOOD}
    assert len(at_nine) == 1
    assert at_nine != {_event().canonical}
    assert _event(LOST | {"position": 1}).canonical != _event().canonical


def test_the_canonical_form_contains_secrets_and_is_not_printed() -> None:
    event = _event({"extension_number": "1001", "extension_password": "hush-hush"}, type="user.created")
    assert "hush-hush" in event.canonical
    assert "hush-hush" not in repr(event)


def test_warnings_never_repeat_a_value() -> None:
    wrong = {
        "extension_password": "hush\x00hush",
        "voicemail_pin": "hush",
        "user_password": "hush" * 100,
        "email": "hush hush",
        "sip_domain": "hush hush",
        "udp_port": "hush",
        "transport": "hush",
    }
    warnings = _warnings(
        {"extension_number": "1001"} | wrong, type="user.created", time="hush", datacontenttype="hush", id=["hush"]
    )
    assert set(warnings) == {"id", "time", "datacontenttype", *(f"data.{name}" for name in wrong)}
    assert "hush" not in str(warnings)
    assert "hush" not in str(_errors({"extension_number": ["hush"]}, type="user.created", tenant="hush hush"))


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
        ("transport", " TLS ", "tls"),
        ("voicemail_pin", 4821, "4821"),
        ("voicemail_pin", "*4821#", "*4821#"),
        ("extension_password", 4821, "4821"),
        ("user_name", "ana@acme.example", "ana@acme.example"),
    ],
)
def test_user_fields_are_normalised(field: str, sent: str, kept: str) -> None:
    data = _event({"extension_number": "1001", field: sent}, type="user.created").data
    assert getattr(data, field) == kept


@pytest.mark.parametrize(
    ("field", "sent", "kept"),
    [
        ("email", "Jane <j@x.example>", "j@x.example"),
        ("email", "Jane [MAILTO:j@x.example]", "j@x.example"),
        ("email", "<j@x.example>", "j@x.example"),
        ("email", '"Doe, Jane" <j@X.example>', "j@x.example"),
        ("sip_domain", "acme.example:5061", "acme.example"),
        ("sip_domain", "sip:acme.example;transport=tls", "acme.example"),
        ("sip_domain", "101@acme.example", "acme.example"),
        ("login_ip", "203.0.113.10:5060", "203.0.113.10"),
        ("login_ip", "203.0.113.10/24", "203.0.113.10"),
        ("login_ip", "[2001:db8::1]:5061", "2001:db8::1"),
        ("private_ip", "https://pbx.acme.example:8443/login", "pbx.acme.example"),
    ],
)
def test_the_part_that_a_field_is_about_is_used(field: str, sent: str, kept: str) -> None:
    values = {"extension_number": "1001", field: sent}
    assert getattr(_event(values, type="user.created").data, field) == kept
    assert list(_warnings(values, type="user.created")) == [f"data.{field}"]


@pytest.mark.parametrize("reason", ["hangup", "Hangup", " HANGUP "])
def test_choices_are_written_in_any_case(reason: str) -> None:
    assert _event(LOST | {"reason": reason}).data == CallLost(**LOST, reason="hangup")
    data = CALLBACK | {"reason": "No-Answer"}
    assert getattr(_event(data, type="queue.callback_failed").data, "reason") == "no_answer"  # noqa: B009


@pytest.mark.parametrize("sent", ["101@acme.example", "sip:101@acme.example", "SIPS:101@acme.example:5061;x=y"])
def test_an_extension_is_split_from_its_domain(sent: str) -> None:
    data = _event({"extension_number": sent}, type="user.created").data
    assert isinstance(data, UserCreated)
    assert (data.extension_number, data.sip_domain) == ("101", "acme.example")
    other = _event({"extension_number": sent, "sip_domain": "pbx.example"}, type="user.created").data
    assert isinstance(other, UserCreated)
    assert other.sip_domain == "pbx.example"
    wrong = _event({"extension_number": "101@\r\nno domain", "sip_domain": "two words"}, type="user.created").data
    assert wrong == UserCreated(extension_number="101")
    data = _event(LOST | {"queue_number": sent}).data
    assert data.queue == "101"


@pytest.mark.parametrize(
    ("sent", "number", "name"),
    [
        ("<sip:8000@acme.example>", "8000", None),
        ('"Support" <sip:8000@acme.example;transport=tls>;tag=1', "8000", "Support"),
        ("Support EU <sips:8000@acme.example:5061>", "8000", "Support EU"),
        (r'"The \"A\" team <1>"<sip:8000:secret@acme.example>', "8000", 'The "A" team <1>'),
        ("<8000>", "8000", None),
        ("<tel:8000;phone-context=acme.example>", "8000", None),
        ("sip:8000;phone-context=x@acme.example", "8000", None),
    ],
)
def test_a_number_may_have_a_name_and_a_uri(sent: str, number: str, name: str | None) -> None:
    event = _event(LOST | {"queue_number": sent})
    assert event.data == CallLost(**LOST | {"queue_number": number}, queue_name=name)
    assert list(_warnings(LOST | {"queue_number": sent})) == ["data.queue_number"]
    assert getattr(_event(LOST | {"queue_number": sent, "queue_name": "B"}).data, "queue_name") == "B"  # noqa: B009
    user = _event({"extension_number": sent}, type="user.created").data
    assert isinstance(user, UserCreated)
    assert (user.extension_number, user.display_name) == (number, name)
    assert user.sip_domain == ("acme.example" if "@" in sent else None)
    agent = _event(CALLBACK | {"agent_extension": sent}, type="queue.callback_completed").data
    assert isinstance(agent, CallbackCompleted)
    assert agent.agent_extension == number


def test_a_callers_name_is_taken_from_the_number() -> None:
    event = _event(LOST | {"caller_number": '"Ana Kovač" <sip:+44@acme.example>;tag=1'})
    assert event.data == CallLost(queue_number="8000", caller_number="sip:+44@acme.example", caller_name="Ana Kovač")
    assert [warning.field for warning in event.warnings] == ["data.caller_number"]
    sent = CALLBACK | {"callback_number": "<tel:+44>"}
    assert getattr(_event(sent, type="queue.callback_failed").data, "callback_number") == "tel:+44"  # noqa: B009


def test_a_long_number_is_read_in_no_time() -> None:
    began = time.process_time()
    for number in ('"' * 60_000, "<" * 60_000, " " * 30_000 + "x" + " " * 30_000 + ">", '"' + "\\" * 60_000):
        assert _event(LOST | {"caller_number": number})
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "link",
    [
        "[Pay](https://evil.example)",
        "http://evil.example",
        "www.evil.example",
        "mailto:a@b.example",
        "evil.example/pay",
    ],
)
@pytest.mark.parametrize("field", ["voicemail_pin", "extension_password", "user_password", "user_name"])
def test_no_link_is_taken_for_a_value_that_people_copy(field: str, link: str) -> None:
    values = {"extension_number": "1001", field: link}
    assert getattr(_event(values, type="user.created").data, field) is None
    assert list(_warnings(values, type="user.created")) == [f"data.{field}"]
    assert list(_errors({"extension_number": link.replace("@", "")}, type="user.created")) == ["data.extension_number"]


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("email", "ana@acme.example, eve@evil.example"),
        ("email", "ana@acme.example\r\nBcc: eve@evil.example"),
        ("email", "änä@acme.example"),
        ("email", "eve@evil.example, Ana <ana@acme.example>"),
        ("email", "Ana <ana@acme.example> <eve@evil.example>"),
        ("email", "ana"),
        ("sip_domain", "acme example"),
        ("sip_domain", "-.-"),
        ("sip_domain", "x" * 64 + ".example"),
        ("sip_domain", "acme.example, evil.example"),
        ("voicemail_pin", "48 21"),
        ("voicemail_pin", "9" * 33),
        ("extension_password", "a\nb"),
        ("extension_password", "x" * 201),
        ("extension_password", True),
        ("transport", "sctp"),
    ],
)
def test_invalid_user_fields_are_left_out(field: str, sent: object) -> None:
    assert getattr(_event({"extension_number": "1001", field: sent}, type="user.created").data, field) is None
    assert list(_warnings({"extension_number": "1001", field: sent}, type="user.created")) == [f"data.{field}"]


@pytest.mark.parametrize(
    "media_type", ["application/json", "text/json", "application/vnd.pbx+json;v=1", "APPLICATION/JSON"]
)
def test_json_media_types(media_type: str) -> None:
    assert _event(datacontenttype=media_type)


@pytest.mark.parametrize("media_type", ["text/xml", "application/jsonp", 1])
def test_other_media_types_are_left_out(media_type: object) -> None:
    assert list(_warnings(datacontenttype=media_type)) == ["datacontenttype"]


def test_the_databases_clock_is_used_if_no_time_is_given(app: Flask) -> None:
    with app.app_context():
        event = parse_event(_body())
    assert isinstance(event, Event)
    assert timedelta() <= datetime.now(UTC) - event.time < timedelta(minutes=1)


def test_data_has_the_class_of_its_type() -> None:
    assert isinstance(_event(LOST | {"sla_seconds": 60}, type="queue.sla_breached").data, SlaBreached)
    assert isinstance(_event({"extension_number": "1"}, type="user.created").data, UserCreated)
