"""Keys that are guessed, invalid or someone else's, and floods of rejected requests: none of them has an effect."""

import base64
from datetime import date, timedelta
from itertools import product

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.crypto import hash_token
from portal.database.scope import every_tenant
from portal.deliveries import retention
from portal.extensions import db
from portal.pbx import api_keys, rejections
from portal.pbx.api_keys import IssuedKey
from portal.pbx.models import RejectedRequest
from portal.tenants import service as tenant_service
from tests.conftest import SignIn
from tests.pages import csrf_token
from tests.pages import post as submit
from tests.signing import post_body, signed_key
from tests.sql import sql
from tests.tenant_fixtures import Post, key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "signed_key", "system_key", "working_tenant"]

CANARY = "planted-s3cret"


def rejected() -> list[RejectedRequest]:
    with every_tenant():
        return list(db.session.scalars(select(RejectedRequest).order_by(RejectedRequest.id)))


def page(browser: FlaskClient, path: str) -> str:
    return browser.get(path).get_data(as_text=True)


def test_guesses_are_rejected(app: Flask, client: FlaskClient, key: str, working_tenant: str) -> None:
    with app.app_context():
        ((row, _),) = api_keys.list_all()
    guesses = [key[:-1], key + "A", key[:-1] + "~", key.swapcase(), key.removeprefix("pbx_"), row.prefix]
    guesses += [
        hash_token(key).hex(),
        base64.b64encode(row.key_hash).decode(),
        "' OR true --",
        "%",
        "\\x00",
        "é",
        "x" * 9000,
    ]
    for guess in guesses:
        assert post_body(client, guess, {}).status_code == 401, guess


