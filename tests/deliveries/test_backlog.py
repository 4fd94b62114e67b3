"""Many due or held emails: workers send them without a pause, tenants take turns, and no request does the work."""

import tracemalloc
from collections.abc import Callable
from threading import Thread
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event

from bench.backlog import DUE_EMAILS
from portal.database.scope import enter_scope, owner_connection
from portal.deliveries import digest, lifecycle, message, release, retry, worker
from portal.deliveries.models import RecordedEvent
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.outcome import BUSY, SmtpReply
from portal.mail_servers.smtp.pool import Pool
from portal.notifications import recipients
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.deliveries.test_crashes import QUEUE_DUE_WORK
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, entered

pytestmark = pytest.mark.slow

HOLD_ALL = """
    WITH held AS (
        UPDATE deliveries SET status = 'held', reason = :reason, next_attempt_at = NULL RETURNING id
    )
    UPDATE delivery_recipients SET status = 'held' FROM held WHERE delivery_id = held.id
"""
AddDue = Callable[..., None]


@pytest.fixture
def add_due(app: Flask, working_tenant: str) -> AddDue:
    """A function that adds due emails of tenants, as after an outage of their mail servers."""

    def add_due(count: int, tenants: tuple[int, ...] = (1,)) -> None:
        with app.app_context(), owner_connection() as connection:
            connection.exec_driver_sql(DUE_EMAILS, {"tenants": list(tenants), "count": count})

    return add_due


@pytest.fixture
def other(app: Flask, globex: str) -> int:
    """Another tenant, which uses the system's mail server. Returns its id."""
    with app.app_context():
        tenant = tenant_service.find(globex)
        assert tenant is not None
        sql(
            "INSERT INTO notification_settings (tenant_id, event_type, enabled, audience)"
            " VALUES (:id, 'queue.call_lost', true, 'both')",
            id=tenant.id,
        )
        return tenant.id


