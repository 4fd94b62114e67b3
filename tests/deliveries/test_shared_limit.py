"""The limits of a tenant on the system's shared mail server."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from portal.config import Settings
from portal.database import fast_sql
from portal.database.scope import enter_scope
from portal.deliveries import release, retry
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.concurrency import ConcurrencyLimits
from portal.mail_servers.smtp.pool import Pool, PoolLimits
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, entered, peer

__all__ = ["peer"]

HOURLY, DAILY = 5, 8
PostMany = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def limited(app: Flask, settings: Settings, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The portal with low limits, whose mail server all tenants use."""
    changes = {"shared_server_hourly_limit": HOURLY, "shared_server_daily_limit": DAILY}
    monkeypatch.setitem(app.extensions, "settings", settings.model_copy(update=changes))
    with app.app_context():
        mail_server_service.save(None, entered(peer.port, sender_email="pbx@portal.test"))
        mail_server_service.share(True)
    return app


def tenant_key(domain: str) -> str:
    tenant = tenant_service.find(domain)
    assert tenant is not None
    enter_scope(tenant.id)
    settings.set_enabled(tenant, EVENT_TYPES, on=True)
    recipients.replace(tenant, [f"ops@{domain}"])
    return api_keys.issue(tenant).secret


@pytest.fixture
def keys(limited: Flask, acme: str, globex: str) -> dict[str, str]:
    """A key of each tenant."""
    with limited.app_context():
        return {domain: tenant_key(domain) for domain in (acme, globex)}


@pytest.fixture
def post(limited: Flask, keys: dict[str, str]) -> PostMany:
    """A function that reports a number of new users, and returns the responses."""

    def post(
        count: int, domain: str = "acme.example", kind: str = "user.created", first: int = 0
    ) -> list[dict[str, Any]]:
        answers = []
        for number in range(first, first + count):
            data = CALL_LOST | {"queue_number": str(number)}
            if kind == "user.created":
                data = {"extension_number": "101", "extension_password": "s3cret", "email": f"x{number}@evil.example"}
            headers = {"Authorization": f"Bearer {keys[domain]}"}
            answer = limited.test_client().post("/api/v1/events", json={"type": kind, "data": data}, headers=headers)
            assert answer.status_code == 200
            answers.append(answer.get_json())
        return answers

    return post


def statuses(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["status"] for answer in answers]


def let_time_pass(hours: int) -> None:
    passed = "- make_interval(hours => :hours)"
    sql(f"UPDATE shared_server_usage SET hour_started_at = hour_started_at {passed}", hours=hours)
    sql(f"UPDATE shared_server_usage SET day_started_at = day_started_at {passed}", hours=hours)


def only_the_user() -> None:
    sql("UPDATE notification_settings SET audience = 'user' WHERE event_type = 'user.created'")


