"""Signed calls: what was stolen, replayed, changed or made up is refused, and nothing goes around the signature."""

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
from portal.database import enter_scope
from portal.errors import Refusal
from portal.pbx import keys, signatures
from portal.pbx.keys import IssuedKey
from portal.pbx.models import opened, sealed
from portal.pbx.reasons import Reason
from portal.tenants import directory
from tests.meanwhile import meanwhile
from tests.noted import Statements, statements
from tests.ready import Post, key, peer, post, ready
from tests.signed import BODY, call, signed, stamp
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

__all__ = ["key", "peer", "post", "ready", "signed", "statements"]

OTHER = "whsec_" + base64.b64encode(b"somebody else's, of 32 bytes too").decode()
Headers = dict[str, str]


def test_a_signed_call_is_accepted_and_a_stolen_key_alone_is_not(
    client: FlaskClient, signed: IssuedKey, peer: SmtpPeer
) -> None:
    assert call(client, signed.secret, stamp(signed.signing_secret)).json["status"] == "sent"
    answer = call(client, signed.secret, {})
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert "requires a signature" in answer.json["detail"]
    assert len(peer.mails) == 1


def without(name: str) -> Callable[[Headers], Headers]:
    return lambda headers: {key: value for key, value in headers.items() if key != name}


