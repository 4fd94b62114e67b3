"""Too much, too deep, too far off: a clear 4xx, and nothing half done."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal import config
from portal.config import UnsafeSettings
from tests.pages import post as fill_in
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, key, peer, working_tenant

__all__ = ["key", "peer", "working_tenant"]

TABLES = ("events", "deliveries", "delivery_recipients", "storms", "provisioning_tokens")
FAR = timedelta(days=40)
WELCOME = {"extension_number": "1001", "extension_password": "s3cret"}


def event(data: Any = None, **attributes: Any) -> bytes:
    return json.dumps({"type": "queue.call_lost", "data": CALL_LOST | (data or {}), **attributes}).encode()


def far(by: timedelta) -> str:
    return (datetime.now(UTC) + by).isoformat()


REFUSED: dict[str, tuple[Callable[[], bytes], int]] = {
    "a huge body": (lambda: event({"x": "x" * 1_000_000}), 413),
    "deep objects": (lambda: b'{"x":' * 6_000 + b"1" + b"}" * 6_000, 400),
    "deep lists": (lambda: b"[" * 30_000 + b"]" * 30_000, 400),
    "a caller's name of 1 MB": (lambda: event({"caller_name": "x" * 1_000_000}), 413),
    "a NUL byte between": (lambda: event() + b"\0", 400),
}
# Faults in details: the event is recorded without them.
REPAIRED: dict[str, Callable[[], bytes]] = {
    "a caller's name of 60 kB": lambda: event({"caller_name": "x" * 60_000}),
    "a NUL byte": lambda: event({"caller_name": "a\0b"}),
    "a NUL byte in the id": lambda: event(id="a\0b"),
    "a NUL byte in the domain": lambda: event(tenant="acme\0.example"),
    "half of a pair": lambda: event({"caller_name": "\ud83d"}),
    "half of a pair in a name that nobody knows": lambda: event(**{"\udc00": 1}),
    "a time long ago": lambda: event(time=far(-FAR)),
    "a time far ahead": lambda: event(time=far(FAR)),
    "the year 1": lambda: event(time="0001-01-01T00:00:00+23:59"),
    "the year 9999": lambda: event(time="9999-12-31T23:59:59-23:59"),
    "a time without end": lambda: event(time=1e308),
    "a number without end": lambda: event().replace(b"90", b"9" * 5_000),
    "CR LF in a caller's name": lambda: event({"caller_name": "a\r\nBcc: thief@evil.example"}),
    "CR LF in a queue's name": lambda: event({"queue_name": "a\r\n\r\n<b>"}),
    "CR LF in the user's address": (
        lambda: json.dumps(
            {"type": "user.created", "data": WELCOME | {"email": "a@b.example\r\nTo: c@d.example"}}
        ).encode()
    ),
    "10,000 addresses for one user": (
        lambda: json.dumps(
            {"type": "user.created", "data": WELCOME | {"email": ",".join(f"a{n}@b.example" for n in range(3_000))}}
        ).encode()
    ),
}


@pytest.mark.parametrize(("depth", "status"), [(100, 200), (101, 400)])
def test_the_depth_that_is_read_is_the_same_on_every_python(
    client: FlaskClient, key: str, working_tenant: str, peer: SmtpPeer, depth: int, status: int
) -> None:
    inner = "[" * (depth - 2) + '"[]"' + "]" * (depth - 2)  # within the event and its data
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = client.post(
        "/api/v1/events", data=event({"x": json.loads(inner), "caller_name": "[[" * 50}), headers=headers
    )
    assert answer.status_code == status, answer.text


def test_an_event_beyond_bounds_is_refused_whole(
    app: Flask, client: FlaskClient, key: str, working_tenant: str, peer: SmtpPeer, subtests: pytest.Subtests
) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for what, (body, status) in REFUSED.items():
        with subtests.test(what):
            answer = client.post("/api/v1/events", data=body(), headers=headers)
            assert answer.status_code == status, answer.text
            assert answer.content_type == "application/problem+json"
            assert len(answer.data) < 2_000, "what was sent is not said back at length"
            with app.app_context():
                assert [sql(f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)
            assert not peer.conversations


@pytest.mark.slow
@pytest.mark.parametrize("what", REPAIRED)
def test_an_event_with_a_detail_beyond_bounds_is_recorded_within_them(
    app: Flask, client: FlaskClient, key: str, working_tenant: str, peer: SmtpPeer, what: str
) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = client.post("/api/v1/events", data=REPAIRED[what](), headers=headers)
    assert answer.status_code == 200, answer.text
    assert len(answer.data) < 4_000, "what was sent is not said back at length"
    with app.app_context():
        assert sql("SELECT count(*), max(length(data::text || external_id)) < 2000 FROM events") == [(1, True)]
    for message in peer.messages:
        head = message.content.partition(b"\r\n\r\n")[0].lower()
        assert b"\r\nbcc:" not in head
        assert head.count(b"\r\nto:") == 1
        assert b"evil.example" not in b" ".join(
            line for line in head.split(b"\r\n") if not line.startswith(b"subject:")
        )


def test_10_000_recipients_are_refused_and_the_saved_ones_stay(
    app: Flask, admin: FlaskClient, working_tenant: str
) -> None:
    many = "\n".join(f"a{number}@acme.example" for number in range(10_000))
    page = f"/tenants/{working_tenant}/mail-server"
    answer = fill_in(admin, page, recipients=many)
    assert answer.status_code == 422
    with app.app_context():
        assert sql("SELECT count(*) FROM recipients") == [(2,)]


def test_a_form_of_2_mb_or_of_5_000_fields_is_413(admin: FlaskClient, working_tenant: str) -> None:
    for path in ("/sign-in", "/tenants/acme.example/mail-server", "/tenants/acme.example/keys"):
        assert admin.post(path, data={"x": "x" * 2_000_000}).status_code == 413, path
        assert admin.post(path, data={f"x{number}": "x" * 300 for number in range(5_000)}).status_code == 413, path


NAMES = {
    "name": "/system/tenants/new",
    "sender_name": "/tenants/acme.example/appearance",
    "username": "/system/mail-server",
}


def test_names_in_forms_are_bounded(app: Flask, system: FlaskClient, acme: str) -> None:
    for (name, page), text in product(NAMES.items(), ("a\r\nBcc: thief@evil.example", "a\0b", "x" * 10_000)):
        values: dict[str, Any] = {name: text, "domain": "new.example", "time_zone": "UTC"}
        answer = fill_in(system, page, **values)
        assert answer.status_code == 422, (name, text[:30])
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
