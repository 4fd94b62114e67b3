"""Too much, too deep, too far off: a clear 4xx, and nothing half done."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal import config
from portal.config import UnsafeSettings
from tests.pages import post as fill_in
from tests.ready import CALL_LOST, key, peer, ready
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["key", "peer", "ready"]

TABLES = ("events", "deliveries", "delivery_recipients", "storms", "provisioning_tokens")
FAR = timedelta(days=40)
WELCOME = {"extension_number": "1001", "extension_password": "s3cret"}


def event(data: Any = None, **attributes: Any) -> bytes:
    return json.dumps({"type": "queue.call_lost", "data": CALL_LOST | (data or {}), **attributes}).encode()


def far(by: timedelta) -> str:
    return (datetime.now(UTC) + by).isoformat()


BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "a huge body": (lambda: event({"x": "x" * 1_000_000}), 413),
    "deep objects": (lambda: b'{"x":' * 6_000 + b"1" + b"}" * 6_000, 400),
    "deep lists": (lambda: b"[" * 30_000 + b"]" * 30_000, 400),
    "a caller's name of 60 kB": (lambda: event({"caller_name": "x" * 60_000}), 422),
    "a caller's name of 1 MB": (lambda: event({"caller_name": "x" * 1_000_000}), 413),
    "a NUL byte": (lambda: event({"caller_name": "a\0b"}), 422),
    "a NUL byte in the id": (lambda: event(id="a\0b"), 422),
    "a NUL byte in the domain": (lambda: event(tenant="acme\0.example"), 422),
    "a NUL byte between": (lambda: event() + b"\0", 400),
    "half of a pair": (lambda: event({"caller_name": "\ud83d"}), 400),
    "half of a pair in a name that nobody knows": (lambda: event(**{"\udc00": 1}), 400),
    "a time long ago": (lambda: event(time=far(-FAR)), 422),
    "a time far ahead": (lambda: event(time=far(FAR)), 422),
    "the year 1": (lambda: event(time="0001-01-01T00:00:00+23:59"), 422),
    "the year 9999": (lambda: event(time="9999-12-31T23:59:59-23:59"), 422),
    "a time without end": (lambda: event(time=1e308), 422),
    "a number without end": (lambda: event().replace(b"90", b"9" * 5_000), 400),
    "CR LF in a caller's name": (lambda: event({"caller_name": "a\r\nBcc: thief@evil.example"}), 422),
    "CR LF in a queue's name": (lambda: event({"queue_name": "a\r\n\r\n<b>"}), 422),
    "CR LF in the user's address": (
        lambda: json.dumps(
            {"type": "user.created", "data": WELCOME | {"email": "a@b.example\r\nTo: c@d.example"}}
        ).encode(),
        422,
    ),
    "10,000 addresses for one user": (
        lambda: json.dumps(
            {"type": "user.created", "data": WELCOME | {"email": ",".join(f"a{n}@b.example" for n in range(3_000))}}
        ).encode(),
        422,
    ),
}


@pytest.mark.parametrize("what", BODIES)
def test_an_event_beyond_bounds_is_refused_whole(
    app: Flask, client: FlaskClient, key: str, ready: str, peer: SmtpPeer, what: str
) -> None:
    body, status = BODIES[what]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = client.post("/api/v1/events", data=body(), headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert len(answer.data) < 2_000, "what was sent is not said back at length"
    with app.app_context():
        assert [sql(f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)
    assert not peer.conversations


def test_10_000_recipients_are_refused_and_the_saved_ones_stay(app: Flask, admin: FlaskClient, ready: str) -> None:
    many = "\n".join(f"a{number}@acme.example" for number in range(10_000))
    page = f"/tenants/{ready}/mail-server"
    answer = fill_in(admin, page, f"{page}/recipients", recipients=many)
    assert answer.status_code == 422
    with app.app_context():
        assert sql("SELECT count(*) FROM recipients") == [(2,)]


@pytest.mark.parametrize("path", ["/sign-in", "/tenants/acme.example/mail-server", "/tenants/acme.example/keys"])
def test_a_form_of_2_mb_or_of_5_000_fields_is_413(admin: FlaskClient, ready: str, path: str) -> None:
    assert admin.post(path, data={"x": "x" * 2_000_000}).status_code == 413
    assert admin.post(path, data={f"x{number}": "x" * 300 for number in range(5_000)}).status_code == 413


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("name", "/system/tenants/new"),
        ("sender_name", "/tenants/acme.example/brand"),
        ("username", "/system/mail-server"),
    ],
)
@pytest.mark.parametrize("text", ["a\r\nBcc: thief@evil.example", "a\0b", "x" * 10_000], ids=["CR LF", "NUL", "long"])
def test_names_in_forms_are_bounded(
    app: Flask, system: FlaskClient, acme: str, name: str, page: str, text: str
) -> None:
    values: dict[str, Any] = {name: text, "domain": "new.example", "time_zone": "UTC"}
    answer = fill_in(system, page, **values)
    assert answer.status_code == 422
    with app.app_context():
        assert sql("SELECT (SELECT count(*) FROM tenants), (SELECT count(*) FROM mail_servers)") == [(1, 0)]


@pytest.mark.parametrize("weak", ["", "secret", "changeme", "dev", "x" * 31])
def test_a_weak_secret_key_starts_no_production(monkeypatch: pytest.MonkeyPatch, weak: str) -> None:
    for name, value in {
        "PORTAL_ENV": "production",
        "PORTAL_URL": "https://portal.example",
        "DATABASE_URL": "postgresql://db/portal",
        "ENCRYPTION_KEYS": "1:" + "A" * 43 + "=",
        "SECRET_KEY": weak,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnsafeSettings, match="SECRET_KEY"):
        config.load()


@pytest.mark.parametrize("monotonous", ["x" * 40, "changeme" * 6, "0123456789" * 5, " " * 40])
def test_a_secret_key_that_is_long_and_no_secret_starts_none_either(
    monkeypatch: pytest.MonkeyPatch, monotonous: str
) -> None:
    test_a_weak_secret_key_starts_no_production(monkeypatch, monotonous)
