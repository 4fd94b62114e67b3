"""Events that are posted at the same moment, and share a transaction."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask

from portal.database import fast_sql, group_commit
from portal.database.fast_sql import Sharing
from portal.database.scope import EVERY_TENANT
from portal.mail_servers import service as mail_server_service
from portal.tenants import service as tenant_service
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, entered

TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM events"
PostAtOnce = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


@pytest.fixture
def post_at_once(app: Flask, working_tenant: str, key: str, monkeypatch: pytest.MonkeyPatch) -> PostAtOnce:
    """A function that posts events while another thread writes, and returns the responses in the same order."""
    monkeypatch.setattr(group_commit, "PATIENCE", 10)

    def wait() -> None:
        with app.app_context():
            fast_sql.run("SELECT pg_sleep(0.5)", {}, scope=EVERY_TENANT, sharing=Sharing(()))

    def post(event: Mapping[str, Any]) -> dict[str, Any]:
        body = {"type": "queue.call_lost", **event, "data": CALL_LOST | event["data"]}
        response = app.test_client().post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {key}"})
        assert response.is_json
        return dict(response.get_json())

    def post_at_once(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        post({"data": {"queue_number": "first"}})  # so that the key's use and the plan are known
        with ThreadPoolExecutor(len(events) + 1) as threads:
            threads.submit(wait)
            time.sleep(0.1)
            return list(threads.map(post, events))

    return post_at_once


def count_transactions(app: Flask) -> int:
    """Return how many transactions recorded events, without the first event."""
    with app.app_context():
        return int(sql(TRANSACTIONS)[0][0]) - 1


def test_they_share_a_transaction(app: Flask, post_at_once: PostAtOnce, peer: SmtpPeer) -> None:
    answers = post_at_once([{"data": {"queue_number": str(number)}} for number in range(8)])
    assert [answer["status"] for answer in answers] == ["sent"] * 8
    assert len(peer.messages) == 9
    assert count_transactions(app) == 1
    with app.app_context():
        assert sql("SELECT status, lease_until, count(*) FROM deliveries GROUP BY 1, 2") == [("sent", None, 9)]
        assert sql("SELECT status, code, count(*) FROM delivery_recipients GROUP BY 1, 2") == [
            ("sent", 250, 9 * len(PEOPLE))
        ]


def test_the_same_event_many_times_is_recorded_once(app: Flask, post_at_once: PostAtOnce, peer: SmtpPeer) -> None:
    events = [{"id": "one", "data": {"queue_number": "1"}}] * 5 + [{"id": "two", "data": {"queue_number": "1"}}] * 5
    answers = post_at_once(events)
    assert {answer["status"] for answer in answers} <= {"sent", "deferred"}, "deferred: it is being sent"
    new = [answer["id"] for answer in answers if not answer["duplicate"]]
    assert sorted(new) == ["one", "two"]
    assert len(peer.messages) == 3
    assert count_transactions(app) == 1


def test_one_that_conflicts_is_rejected_alone(post_at_once: PostAtOnce, peer: SmtpPeer) -> None:
    events = [{"id": "one", "data": {"queue_number": str(number)}} for number in range(4)]
    answers = post_at_once([*events, {"data": {"queue_number": "other"}}])
    assert Counter(answer["status"] for answer in answers) == {"sent": 2, 409: 3}
    assert len(peer.messages) == 3


def test_a_storm_is_counted_exactly(app: Flask, post_at_once: PostAtOnce, peer: SmtpPeer) -> None:
    answers = post_at_once([{"data": {"queue_number": "busy"}}] * 14)
    assert Counter(answer["reason"] for answer in answers) == {None: 10, "throttled": 4}
    assert len(peer.messages) == 11
    assert count_transactions(app) == 1


def test_one_that_waits_for_a_lock_does_not_keep_the_others(
    app: Flask, post_at_once: PostAtOnce, peer: SmtpPeer
) -> None:
    """A storm's row that another transaction has locked: the event waits for it, alone."""
    post_at_once([{"data": {"queue_number": "locked"}}])
    url = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")
    with psycopg.connect(url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT FROM storms WHERE queue_number = 'locked' FOR UPDATE")
        events = [{"data": {"queue_number": number}} for number in ("locked", "1", "2")]
        answers = threads.submit(post_at_once, events)
        began = time.monotonic()
        while len(peer.messages) < 5 and time.monotonic() - began < 4:
            time.sleep(0.02)
        time.sleep(0.2)
        assert len(peer.messages) == 5, "those of before, the first again, and those of two queues"
        assert not answers.done()
        other.rollback()
        assert [answer["status"] for answer in answers.result()] == ["sent"] * 3


def test_those_that_count_for_the_shared_mail_server_share_none(
    app: Flask, post_at_once: PostAtOnce, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        mail_server_service.remove(tenant.id)
        mail_server_service.save(None, entered(peer.port, sender_email="pbx@portal.test"))
        mail_server_service.share(True)
    answers = post_at_once([{"data": {"queue_number": str(number)}} for number in range(4)])
    assert [answer["status"] for answer in answers] == ["sent"] * 4
    assert count_transactions(app) == 4