def test_unknown_expired_and_revoked_keys_get_the_same_response_to_any_body(
    app: Flask, client: FlaskClient, working_tenant: str
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        expired, revoked = api_keys.issue(tenant), api_keys.issue(tenant)
        api_keys.revoke(revoked.row)
        sql("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = :id", id=expired.row.id)
    for content in ("", "x" * 70_000, '{"type": "queue.call_lost"}'):
        for media_type in ("application/json", "text/plain"):
            responses = [
                post_body(client, secret, {"Content-Type": media_type}, content)
                for secret in ("pbx_nobodys", expired.secret, revoked.secret)
            ]
            assert {response.status_code for response in responses} == {401}
            assert responses[0].json == responses[1].json == responses[2].json
            assert len({tuple(response.headers) for response in responses}) == 1


def test_a_key_is_valid_until_the_end_of_its_expiry_date(app: Flask, working_tenant: str) -> None:
    with app.app_context():
        issued = api_keys.issue(
            tenant_service.find(working_tenant), expires_on=date(2030, 7, 1)
        )  # in Europe/Berlin, two hours before UTC
        ((end,),) = sql("SELECT expires_at AT TIME ZONE 'UTC' FROM api_keys WHERE id = :id", id=issued.row.id)
    assert end.isoformat(timespec="seconds") == "2030-07-01T21:59:59"


def test_rotation_leaves_no_gap_and_ends(app: Flask, client: FlaskClient, key: str, working_tenant: str) -> None:
    with app.app_context():
        ((row, owner),) = api_keys.list_all()
        successor = api_keys.rotate(owner, row, timedelta(hours=24))
        assert isinstance(successor, IssuedKey)
        assert successor.row.name == row.name
    assert [post_body(client, secret, {}).status_code for secret in (key, successor.secret)] == [200, 200]
    with app.app_context():
        sql("UPDATE api_keys SET expires_at = expires_at - interval '24 hours'")
    assert [post_body(client, secret, {}).status_code for secret in (key, successor.secret)] == [401, 200]


def test_rotation_never_extends_a_key(app: Flask, key: str, working_tenant: str) -> None:
    with app.app_context():
        ((row, owner),) = api_keys.list_all()
        assert isinstance(api_keys.rotate(owner, row, timedelta(hours=1)), IssuedKey)
        soon = row.expires_at
        assert isinstance(api_keys.rotate(owner, row, timedelta(days=30)), IssuedKey)
        assert row.expires_at == soon
        api_keys.revoke(row)
        assert api_keys.rotate(owner, row, timedelta(hours=1)) is api_keys.KEY_NOT_VALID
        assert api_keys.renew_secret(row, timedelta(hours=1)) is api_keys.KEY_NOT_VALID


def test_nobody_can_change_the_keys_of_others(
    app: Flask, admin: FlaskClient, system: FlaskClient, sign_in: SignIn, signed_key: IssuedKey, globex: str
) -> None:
    with app.app_context():
        of_system = api_keys.issue(None, "System", signed=True).row.id
        before = sql("SELECT * FROM api_keys ORDER BY id")
    other = sign_in("admin@globex.example", administers=globex)
    theirs, of_acme, systems = f"/tenants/{globex}/keys", "/tenants/acme.example/keys", "/system/keys"
    for browser, form, *targets in (
        (other, theirs, f"{theirs}/{signed_key.row.id}", f"{of_acme}/{signed_key.row.id}", f"{systems}/{of_system}"),
        (admin, of_acme, f"{of_acme}/{of_system}", f"{systems}/{of_system}"),
        (system, systems, f"{systems}/{signed_key.row.id}", f"{systems}/{2**31}"),
    ):
        data = {"csrf_token": csrf_token(page(browser, form)), "hours": "24"}
        for target, action in product(targets, ("rotate", "secret", "revoke")):
            assert browser.post(f"{target}/{action}", data=data).status_code == 404, (target, action)
    assert admin.get(systems).status_code == 404
    with app.app_context():
        assert sql("SELECT * FROM api_keys ORDER BY id") == before


def test_the_database_holds_no_secret_in_clear_text(app: Flask, signed_key: IssuedKey, key: str) -> None:
    with app.app_context():
        dump = repr(sql("SELECT *, api_keys::text FROM api_keys")).encode()
    for secret in (key, signed_key.secret, signed_key.signing_secret):
        raw = base64.b64decode(signed_key.signing_secret.removeprefix("whsec_"))
        for form in (secret.encode(), secret.encode().hex().encode(), raw.hex().encode(), secret[12:].encode()):
            assert form not in dump


def test_a_rejected_request_stores_nothing_secret(
    app: Flask, client: FlaskClient, admin: FlaskClient, system: FlaskClient, key: str, signed_key: IssuedKey
) -> None:
    data = {"extension_password": [CANARY], "email": CANARY, "udp_port": CANARY}
    bodies = [
        '{"type": "user.created", "data": ' + repr(data).replace("'", '"') + ', "id": "one", "time": "planted-s3cret"}',
        '{"type": "planted-s3cret", "data": {"planted-s3cret": 1}, "tenant": "planted-s3cret b"}',
        '{"planted-s3cret": 1, "planted-s3cret": 2}',
        "planted-s3cret",
        '{"type": "queue.call_lost", "tenant": "planted.example", "data": {"queue_number": "1", "caller_number": "1"}}',
    ]
    headers = {"webhook-id": CANARY, "webhook-timestamp": "1", "webhook-signature": CANARY, "User-Agent": CANARY}
    for body in bodies:
        for secret in (key, signed_key.secret, f"pbx_{CANARY}", CANARY):
            assert post_body(client, secret, headers, body).status_code in {400, 401, 403, 422}
    ids = '{"type": "queue.call_lost", "id": "planted-s3cret", "data": {"queue_number": "%s", "caller_number": "1"}}'
    assert [post_body(client, key, {}, ids % queue).status_code for queue in (1, 2)] == [200, 409]
    with app.app_context():
        rows = repr(sql("SELECT rejected_requests::text FROM rejected_requests"))
    assert rows.count("conflict") == 1
    for shown in (rows, page(admin, "/tenants/acme.example/keys"), page(system, "/system/keys")):
        assert CANARY not in shown
        assert "planted" not in shown
        assert key not in shown
        assert signed_key.secret not in shown


def test_rejected_requests_are_shown_only_to_the_keys_owner(
    client: FlaskClient,
    admin: FlaskClient,
    system: FlaskClient,
    sign_in: SignIn,
    key: str,
    system_key: str,
    globex: str,
    working_tenant: str,
) -> None:
    other = sign_in("admin@globex.example", administers=globex)
    post_body(client, key, {}, '{"type": "queue.call_lost", "tenant": "globex.example", "data": {}}')
    post_body(client, key, {"Content-Type": "text/plain"})
    post_body(client, system_key, {})
    post_body(client, "pbx_nobodys", {})
    own, theirs, systems = (
        page(admin, f"/tenants/{working_tenant}/keys"),
        page(other, f"/tenants/{globex}/keys"),
        page(system, "/system/keys"),
    )
    assert ("Wrong media type" in own, "Wrong media type" in theirs, "Wrong media type" in systems) == (
        True,
        False,
        False,
    )
    assert ("Unknown key" in own, "Unknown key" in theirs, "Unknown key" in systems) == (False, False, True)
    assert "None in the last 7 days" in theirs
    assert "A system key must name the tenant" in systems
    assert "A system key must name the tenant" not in own


def test_a_flood_is_counted_and_rarely_written(
    app: Flask, client: FlaskClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "_counter", rejections.RejectionCounter("3 per hour", "5 per hour"))
    for number in range(20):
        post_body(client, f"pbx_{number}", {}, "x")
        post_body(client, key, {}, "x")
    with app.app_context():
        assert sum(row.count for row in rejected()) == 5
    monkeypatch.setattr(rejections, "_counter", rejections.RejectionCounter("3 per hour", "5 per hour"))
    for number in range(20):
        post_body(client, f"pbx_{number}", {}, "x")
    with app.app_context():
        assert sum(row.count for row in rejected()) == 5 + 3, "unknown keys share the limit of one key"


def test_requests_beyond_the_limit_are_counted_with_the_next_one() -> None:
    counter = rejections.RejectionCounter("2 per second", "100 per second")
    group = rejections.RejectionGroup(1, 1, "invalid", None)
    counts: list[int] = []
    while sum(counts) < 10 or not counts[-1]:
        counts.append(counter.count(group))
    assert sum(counts) == len(counts)
    assert 0 in counts


def test_ever_new_errors_do_not_fill_the_disk(app: Flask, client: FlaskClient, key: str) -> None:
    for number in range(40):
        post_body(client, key, {}, '{"type": "queue.call_lost", "data": {}, "id": "%s"}' % ("x" * (200 + number)))
        post_body(client, key, {}, " " * number + "x")
        post_body(client, f"pbx_{number}", {"webhook-id": str(number)}, "x")
    with app.app_context():
        assert [(row.reason, row.count) for row in rejected()] == [
            ("invalid", 40),
            ("malformed", 40),
            ("unknown_key", 40),
        ]
        assert all(len(row.detail or "") <= rejections.MAX_DETAIL_LENGTH for row in rejected())


def test_rejections_are_deleted_after_a_week(
    app: Flask, client: FlaskClient, admin: FlaskClient, post: Post, working_tenant: str
) -> None:
    post("queue.call_lost", {})
    with app.app_context():
        sql("UPDATE rejected_requests SET hour = hour - interval '6 days 22 hours'")
        retention.delete_old_data()
        assert len(rejected()) == 1
        sql(
            "UPDATE rejected_requests SET hour = hour - interval '3 hours',"
            " last_request_at = last_request_at - interval '8 days'"
        )
        assert "Wrong fields" not in page(admin, f"/tenants/{working_tenant}/keys")
        retention.delete_old_data()
        assert not rejected()


def test_a_new_key_is_not_cached_by_the_browser(admin: FlaskClient, acme: str) -> None:
    response = submit(admin, f"/tenants/{acme}/keys", name="Main PBX", signed="y")
    assert "whsec_" in response.get_data(as_text=True)
    assert response.cache_control.no_store
    again = page(admin, f"/tenants/{acme}/keys")
    assert "whsec_" not in again