@pytest.fixture
def statement_count(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each round trip to Postgres from now on."""
    sent: list[str] = []
    for name in ("execute", "executemany"):
        real = getattr(psycopg.Cursor, name)

        def noted(cursor: Any, query: Any, *values: Any, real: Any = real, **options: Any) -> Any:
            sent.append(str(query))
            return real(cursor, query, *values, **options)

        monkeypatch.setattr(psycopg.Cursor, name, noted)
    return sent


def set_system_server(peer: SmtpPeer) -> None:
    mail_server_service.save(None, entered(peer.port, sender_email="pbx@portal.test"))
    mail_server_service.share(True)


def run_worker(app: Flask) -> None:
    """Run a worker until it has nothing more to do."""
    with app.app_context():
        sql(QUEUE_DUE_WORK, arguments='{"timestamp": 1}')
    worker.run(app, concurrency=2, wait=False)  # as many threads as a slow mail server has slots


def statuses() -> dict[str, int]:
    return {row.status: row.number for row in sql("SELECT status, count(*) AS number FROM deliveries GROUP BY status")}


def acme() -> Tenant:
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def test_one_wake_up_sends_the_whole_backlog(app: Flask, add_due: AddDue, peer: SmtpPeer) -> None:
    add_due(80)
    run_worker(app)
    assert len(peer.messages) == 80
    with app.app_context():
        assert statuses() == {"sent": 80}


def test_tenants_take_turns(
    app: Flask, add_due: AddDue, peer: SmtpPeer, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmtpPeer() as system, app.app_context():
        set_system_server(system)
        add_due(30)
        add_due(3, (other,))
        order: list[int] = []
        retry_next = retry.retry_next

        def retry_noted(tenant_id: int, on_lease: Callable[[], object]) -> bool:
            order.append(tenant_id)
            return retry_next(tenant_id, on_lease)

        monkeypatch.setattr(worker, "retry_next", retry_noted)
        sql(QUEUE_DUE_WORK, arguments='{"timestamp": 1}')
        worker.run(app, concurrency=1, wait=False)
    assert order[:7] in ([1, other] * 3 + [1], [other, 1] * 3 + [1])
    assert (len(peer.messages), len(system.messages)) == (30, 3)


@pytest.mark.parametrize("much", [1000, 1])
def test_the_tenant_after_the_last_one_comes_first(
    app: Flask, add_due: AddDue, other: int, much: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "MUCH_DUE", much)
    add_due(1, (1, other))
    with app.app_context():
        assert retry.tenants_with_due() == retry.tenants_with_due(after=other) == [1, other]
        assert retry.tenants_with_due(after=1) == [other, 1]


def test_an_email_that_the_portal_cannot_build_does_not_stop_the_others(
    app: Flask,
    add_due: AddDue,
    peer: SmtpPeer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_due(3)
    build = message.build_message

    def build_or_fail(*arguments: Any) -> Any:
        if arguments[2].id == broken:
            raise TypeError
        return build(*arguments)

    monkeypatch.setattr(retry, "build_message", build_or_fail)
    with app.app_context():
        broken = sql("SELECT id FROM deliveries ORDER BY id LIMIT 1")[0][0]
    run_worker(app)
    assert f"This was email {broken}." in caplog.text
    run_worker(app)  # the first one may have ended before it saw the job that the failed one queued: it does not wait
    with app.app_context():
        assert len(peer.messages) == 2
        assert statuses() == {"sent": 2, "deferred": 1}
        in_minutes = "SELECT next_attempt_at > now() + interval '4 minutes' FROM deliveries WHERE id = :id"
        assert sql(in_minutes, id=broken)[0][0]


def test_threads_without_a_free_slot_leave_the_backlog_alone(
    app: Flask, add_due: AddDue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_due(200)
    busy: list[object] = []

    def send(_pool: Pool, *arguments: Any) -> dict[str, SmtpReply]:
        busy.append(arguments)
        return dict.fromkeys(arguments[3], BUSY)

    monkeypatch.setattr(Pool, "send", send)
    monkeypatch.setattr(retry, "_busy_until", {})
    run_worker(app)
    assert 0 < len(busy) < 10
    with app.app_context():
        assert retry.tenants_with_due() == []
        retry._busy_until.clear()
        assert retry.tenants_with_due() == [1]


def test_a_paused_mail_server_postpones_all_due_emails_at_once(app: Flask, add_due: AddDue, peer: SmtpPeer) -> None:
    add_due(50)
    peer.script = {"greeting": "421 4.3.2 closing"}
    with app.app_context():
        send_due_emails()
        assert len(peer.conversations) == 1
        assert retry.tenants_with_due() == []
        after_pause = sql("SELECT count(*) FROM deliveries WHERE next_attempt_at > now() + interval '45 seconds'")
        assert after_pause[0][0] == 50
        assert sql("SELECT sum(attempts) FROM deliveries")[0][0] == 51, "one email was attempted"


def test_saving_settings_takes_no_longer_with_many_held_emails(app: Flask, add_due: AddDue, peer: SmtpPeer) -> None:
    add_due(20_000)
    with app.app_context():
        sql(HOLD_ALL, reason="no_mail_server")
        tenant = acme()
        rows: list[int] = []
        count = lambda *arguments: rows.append(arguments[1].rowcount)  # noqa: E731 (of the statement's cursor)
        event.listen(db.engine, "after_cursor_execute", count)
        mail_server_service.save(tenant.id, entered(peer.port))
        recipients.replace(tenant, PEOPLE)
        event.remove(db.engine, "after_cursor_execute", count)
        assert 0 < sum(rows) < 100
        assert statuses() == {"held": 20_000}
        batches = []
        release.release_requested(on_batch=lambda: batches.append(statuses()))
        assert [counts.get("deferred") for counts in batches][:2] == [1000, 2000]
        assert statuses() == {"deferred": 20_000}
        assert sql("SELECT count(*) FROM delivery_recipients WHERE status = 'deferred'")[0][0] == 20_000
        assert sql("SELECT count(*) FROM release_requests")[0][0] == 0


def test_the_systems_server_releases_the_emails_of_tenants_that_use_it(
    app: Flask, add_due: AddDue, peer: SmtpPeer, other: int
) -> None:
    add_due(20, (1, other))
    with app.app_context():
        sql(HOLD_ALL, reason="no_mail_server")
        sql("DELETE FROM release_requests")
        set_system_server(peer)
        assert statuses() == {"held": 40}
        release.release_requested()
        counts = sql("SELECT tenant_id, status, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1")
        assert [tuple(row) for row in counts] == [(1, "held", 20), (other, "deferred", 20)]


def test_many_emails_expire_with_few_statements_in_batches(
    app: Flask, add_due: AddDue, statement_count: list[str]
) -> None:
    add_due(2_500)
    with app.app_context():
        sql("UPDATE deliveries SET expires_at = now(), next_attempt_at = now()")
        statement_count.clear()
        assert [lifecycle.expire_deliveries() for _ in range(4)] == [1000, 1000, 500, 0]
        assert len(statement_count) < 50
        assert statuses() == {"expired": 2_500}
        assert sql("SELECT count(*) FROM delivery_recipients WHERE status = 'expired'")[0][0] == 2_500


STORM = """
    INSERT INTO storms (tenant_id, event_type, queue_number, started_at, ends_at, event_count, held_count)
    VALUES (1, 'queue.call_lost', '8000', now() - interval '5 minutes', now(), :count + 10, :count)
"""


def test_a_digest_loads_only_the_events_that_it_lists(app: Flask, add_due: AddDue, peer: SmtpPeer) -> None:
    add_due(20_000)
    loaded: list[object] = []
    with app.app_context():
        sql(HOLD_ALL, reason="throttled")
        sql(STORM, count=20_000)
        event.listen(RecordedEvent, "load", lambda row, _context: loaded.append(row.id))
        tracemalloc.start()
        assert digest.write_digest(1, "queue.call_lost", "8000")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert send_due_emails() == 1
    assert len(loaded) < 30
    assert peak < 5_000_000
    assert b"20,010 lost calls" in peer.messages[0].content
    assert "19,980 more" in peer.messages[0].content.decode()


def test_two_workers_release_a_request_once(
    app: Flask, add_due: AddDue, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "BATCH_SIZE", 5)
    add_due(40)
    with app.app_context():
        sql(HOLD_ALL, reason="no_mail_server")
        mail_server_service.save(acme().id, entered(peer.port))

    def run() -> None:
        with app.app_context():
            release.release_requested()

    threads = [Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run()
    with app.app_context():
        assert statuses() == {"deferred": 40}
        assert send_due_emails() == 40
    assert len(peer.messages) == 40


def test_a_release_that_a_dead_worker_left_is_finished(
    app: Flask, add_due: AddDue, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "BATCH_SIZE", 5)
    add_due(12)
    with app.app_context():
        sql(HOLD_ALL, reason="no_mail_server")
        mail_server_service.save(acme().id, entered(peer.port))

        def die() -> None:
            raise SystemExit

        with pytest.raises(SystemExit):
            release.release_requested(on_batch=die)
        assert statuses() == {"held": 12 - 5, "deferred": 5}
        release.release_requested()
        assert statuses() == {"deferred": 12}


def test_an_email_that_was_rejected_after_the_change_is_not_released_by_it(
    app: Flask, add_due: AddDue, peer: SmtpPeer
) -> None:
    add_due(1)
    with app.app_context():
        mail_server_service.save(acme().id, entered(peer.port))
        peer.script = {"mail": "550 5.7.1 not from here"}
        retry.retry_next(1)
        assert statuses() == {"held": 1}
        release.release_requested()
        assert statuses() == {"held": 1}
