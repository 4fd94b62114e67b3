"""Signed requests: stolen, replayed, changed and forged ones are rejected, and nothing bypasses the signature."""

import base64
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook

from portal.crypto import UnreadableSecret
from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.pbx import api_keys, signatures
from portal.pbx.api_keys import IssuedKey
from portal.pbx.models import decrypt_signing_secret, encrypt_signing_secret
from portal.pbx.rejection_reasons import RejectionReason
from portal.tenants import service as tenant_service
from tests.concurrency import blocked_until_done
from tests.signing import BODY, post_body, signature_headers, signed_key
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import Answer, Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "signed_key", "statements", "working_tenant"]

OTHER_SECRET = "whsec_" + base64.b64encode(b"somebody else's, of 32 bytes too").decode()
Headers = dict[str, str]


def post_signed(client: FlaskClient, key: IssuedKey, body: str = BODY, **options: Any) -> Answer:
    """Post the body with the key, signed with its secret."""
    return post_body(client, key.secret, signature_headers(key.signing_secret, body, **options), body.encode())


def test_a_signed_request_is_accepted_and_a_stolen_key_alone_is_not(
    client: FlaskClient, signed_key: IssuedKey, peer: SmtpPeer
) -> None:
    assert post_signed(client, signed_key).json["status"] == "sent"
    response = post_body(client, signed_key.secret, {})
    assert (response.status_code, response.content_type) == (401, "application/problem+json")
    assert "requires a signature" in response.json["detail"]
    assert len(peer.messages) == 1


def without(name: str) -> Callable[[Headers], Headers]:
    return lambda headers: {key: value for key, value in headers.items() if key != name}