def test_welcome_emails_to_strangers_are_held_over_the_limit(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with limited.app_context():
        only_the_user()
    answers = post(12)
    assert statuses(answers) == ["sent"] * HOURLY + ["held"] * 7
    assert {answer["reason"] for answer in answers[HOURLY:]} == {"shared_server_limit"}
    assert len(peer.messages) == HOURLY
    assert statuses(post(1, "globex.example")) == ["sent"], "another tenant has its own limits"


def test_all_kinds_of_email_count_together_by_recipient(limited: Flask, post: PostMany) -> None:
    with limited.app_context():
        enter_scope(1)
        recipients.replace(tenant_service.get(1), ["a@acme.example", "b@acme.example", "c@acme.example"])
        only_the_user()
    assert statuses(post(3, kind="queue.call_lost")) == ["sent", "sent", "held"]
    assert statuses(post(1)) == ["held"]


def test_an_email_to_more_recipients_than_the_limit_is_sent(limited: Flask, post: PostMany) -> None:
    with limited.app_context():
        enter_scope(1)
        recipients.replace(tenant_service.get(1), [f"p{number}@acme.example" for number in range(HOURLY + 3)])
    assert statuses(post(2, kind="queue.call_lost")) == ["sent", "held"]


@pytest.mark.slow
def test_a_worker_sends_what_is_held_in_the_next_hours_and_days(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with limited.app_context():
        only_the_user()
        post(12)
        for hours, sent in ((0, HOURLY), (1, DAILY), (1, DAILY), (23, 12)):
            let_time_pass(hours)
            release.release_within_limits()
            db.session.remove()
            send_due_emails()
            assert len(peer.messages) == sent
        assert sql("SELECT DISTINCT status FROM deliveries") == [("sent",)]
        recipients_reached = [message.recipients for message in peer.messages]
    assert len({str(each) for each in recipients_reached}) == 12


def test_what_a_worker_may_not_send_yet_is_held_again(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with limited.app_context():
        only_the_user()
        post(12)
        mail_server_service.share(False)
        mail_server_service.share(True)
        send_due_emails()
        assert len(peer.messages) == HOURLY
        assert sql(
            "SELECT status, reason, attempts, count(*) FROM deliveries WHERE reason IS NOT NULL GROUP BY 1, 2, 3"
        ) == [("held", "shared_server_limit", 0, 7)]
        assert sql("SELECT count(*) FROM delivery_recipients WHERE status = 'held'") == [(7,)]


def test_the_hours_limit_does_not_use_up_the_day(limited: Flask, post: PostMany) -> None:
    with limited.app_context():
        only_the_user()
    post(50)
    with limited.app_context():
        let_time_pass(1)
    assert statuses(post(5)) == ["sent"] * (DAILY - HOURLY) + ["held"] * 2


def test_a_retry_does_not_count_again(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    with limited.app_context():
        only_the_user()
    assert statuses(post(4)) == ["deferred"] * 4
    peer.script = {}
    with limited.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
        sql("UPDATE mail_servers SET paused_until = NULL")
        send_due_emails()
        assert sql("SELECT hour_count FROM shared_server_usage") == [(4,)]
        assert sql("SELECT DISTINCT status FROM deliveries") == [("sent",)]


def test_an_email_that_finds_no_free_slot_counts_once(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(limited.extensions, "smtp_pool", Pool(PoolLimits(), ConcurrencyLimits(per_server=0)))
        assert statuses(post(1, kind="queue.call_lost")) == ["deferred"]
        with limited.app_context():
            for _ in range(HOURLY + 1):
                sql("UPDATE deliveries SET next_attempt_at = now()")
                send_due_emails()
    with limited.app_context():
        assert sql("SELECT hour_count FROM shared_server_usage") == [(1,)]
        sql("UPDATE deliveries SET next_attempt_at = now()")
        send_due_emails()
        assert sql("SELECT hour_count FROM shared_server_usage") == [(1,)]
        assert sql("SELECT status, attempts FROM deliveries") == [("sent", 1)]


def test_an_email_that_cannot_be_built_neither_counts_nor_gets_a_token(
    limited: Flask, post: PostMany, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limited.app_context():
        only_the_user()
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 hour'")
    assert statuses(post(1)) == ["deferred"]
    monkeypatch.setattr(retry, "build_message", lambda *_: 1 / 0)
    with limited.app_context():
        sql("UPDATE mail_servers SET paused_until = NULL")
        sql("UPDATE deliveries SET next_attempt_at = now()")
        with pytest.raises(ZeroDivisionError):
            send_due_emails()
        assert sql("SELECT status, attempts, next_attempt_at > now() FROM deliveries") == [("deferred", 0, True)]
        for table in ("shared_server_usage", "provisioning_tokens"):
            assert sql(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_tenants_own_mail_server_has_no_limit(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with limited.app_context():
        enter_scope(1)
        mail_server_service.save(1, entered(peer.port))
        only_the_user()
    assert statuses(post(12)) == ["sent"] * 12


def test_a_repeated_event_does_not_count(limited: Flask, keys: dict[str, str]) -> None:
    body = {"type": "queue.call_lost", "id": "one", "data": CALL_LOST}
    headers = {"Authorization": f"Bearer {keys['acme.example']}"}
    for _ in range(HOURLY + 2):
        assert limited.test_client().post("/api/v1/events", json=body, headers=headers).get_json()["status"] == "sent"
    with limited.app_context():
        assert sql("SELECT hour_count FROM shared_server_usage") == [(1,)]


def test_zero_is_no_limit(limited: Flask, settings: Settings, post: PostMany, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"shared_server_hourly_limit": 0, "shared_server_daily_limit": 0}
    monkeypatch.setitem(limited.extensions, "settings", settings.model_copy(update=changes))
    assert statuses(post(12)) == ["sent"] * 12


def test_simultaneous_events_do_not_exceed_the_limit(limited: Flask, post: PostMany, peer: SmtpPeer) -> None:
    with limited.app_context():
        only_the_user()

    def report(number: int) -> str:
        (answer,) = post(1, first=number)
        with limited.app_context():
            db.session.remove()
        return str(answer["reason"])

    with ThreadPoolExecutor(8) as threads:
        reasons = Counter(threads.map(report, range(16)))
    assert reasons["shared_server_limit"] == 16 - HOURLY
    with limited.app_context():
        fast_sql.dispose()
        assert sql("SELECT count(*) FROM deliveries WHERE reason = 'shared_server_limit'") == [(16 - HOURLY,)]


def test_the_limit_costs_no_further_round_trip(limited: Flask, post: PostMany, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    run = fast_sql.run

    def noted(statement: str, values: Any, **options: Any) -> Any:
        statements.append(statement)
        return run(statement, values, **options)

    post(1, kind="queue.call_lost")  # records the use of the key
    monkeypatch.setattr(fast_sql, "run", noted)
    post(1, kind="queue.call_lost")
    assert len(statements) == 2, "record, store the result"


def test_the_page_and_the_log_name_the_reason(limited: Flask, post: PostMany, admin: Any) -> None:
    post(8, kind="queue.call_lost")
    assert "limit of the shared mail server" in admin.get("/tenants/acme.example/overview").text
    assert "limit of the shared mail server" in admin.get("/tenants/acme.example/deliveries").text


def test_the_usage_of_a_tenant_is_invisible_to_others(limited: Flask, post: PostMany) -> None:
    post(1, kind="queue.call_lost")
    with limited.app_context():
        enter_scope(2)
        assert db.session.scalar(text("SELECT count(*) FROM shared_server_usage")) == 0