def with_(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: headers | {name: value}


@pytest.mark.parametrize(
    ("change", "says"),
    [
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
    ],
)
def test_headers_that_are_left_out_or_made_up_are_refused(
    client: FlaskClient, signed: IssuedKey, peer: SmtpPeer, change: Callable[[Headers], Headers], says: str
) -> None:
    answer = call(client, signed.secret, change(stamp(signed.signing_secret)))
    assert answer.status_code == 401
    assert says in answer.json["detail"]
    assert not peer.mails


@pytest.mark.parametrize("secret", [OTHER, "whsec_AA==", "whsec_" + base64.b64encode(bytes(32)).decode()])
def test_another_secret_is_refused(client: FlaskClient, signed: IssuedKey, secret: str) -> None:
    assert call(client, signed.secret, stamp(secret)).status_code == 401


def test_the_key_does_not_sign_for_the_secret(client: FlaskClient, signed: IssuedKey) -> None:
    for guess in (signed.secret, signed.secret.removeprefix("pbx_")):
        forged = "whsec_" + base64.b64encode(guess.encode()).decode()
        assert call(client, signed.secret, stamp(forged)).status_code == 401


@pytest.mark.parametrize("body", [BODY + " ", " " + BODY, BODY.replace("90", "91"), BODY.replace(", ", ","), ""])
def test_each_byte_of_the_body_counts(client: FlaskClient, signed: IssuedKey, body: str) -> None:
    assert call(client, signed.secret, stamp(signed.signing_secret), body).status_code == 401


def test_a_body_that_is_no_text_is_refused(client: FlaskClient, signed: IssuedKey) -> None:
    assert call(client, signed.secret, stamp(signed.signing_secret), b"\xff\xfe").status_code == 401


def test_a_body_is_signed_as_it_was_written(client: FlaskClient, signed: IssuedKey) -> None:
    body = "\ufeff" + BODY.replace(", ", " ,\r\n\t").replace("+44", "\\u002b44") + "\n"
    assert call(client, signed.secret, stamp(signed.signing_secret, body), body.encode()).json["status"] == "sent"


@pytest.mark.parametrize(("ago", "status"), [(290, 200), (-290, 200), (310, 401), (-310, 401), (86_400, 401)])
def test_what_was_recorded_is_refused_after_five_minutes(
    client: FlaskClient, signed: IssuedKey, ago: float, status: int
) -> None:
    answer = call(client, signed.secret, stamp(signed.signing_secret, ago=ago))
    assert answer.status_code == status
    assert status == 200 or "is late" in answer.json["detail"]


def test_a_replay_within_the_window_is_a_repeat(client: FlaskClient, signed: IssuedKey, peer: SmtpPeer) -> None:
    headers = stamp(signed.signing_secret)
    first, *replays = (call(client, signed.secret, headers) for _ in range(3))
    assert (first.json["id"], first.json["duplicate"]) == ("msg_1", False)
    assert all(replay.json["duplicate"] for replay in replays)
    assert len(peer.mails) == 1


def test_an_events_own_id_wins(client: FlaskClient, signed: IssuedKey, peer: SmtpPeer) -> None:
    body = BODY.replace("{", '{"id": "one", ', 1)
    for message in ("msg_1", "msg_2"):
        answer = call(client, signed.secret, stamp(signed.signing_secret, body, message=message), body)
        assert answer.json["id"] == "one"
    assert len(peer.mails) == 1


def test_without_a_required_signature_the_id_of_a_message_means_nothing(
    post: Post, client: FlaskClient, key: str
) -> None:
    answers = [call(client, key, {"webhook-id": "msg_1"}) for _ in range(2)]
    assert [answer.json.get("duplicate") for answer in answers] == [False, False]
    assert "msg_1" not in {answer.json["id"] for answer in answers}


def test_a_recorded_call_cannot_be_cut_in_another_place(client: FlaskClient, signed: IssuedKey) -> None:
    """Who may choose a piece of a signed body must not get another body out of it."""
    inner, now = BODY.replace("8000", "666"), int(time.time())
    outer = f'{{"type": "queue.call_lost", "x": ".{now}.{inner}"}}'
    headers = stamp(signed.signing_secret, outer)
    start = outer.partition(f".{now}.")[0]
    moved = headers | {"webhook-id": f"msg_1.{headers['webhook-timestamp']}.{start}", "webhook-timestamp": str(now)}
    body = f'{inner}"}}'
    assert f"{moved['webhook-id']}.{now}.{body}" == f"msg_1.{headers['webhook-timestamp']}.{outer}"
    assert Webhook(signed.signing_secret).verify(body, moved, json_parse=False) is None, "the library takes it"
    answer = call(client, signed.secret, moved, body)
    assert answer.status_code == 401
    assert "is wrong" in answer.json["detail"]


def test_basic_authentication_is_no_way_around(client: FlaskClient, signed: IssuedKey) -> None:
    credentials = base64.b64encode(f"pbx:{signed.secret}".encode()).decode()
    given = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    assert client.post("/api/v1/events", data=BODY, headers=given).status_code == 401
    headers = given | stamp(signed.signing_secret)
    assert client.post("/api/v1/events", data=BODY, headers=headers).status_code == 200


def test_a_signature_alone_opens_nothing(client: FlaskClient, signed: IssuedKey) -> None:
    headers = stamp(signed.signing_secret) | {"Content-Type": "application/json"}
    assert client.post("/api/v1/events", data=BODY, headers=headers).status_code == 401
    assert call(client, signed.signing_secret, headers).status_code == 401


def test_the_secret_of_another_key_is_none_of_this_one(
    app: Flask, client: FlaskClient, signed: IssuedKey, ready: str
) -> None:
    with app.app_context():
        other = keys.issue(directory.find(ready), "Other", signed=True)
    assert call(client, signed.secret, stamp(other.signing_secret)).status_code == 401
    assert call(client, other.secret, stamp(signed.signing_secret)).status_code == 401


def renewed(app: Flask, key: IssuedKey) -> IssuedKey:
    with app.app_context():
        issued = keys.renew_secret(key.row, timedelta(hours=1))
        assert isinstance(issued, IssuedKey)
        return issued


def test_two_secrets_count_during_a_rotation_and_one_after_it(
    app: Flask, client: FlaskClient, signed: IssuedKey
) -> None:
    second = renewed(app, signed).signing_secret
    both = stamp(OTHER, message="both")
    both["webhook-signature"] += " " + stamp(second, message="both")["webhook-signature"]
    for headers in (stamp(signed.signing_secret, message="first"), stamp(second, message="second"), both):
        assert call(client, signed.secret, headers).status_code == 200
    with app.app_context():
        sql("UPDATE pbx_keys SET previous_secret_until = now() - interval '1 second'")
    assert call(client, signed.secret, stamp(signed.signing_secret)).status_code == 401
    assert call(client, signed.secret, stamp(second)).status_code == 200


def test_a_third_secret_ends_the_first(app: Flask, client: FlaskClient, signed: IssuedKey) -> None:
    second, third = renewed(app, signed).signing_secret, renewed(app, signed).signing_secret
    statuses = [
        call(client, signed.secret, stamp(each, message=f"msg_{number}")).status_code
        for number, each in enumerate((signed.signing_secret, second, third))
    ]
    assert statuses == [401, 200, 200]


def test_of_two_new_secrets_at_once_both_count(app: Flask, client: FlaskClient, signed: IssuedKey) -> None:
    def renew() -> IssuedKey | Refusal:
        tenant = directory.find("acme.example")
        assert tenant is not None
        enter_scope(tenant.id)
        key = keys.one_of_owner(tenant, 1)
        assert key is not None
        return keys.renew_secret(key, timedelta(hours=1))

    with app.app_context():
        enter_scope(1)
        key = keys.one_of_owner(directory.find("acme.example"), 1)
        assert key is not None
        with meanwhile(app, renew) as other:
            first, second = keys.renew_secret(key, timedelta(hours=1)), other.result()
    for number, each in enumerate((first, second)):
        assert isinstance(each, IssuedKey)
        assert call(client, signed.secret, stamp(each.signing_secret, message=f"msg_{number}")).status_code == 200


def test_one_broken_signature_among_several_spoils_no_good_one(client: FlaskClient, signed: IssuedKey) -> None:
    for number, broken in enumerate(("zzz", "v1,A", "", "v1,é", "v2,AAAA")):
        headers = stamp(signed.signing_secret, message=f"msg_{number}")
        headers["webhook-signature"] = f"{broken} {headers['webhook-signature']}"
        assert call(client, signed.secret, headers).status_code == 200


def test_the_successor_of_a_key_requires_a_signature_too(app: Flask, client: FlaskClient, signed: IssuedKey) -> None:
    with app.app_context():
        successor = keys.rotate(None, signed.row, timedelta(hours=1))
    assert isinstance(successor, IssuedKey)
    assert call(client, successor.secret, {}).status_code == 401
    assert call(client, successor.secret, stamp(signed.signing_secret)).status_code == 200


def test_who_stole_the_key_alone_does_not_use_up_its_rate(app: Flask, client: FlaskClient, signed: IssuedKey) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "1 per 3 hours"})
    try:
        statuses = [call(client, signed.secret, {}).status_code for _ in range(5)]
        assert [*statuses, call(client, signed.secret, stamp(signed.signing_secret)).status_code] == [401] * 5 + [200]
    finally:
        app.extensions["settings"] = settings


def test_a_secret_is_bound_to_its_tenant(context: Flask) -> None:
    for owner, other in ((1, 2), (1, None), (None, 1)):
        assert opened(sealed("whsec_AA==", owner), owner) == "whsec_AA=="
        with pytest.raises(UnreadableSecret):
            opened(sealed("whsec_AA==", owner), other)


def test_it_costs_no_statement(client: FlaskClient, signed: IssuedKey, post: Post, statements: Statements) -> None:
    def cost(act: Callable[[], Any]) -> int:
        statements.clear()
        assert act().json["status"] == "sent"
        return len(statements)

    post()
    call(client, signed.secret, stamp(signed.signing_secret, message="first"))  # which notes the use of the key
    plain = cost(post)
    assert cost(lambda: call(client, signed.secret, stamp(signed.signing_secret, message="second"))) == plain == 3


def test_secrets_compare_in_constant_time_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    headers = stamp(OTHER)
    given = signatures.Stamp(headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"])
    assert signatures.fault(BODY.encode(), given, [signatures.new_secret()]) is Reason.WRONG_SIGNATURE
    assert signatures.fault(BODY.encode(), given, [OTHER]) is None
    assert len(compared) == 2
