"""An attempt, and what is stored of it, when the database goes away or the mail server is busy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event, select

from portal.database import fast_sql
from portal.database.scope import every_tenant
from portal.deliveries import attempt
from portal.deliveries.models import Delivery
from portal.extensions import db
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.pool import Pool, PoolLimits
from tests.smtp_peer import Fault, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post


def states(app: Flask) -> list[str]:
    with app.app_context(), every_tenant():
        return list(db.session.scalars(select(Delivery.status)))


def kill_connections(app: Flask) -> None:
    """End every connection to the database but the one that says so, as a restart of Postgres does."""
    with app.app_context():
        sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_an_outcome_is_stored_although_the_connections_were_lost_meanwhile(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pool.send

    def lose_connections(*arguments: Any) -> Any:
        kill_connections(app)
        return real(*arguments)

    monkeypatch.setattr(Pool, "send", lose_connections)
    assert post().json["status"] == "sent"
    assert states(app) == ["sent"]


def test_the_answer_is_true_although_the_outcome_could_not_be_stored(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.deliveries.attempt.STORE_RETRY_DELAYS", (0.01,))
    real = fast_sql.run

    def lose(statement: str, values: Any, **options: Any) -> Any:
        if statement.startswith(attempt.UPDATE_DELIVERY):
            raise psycopg.OperationalError("gone")
        return real(statement, values, **options)

    monkeypatch.setattr(fast_sql, "run", lose)
    assert post().json["status"] == "sent"
    assert states(app) == ["pending"], "its lease runs out, then it is tried again with the same Message-ID"
    assert len(peer.messages) == 1


def test_a_busy_mail_server_defers_after_a_moment_and_is_not_paused(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(app.extensions, "smtp_pool", Pool(PoolLimits(), ConcurrencyLimits(per_server=0)))
        answer = post()
    recipient = answer.json["deliveries"][0]["recipients"][0]
    assert (answer.json["status"], recipient["code"]) == ("deferred", None)
    assert "busy" in recipient["text"]
    assert not peer.conversations
    wait = datetime.fromisoformat(answer.json["deliveries"][0]["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=1) < wait < timedelta(seconds=7), "others are soon through"
    with app.app_context(), every_tenant():
        delivery = db.session.scalars(select(Delivery)).one()
        assert (delivery.attempts, delivery.last_attempt_at) == (0, None), "it was no attempt"
    assert post().json["status"] == "sent"


def test_a_welcome_mail_that_may_have_been_sent_is_held(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": Fault.DROP}
    answer = post("user.created", {"extension_number": "1001", "extension_password": "secret"})
    assert (answer.json["status"], answer.json["reason"]) == ("held", "may_have_been_sent")


def test_a_repeat_while_the_attempt_ends_gets_one_consistent_result(
    app: Flask, post: Post, working_tenant: str
) -> None:
    assert post(id="one").json["status"] == "sent"
    with app.app_context():
        sql("UPDATE deliveries SET status = 'pending', lease_until = now() + interval '1 minute'")
        sql("UPDATE delivery_recipients SET status = 'pending', stage = NULL, code = NULL, text = NULL")
    ends: list[str] = []

    def end_attempt(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not ends and "deliveries" in statement:
            ends.append("now")
            sql("UPDATE deliveries SET status = 'sent', lease_until = NULL")
            sql("UPDATE delivery_recipients SET status = 'sent', stage = 'data', code = 250, text = 'ok'")

    with app.app_context():
        event.listen(db.engine, "after_cursor_execute", end_attempt)
        repeat = post(id="one").json
        event.remove(db.engine, "after_cursor_execute", end_attempt)
    assert ends
    assert repeat["duplicate"]
    email = repeat["deliveries"][0]
    assert {recipient["status"] for recipient in email["recipients"]} == {email["status"]} == {repeat["status"]}
