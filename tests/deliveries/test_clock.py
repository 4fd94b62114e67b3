"""A host whose clock is two hours slow or fast: no email is sent twice, and nothing expires early or late."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.database.scope import enter_scope
from portal.deliveries import actions, digest
from portal.deliveries.models import Delivery
from portal.events import parsing
from portal.extensions import db
from portal.mail_servers.smtp.pool import Pool
from portal.pbx import api_keys
from portal.pbx.api_keys import IssuedKey
from portal.tenants import service as tenant_service
from tests.conftest import SignIn
from tests.deliveries.test_welcome import USER, qr_address, read
from tests.due_emails import send_due_emails
from tests.signing import post_body, signature_headers, signed_key
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post
from tests.wrong_clock import set_host_clock

__all__ = ["signed_key"]

HOURS = (-2, 2)


@pytest.fixture(params=HOURS, autouse=True)
def wrong(request: pytest.FixtureRequest, working_tenant: str, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """The error of the host's clock."""
    error = timedelta(hours=request.param)
    set_host_clock(monkeypatch, error)
    return error


def seconds(app: Flask, column: str, table: str = "deliveries") -> float:
    """Return how many seconds from the database's now the time in the only row is."""
    with app.app_context():
        ((value,),) = sql(f"SELECT extract(epoch FROM {column} - clock_timestamp()) FROM {table}")
    return float(value)


def due(app: Flask) -> int:
    """Send what is due, and return how many emails."""
    with app.app_context():
        return send_due_emails()


def test_the_host_is_wrong(wrong: timedelta) -> None:
    host: datetime = vars(parsing)["datetime"].now(UTC)
    assert abs(host - datetime.now(UTC) - wrong) < timedelta(seconds=1)


def test_a_deferred_email_is_tried_again_after_a_minute(app: Flask, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    peer.script = {}
    assert 45 < seconds(app, "next_attempt_at") < 75
    assert -5 < seconds(app, "last_attempt_at") < 5
    assert due(app) == 0
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
    assert due(app) == 1
    assert len(peer.messages) == 1


@pytest.mark.parametrize("by_worker", [False, True])
def test_an_email_in_progress_is_left_alone_by_other_hosts(
    app: Flask, post: Post, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch, by_worker: bool
) -> None:
    send, found = Pool.send, []

    def look_meanwhile(*arguments: Any) -> Any:
        found.append((due(app), seconds(app, "lease_until") > 120))
        return send(*arguments)

    if by_worker:
        peer.script = {"dot": "451 4.3.0 later"}
        post()
        peer.script = {}
        with app.app_context():
            sql("UPDATE deliveries SET next_attempt_at = now()")
    monkeypatch.setattr(Pool, "send", look_meanwhile)
    if by_worker:
        assert due(app) == 1
    else:
        assert post().json["status"] == "sent"
    assert found == [(0, True)]
    assert len(peer.messages) == 1


def test_a_lease_that_has_ended_is_taken_over(app: Flask, post: Post, peer: SmtpPeer) -> None:
    post()
    with app.app_context():
        sql("UPDATE delivery_recipients SET status = 'pending'")
        sql("UPDATE deliveries SET status = 'pending', lease_until = now()")
    assert due(app) == 1
    assert len(peer.messages) == 2


def test_an_email_expires_after_a_day(app: Flask, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    assert abs(seconds(app, "expires_at") - 24 * 3600) < 10


def test_a_pause_lasts_a_minute(app: Flask, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"greeting": "421 4.3.2 closing"}
    post()
    peer.script = {}
    assert 50 < seconds(app, "paused_until", "mail_servers") < 61
    assert post(id="second").json["status"] == "deferred"
    assert len(peer.conversations) == 1, "it is paused"
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() - interval '1 second'")
    assert post(id="third").json["status"] == "sent"


def test_an_event_without_a_time_happens_now(app: Flask, post: Post) -> None:
    post()
    assert -5 < seconds(app, "occurred_at", "events") < 5


@pytest.mark.parametrize(("seconds_ago", "status"), [(0, 200), (280, 200), (320, 401)])
def test_the_time_of_a_signature_is_compared_with_the_databases(
    app: Flask, client: FlaskClient, signed_key: IssuedKey, wrong: timedelta, seconds_ago: int, status: int
) -> None:
    headers = signature_headers(signed_key.signing_secret, seconds_ago=seconds_ago + wrong.total_seconds())
    assert post_body(client, signed_key.secret, headers).status_code == status


def test_an_email_that_is_sent_again_is_due_at_once(app: Flask, post: Post, peer: SmtpPeer) -> None:
    post()
    with app.app_context():
        enter_scope(1)
        actions.send_again(db.session.scalars(select(Delivery.id)).one())
    assert due(app) == 1
    assert len(peer.messages) == 2


def test_a_digest_is_due_at_once(app: Flask, post: Post, peer: SmtpPeer) -> None:
    for _ in range(11):
        post()
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        sql("UPDATE events SET received_at = received_at - interval '5 minutes'")
        assert [digest.write_digest(*storm) for storm in digest.ended_storms()] == [True]
    assert due(app) == 1
    assert len(peer.messages) == 11


@pytest.mark.parametrize(("minutes", "status"), [(1, 200), (-1, 410)])
def test_the_address_in_a_qr_code_lasts_as_long_as_its_email(
    app: Flask, client: FlaskClient, post: Post, peer: SmtpPeer, minutes: int, status: int
) -> None:
    post("user.created", USER)
    address = qr_address(read(peer.messages[0].content)).removeprefix("http://portal.test")
    with app.app_context():
        lifetime = "extract(epoch FROM max(expires_at) - now()) / 3600"
        assert abs(float(sql(f"SELECT {lifetime} FROM provisioning_tokens")[0][0]) - 72) < 0.1
        sql("UPDATE provisioning_tokens SET expires_at = now() + interval '1 minute' * :minutes", minutes=minutes)
    assert client.get(address).status_code == status


def test_a_replaced_key_is_valid_for_the_overlap(app: Flask, working_tenant: str) -> None:
    with app.app_context():
        enter_scope(1)
        tenant = tenant_service.find(working_tenant)
        key = api_keys.issue(tenant).row
        api_keys.rotate(tenant, key, timedelta(minutes=1))
        left = "SELECT extract(epoch FROM expires_at - now()) FROM api_keys WHERE id = :id"
        assert 50 < sql(left, id=key.id)[0][0] < 61
        assert key.is_valid
        sql("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = :id", id=key.id)
        db.session.refresh(key)
        assert not key.is_valid


def test_a_recipients_pause_ends_in_time(app: Flask, post: Post, peer: SmtpPeer) -> None:
    pause = "UPDATE recipients SET paused_until = now() + interval '1 minute' * :minutes WHERE email = :email"
    for minutes, expected in ((1, PEOPLE[1:]), (-1, PEOPLE)):
        with app.app_context():
            sql(pause, minutes=minutes, email=PEOPLE[0])
        post()
        assert peer.messages[-1].recipients == expected


def test_a_session_is_neither_shorter_nor_longer(app: Flask, sign_in: SignIn) -> None:
    browser = sign_in("boss@acme.example", administers="acme.example")
    page = "/tenants/acme.example/recipients"
    for minutes, status in ((1, 200), (-1, 302)):
        with app.app_context():
            sql("UPDATE account_sessions SET expires_at = now() + interval '1 minute' * :minutes", minutes=minutes)
        assert browser.get(page).status_code == status
