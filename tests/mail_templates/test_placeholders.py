"""The values of the placeholders for an event."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.events.types import EVENT_TYPES
from portal.events.values import RichValue
from portal.mail_templates.placeholders import MailContext, placeholder_values

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
LOST = {"queue_number": "8000", "caller_number": "+442079460123"}
CALLBACK = {**LOST, "callback_number": "+49301234567"}


def _values(
    event_type: str, data: dict[str, Any], time: datetime = NOW, event_url: str = "", **context: Any
) -> dict[str, str]:
    whose = {"tenant_name": "Acme", "tenant_domain": "acme.example", "time_zone": "Europe/Berlin"} | context
    fields = EVENT_TYPES[event_type].fields.model_validate(data)
    found = placeholder_values(fields, time, MailContext(**whose), event_url)
    return {name: value.text if isinstance(value, RichValue) else value for name, value in found.items()}


def test_a_new_user() -> None:
    assert _values("user.created", dict(EVENT_TYPES["user.created"].sample), pbx_web_domain="pbx.example") == {
        "TENANT_NAME": "Acme",
        "DATE_TIME": "23 November 2026, 10:05:00 CET",
        "PBX_WEB_DOMAIN": "pbx.example",
        "EXTENSION_NUMBER": "1001",
        "EXTENSION_PASSWORD": "k7#Vt-29.qX",
        "USER_NAME": "ana.kovac",
        "USER_PASSWORD": "Linden-4821-Kite",
        "DISPLAY_NAME": "Ana Kovač",
        "VOICEMAIL_PIN": "4821",
        "DOMAIN": "acme.example",
        "SIP_PUBLIC_IP": "203.0.113.10",
        "SIP_PRIVATE_IP": "192.168.20.10",
        "UDP_PORT": "5060",
        "TCP_PORT": "5060",
        "TLS_PORT": "5061",
    }


def test_the_reply_to_address_and_the_event_are_there_only_if_known() -> None:
    found = _values("queue.call_lost", LOST, reply_to="help@acme.example", event_url="https://portal.example/e")
    assert (found["REPLY_TO"], found["EVENT_URL"]) == ("help@acme.example", "https://portal.example/e")
    assert not {"REPLY_TO", "EVENT_URL"} & _values("queue.call_lost", LOST).keys()


def test_the_domain_defaults_to_the_tenants() -> None:
    assert _values("user.created", {"extension_number": "1"})["DOMAIN"] == "acme.example"
    assert _values("user.created", {"extension_number": "1", "sip_domain": "sip.example"})["DOMAIN"] == "sip.example"
    assert _values("queue.call_lost", LOST)["DOMAIN"] == "acme.example"


def test_missing_names_have_fallbacks() -> None:
    assert _values("queue.call_lost", LOST)["QUEUE_NAME"] == "8000"
    assert "CALLER_NAME" not in _values("queue.call_lost", LOST)
    user = {"extension_number": "1001", "user_name": "ana", "display_name": "Ana"}
    assert _values("user.created", user)["DISPLAY_NAME"] == "Ana"
    del user["display_name"]
    assert _values("user.created", user)["DISPLAY_NAME"] == "ana"
    del user["user_name"]
    assert _values("user.created", user)["DISPLAY_NAME"] == "1001"


def test_numbers_of_an_sla_breach() -> None:
    found = _values("queue.sla_breached", dict(EVENT_TYPES["queue.sla_breached"].sample))
    assert (found["SLA_TIME"], found["WAITED_TIME"]) == ("1 minute", "1 minute 30 seconds")
    assert (found["WAITSESSIONNO"], found["BREACHSLANO"]) == ("4", "2")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3_601, "1 hour 1 second"),
        (90_061, "1 day 1 hour 1 minute 1 second"),
        (604_800, "7 days"),
    ],
)
def test_durations(seconds: int, words: str) -> None:
    assert _values("queue.call_lost", LOST | {"waited_seconds": seconds})["WAITED_TIME"] == words


def test_waiting_time_of_a_callback() -> None:
    def waited(requested_at: datetime) -> str:
        data = CALLBACK | {"requested_at": requested_at.isoformat()}
        return _values("queue.callback_completed", data)["WAITED_TIME"]

    assert waited(NOW - timedelta(minutes=12, seconds=30)) == "12 minutes 30 seconds"
    assert waited(NOW + timedelta(minutes=1)) == ""


def test_attempts() -> None:
    assert _values("queue.callback_failed", CALLBACK | {"attempt": 2, "max_attempts": 3})["ATTEMPT"] == "2 of 3"
    assert _values("queue.callback_failed", CALLBACK | {"attempt": 2})["ATTEMPT"] == "2"
    assert "ATTEMPT" not in _values("queue.callback_failed", CALLBACK | {"max_attempts": 3})


@pytest.mark.parametrize("event_type", ["queue.call_lost", "queue.callback_failed"])
def test_every_reason_has_a_text(event_type: str) -> None:
    reasons = EVENT_TYPES[event_type].fields.model_json_schema()["properties"]["reason"]["anyOf"][0]["enum"]
    data = dict(EVENT_TYPES[event_type].sample)
    words = [_values(event_type, data | {"reason": reason})["REASON"] for reason in reasons]
    assert len(set(words)) == len(reasons)
    assert not set("".join(words)) & set("_")


@pytest.mark.parametrize(
    ("time", "zone", "language", "words"),
    [
        (NOW, "Europe/Berlin", "en", "23 November 2026, 10:05:00 CET"),
        (NOON, "Europe/Berlin", "en", "1 July 2026, 14:00:00 CEST"),
        (NOON, "UTC", "en", "1 July 2026, 12:00:00 UTC"),
        (NOW, "Asia/Dubai", "en", "23 November 2026, 13:05:00 GMT+04:00"),
        (NOW, "Asia/Kathmandu", "en-GB", "23 November 2026, 14:50:00 GMT+05:45"),
        (NOW, "America/New_York", "en_US", "November 23, 2026, 4:05:00\u202fAM EST"),
        (NOW, "Europe/Berlin", "de", "23. November 2026, 10:05:00 CET"),
        (NOW, "Pacific/Auckland", "en", "23 November 2026, 22:05:00 NZDT"),
    ],
)
def test_times_in_the_tenants_zone_and_language(time: datetime, zone: str, language: str, words: str) -> None:
    assert _values("queue.call_lost", LOST, time, time_zone=zone, language=language)["DATE_TIME"] == words


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", "1 Tag 1 Stunde 1 Minute 30 Sekunden"),
        ("es", "1 día 1 hora 1 minuto 30 segundos"),
        ("fr", "1\u00a0jour 1\u00a0heure 1 minute 30\u00a0secondes"),
        ("zh", "1天1小时1分钟30秒钟"),
    ],
)
def test_durations_in_another_language(language: str, words: str) -> None:
    found = _values("queue.call_lost", LOST | {"waited_seconds": 90_090}, language=language)
    assert found["WAITED_TIME"] == words


def test_a_choice_and_a_count_in_another_language() -> None:
    found = _values(
        "queue.callback_failed", CALLBACK | {"attempt": 2, "max_attempts": 3, "reason": "busy"}, language="fr"
    )
    assert (found["ATTEMPT"], found["REASON"]) == ("2 sur 3", "la ligne était occupée")


def test_copyable_values_are_exact() -> None:
    data = EVENT_TYPES["user.created"].fields.model_validate(
        {"extension_number": "1001", "extension_password": "a.b@c/<d>", "login_ip": "203.0.113.10"}
    )
    found = placeholder_values(data, NOW, MailContext("Acme", "acme.example", "UTC"))
    assert found["EXTENSION_PASSWORD"] == RichValue("a.b@c/&lt;d&gt;", "a.b@c/<d>")
    assert found["SIP_PUBLIC_IP"] == RichValue("203.0.113.10", "203.0.113.10")
    assert found["DOMAIN"] == RichValue("acme.example", "acme.example")