def with_(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: headers | {name: value}


FORGED: list[tuple[Callable[[Headers], Headers], str]] = [
    (without("webhook-id"), "requires a signature"),
    (without("webhook-timestamp"), "requires a signature"),
    (without("webhook-signature"), "requires a signature"),
    (with_("webhook-signature", ""), "requires a signature"),
    (with_("webhook-id", "msg_2"), "is wrong"),
    (with_("webhook-id", "msg_1 "), "is wrong"),
    (with_("webhook-id", "x" * 201), "is wrong"),
    (lambda headers: headers | {"webhook-timestamp": str(int(time.time()) - 7)}, "is wrong"),
    (with_("webhook-timestamp", "nan"), "is wrong"),
    (with_("webhook-timestamp", "1e9"), "is wrong"),
    (with_("webhook-timestamp", "-1"), "is wrong"),
    (with_("webhook-timestamp", "9" * 11), "is late"),
    (with_("webhook-signature", "v1"), "is wrong"),
    (with_("webhook-signature", "v1,"), "is wrong"),
    (with_("webhook-signature", "v1,###"), "is wrong"),
    (with_("webhook-signature", "v1,é"), "is wrong"),
    (with_("webhook-signature", " ".join(["v1," + "A" * 43 + "="] * 40)), "is wrong"),
    (lambda headers: headers | {"webhook-signature": headers["webhook-signature"].replace("v1", "v2")}, "is wrong"),
    (lambda headers: headers | {"webhook-signature": headers["webhook-signature"][3:]}, "is wrong"),
]


def test_missing_and_forged_headers_are_rejected(
    client: FlaskClient, signed_key: IssuedKey, peer: SmtpPeer, subtests: pytest.Subtests
) -> None:
    for change, detail in FORGED:
        headers = change(signature_headers(signed_key.signing_secret))
        with subtests.test(detail, headers=headers):
            response = post_body(client, signed_key.secret, headers)
            assert response.status_code == 401
            assert detail in response.json["detail"]
            assert not peer.messages


def test_another_secret_is_rejected_even_if_it_is_the_key(client: FlaskClient, signed_key: IssuedKey) -> None:
    keys = signed_key.secret.encode(), signed_key.secret.removeprefix("pbx_").encode()
    made = ["whsec_" + base64.b64encode(guess).decode() for guess in (bytes(32), *keys)]
    for secret in (OTHER_SECRET, "whsec_AA==", *made):
        assert post_body(client, signed_key.secret, signature_headers(secret)).status_code == 401, secret


def test_each_byte_of_the_body_counts(client: FlaskClient, signed_key: IssuedKey) -> None:
    headers = signature_headers(signed_key.signing_secret)
    others: list[str | bytes] = [
        BODY + " ",
        " " + BODY,
        BODY.replace("90", "91"),
        BODY.replace(", ", ","),
        "",
        b"\xff\xfe",
    ]
    for body in others:
        assert post_body(client, signed_key.secret, headers, body).status_code == 401, body


def test_the_body_is_signed_as_it_was_written(client: FlaskClient, signed_key: IssuedKey) -> None:
    body = "\ufeff" + BODY.replace(", ", " ,\r\n\t").replace("+44", "\\u002b44") + "\n"
    assert post_signed(client, signed_key, body).json["status"] == "sent"


def test_a_recorded_request_is_rejected_after_five_minutes(client: FlaskClient, signed_key: IssuedKey) -> None:
    for seconds_ago, status in ((290, 200), (-290, 200), (310, 401), (-310, 401), (86_400, 401)):
        response = post_signed(client, signed_key, seconds_ago=seconds_ago)
        assert response.status_code == status, seconds_ago
        assert status == 200 or "is late" in response.json["detail"]


def test_a_replay_within_five_minutes_is_a_repeat(client: FlaskClient, signed_key: IssuedKey, peer: SmtpPeer) -> None:
    headers = signature_headers(signed_key.signing_secret)
    first, *replays = (post_body(client, signed_key.secret, headers) for _ in range(3))
    assert (first.json["id"], first.json["duplicate"]) == ("msg_1", False)
    assert all(replay.json["duplicate"] for replay in replays)
    assert len(peer.messages) == 1


def test_an_events_own_id_takes_precedence(client: FlaskClient, signed_key: IssuedKey, peer: SmtpPeer) -> None:
    body = BODY.replace("{", '{"id": "one", ', 1)
    for message_id in ("msg_1", "msg_2"):
        assert post_signed(client, signed_key, body, message_id=message_id).json["id"] == "one"
    assert len(peer.messages) == 1


def test_without_a_required_signature_the_message_id_is_not_used(post: Post, client: FlaskClient, key: str) -> None:
    responses = [post_body(client, key, {"webhook-id": "msg_1"}) for _ in range(2)]
    assert [response.json.get("duplicate") for response in responses] == [False, False]
    assert "msg_1" not in {response.json["id"] for response in responses}


def test_a_recorded_request_cannot_be_split_in_another_place(client: FlaskClient, signed_key: IssuedKey) -> None:
    """Someone who can choose a piece of a signed body must not get another signed body out of it."""
    inner, now = BODY.replace("8000", "666"), int(time.time())
    outer = f'{{"type": "queue.call_lost", "x": ".{now}.{inner}"}}'
    headers = signature_headers(signed_key.signing_secret, outer)
    start = outer.partition(f".{now}.")[0]
    moved = headers | {"webhook-id": f"msg_1.{headers['webhook-timestamp']}.{start}", "webhook-timestamp": str(now)}
    body = f'{inner}"}}'
    assert f"{moved['webhook-id']}.{now}.{body}" == f"msg_1.{headers['webhook-timestamp']}.{outer}"
    assert Webhook(signed_key.signing_secret).verify(body, moved, json_parse=False) is None, "the library takes it"
    response = post_body(client, signed_key.secret, moved, body)
    assert response.status_code == 401
    assert "is wrong" in response.json["detail"]


def test_basic_authentication_does_not_bypass_the_signature(client: FlaskClient, signed_key: IssuedKey) -> None:
    credentials = base64.b64encode(f"pbx:{signed_key.secret}".encode()).decode()
    basic = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    assert client.post("/api/v1/events", data=BODY, headers=basic).status_code == 401
    headers = basic | signature_headers(signed_key.signing_secret)
    assert client.post("/api/v1/events", data=BODY, headers=headers).status_code == 200


def test_a_signature_without_the_key_is_rejected(client: FlaskClient, signed_key: IssuedKey) -> None:
    headers = signature_headers(signed_key.signing_secret) | {"Content-Type": "application/json"}
    assert client.post("/api/v1/events", data=BODY, headers=headers).status_code == 401
    assert post_body(client, signed_key.signing_secret, headers).status_code == 401


def test_the_secret_of_another_key_is_rejected(
    app: Flask, client: FlaskClient, signed_key: IssuedKey, working_tenant: str
) -> None:
    with app.app_context():
        other = api_keys.issue(tenant_service.find(working_tenant), "Other", signed=True)
    assert post_body(client, signed_key.secret, signature_headers(other.signing_secret)).status_code == 401
    assert post_body(client, other.secret, signature_headers(signed_key.signing_secret)).status_code == 401


def new_signing_secret(app: Flask, key: IssuedKey) -> str:
    with app.app_context():
        issued = api_keys.renew_secret(key.row, timedelta(hours=1))
        assert isinstance(issued, IssuedKey)
        return issued.signing_secret


def test_two_secrets_are_valid_during_a_rotation_and_one_after_it(
    app: Flask, client: FlaskClient, signed_key: IssuedKey
) -> None:
    first, second = signed_key.signing_secret, new_signing_secret(app, signed_key)
    both = signature_headers(OTHER_SECRET, message_id="both")
    both["webhook-signature"] += " " + signature_headers(second, message_id="both")["webhook-signature"]
    for headers in (signature_headers(first, message_id="first"), signature_headers(second, message_id="second"), both):
        assert post_body(client, signed_key.secret, headers).status_code == 200
    with app.app_context():
        sql("UPDATE api_keys SET previous_secret_expires_at = now() - interval '1 second'")
    assert post_body(client, signed_key.secret, signature_headers(first)).status_code == 401
    assert post_body(client, signed_key.secret, signature_headers(second)).status_code == 200


def test_a_third_secret_ends_the_first(app: Flask, client: FlaskClient, signed_key: IssuedKey) -> None:
    secrets = (signed_key.signing_secret, new_signing_secret(app, signed_key), new_signing_secret(app, signed_key))
    statuses = [
        post_body(client, signed_key.secret, signature_headers(secret, message_id=secret[-8:])).status_code
        for secret in secrets
    ]
    assert statuses == [401, 200, 200]


def test_two_secrets_made_at_the_same_time_are_both_valid(
    app: Flask, client: FlaskClient, signed_key: IssuedKey
) -> None:
    def renew() -> IssuedKey | Refusal:
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        key = api_keys.get_for_update(tenant, 1)
        assert key is not None
        return api_keys.renew_secret(key, timedelta(hours=1))

    with app.app_context():
        enter_scope(1)
        key = api_keys.get_for_update(tenant_service.find("acme.example"), 1)
        assert key is not None
        with blocked_until_done(app, renew) as other:
            issued = api_keys.renew_secret(key, timedelta(hours=1)), other.result()
    for number, new in enumerate(issued):
        assert isinstance(new, IssuedKey)
        headers = signature_headers(new.signing_secret, message_id=f"msg_{number}")
        assert post_body(client, signed_key.secret, headers).status_code == 200


def test_a_malformed_signature_does_not_spoil_a_good_one(client: FlaskClient, signed_key: IssuedKey) -> None:
    for number, malformed in enumerate(("zzz", "v1,A", "", "v1,é", "v2,AAAA")):
        headers = signature_headers(signed_key.signing_secret, message_id=f"msg_{number}")
        headers["webhook-signature"] = f"{malformed} {headers['webhook-signature']}"
        assert post_body(client, signed_key.secret, headers).status_code == 200


def test_the_successor_of_a_key_requires_a_signature_too(
    app: Flask, client: FlaskClient, signed_key: IssuedKey
) -> None:
    with app.app_context():
        successor = api_keys.rotate(None, signed_key.row, timedelta(hours=1))
    assert isinstance(successor, IssuedKey)
    assert post_body(client, successor.secret, {}).status_code == 401
    assert post_body(client, successor.secret, signature_headers(signed_key.signing_secret)).status_code == 200


def test_a_thief_of_the_key_alone_does_not_use_up_its_rate_limit(
    app: Flask, client: FlaskClient, signed_key: IssuedKey
) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "1 per 3 hours"})
    try:
        statuses = [post_body(client, signed_key.secret, {}).status_code for _ in range(5)]
        assert [*statuses, post_signed(client, signed_key).status_code] == [401] * 5 + [200]
    finally:
        app.extensions["settings"] = settings


def test_a_secret_is_bound_to_its_tenant(context: Flask) -> None:
    for owner, other in ((1, 2), (1, None), (None, 1)):
        encrypted = encrypt_signing_secret("whsec_AA==", owner)
        assert decrypt_signing_secret(encrypted, owner) == "whsec_AA=="
        with pytest.raises(UnreadableSecret):
            decrypt_signing_secret(encrypted, other)


def test_a_signature_costs_no_statement(
    client: FlaskClient, signed_key: IssuedKey, post: Post, statements: Statements
) -> None:
    def cost(act: Callable[[], Answer]) -> int:
        statements.clear()
        assert act().json["status"] == "sent"
        return len(statements)

    post()
    post_signed(client, signed_key, message_id="first")  # which records the use of the key
    unsigned = cost(post)
    assert cost(lambda: post_signed(client, signed_key, message_id="second")) == unsigned == 2


@pytest.mark.usefixtures("context")
def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    headers = signature_headers(OTHER_SECRET)
    wrong_secret = signatures.new_secret()
    assert signatures.check_signature(BODY.encode(), headers, [wrong_secret]) is RejectionReason.WRONG_SIGNATURE
    assert signatures.check_signature(BODY.encode(), headers, [OTHER_SECRET]) is None
    assert len(compared) == 2
