"""Retries: by a real worker, to the recipients still open, until they are accepted or expire."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from portal.database.scope import every_tenant
from portal.deliveries import delivery_log, lifecycle, retry, schedule
from portal.deliveries.attempt import STORE_RETRY_DELAYS
from portal.deliveries.models import Delivery, DeliveryRecipient
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.mail_servers.smtp.client import DEFAULT_TIMEOUTS, PATIENT_TIMEOUTS, WORKER_TIMEOUTS
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.pool import Pool
from portal.notifications import recipients, settings
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.deliveries.test_welcome import USER, qr_address, read
from tests.due_emails import send_due_emails
from tests.smtp_peer import SlowReply, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post, entered

Work = Callable[[], None]


@pytest.fixture
def work(app: Flask) -> Work:
    """A function that makes every waiting mail due, and lets a worker do what there is to do."""

    def work() -> None:
        with app.app_context():
            sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
            send_due_emails()

    return work


def rows(app: Flask) -> list[tuple[str, str | None, int]]:
    with app.app_context(), every_tenant():
        return [(each.status, each.reason, each.attempts) for each in db.session.scalars(select(Delivery))]


def change(app: Flask, do: Callable[[Tenant], Any]) -> None:
    """Do something to Acme, as a page does."""
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        from portal.database.scope import enter_scope

        enter_scope(tenant.id)
        do(tenant)


def test_a_deferred_mail_goes_out_with_the_same_message_id(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    message_id = post().json["deliveries"][0]["message_id"]
    peer.script = {}
    work()
    assert rows(app) == [("sent", None, 2)]
    (mail,) = peer.messages
    assert message_id.encode() in mail.content
    assert mail.recipients == PEOPLE


def test_a_mail_server_that_is_too_slow_for_the_pbx_gets_the_mail_from_a_worker(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.deliveries.attempt.DEFAULT_TIMEOUTS", Timeouts(0.3, 0.3, 0.3, 0.3))
    peer.script = {"greeting": SlowReply("220 peer.test")}
    assert post().json["status"] == "deferred"
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = NULL")
        sql("UPDATE deliveries SET next_attempt_at = now()")
    work()
    assert rows(app) == [("sent", None, 2)]
    assert len(peer.messages) == 1


def test_a_lease_is_longer_than_the_attempt_takes() -> None:
    for timeouts, lease in (
        (DEFAULT_TIMEOUTS, schedule.LEASE_DURATION),
        (WORKER_TIMEOUTS, schedule.LEASE_DURATION),
        (PATIENT_TIMEOUTS, schedule.PATIENT_LEASE_DURATION),
    ):
        assert timeouts.total + timeouts.reply + sum(STORE_RETRY_DELAYS) < lease.total_seconds()
    assert PATIENT_TIMEOUTS.command >= 5 * 60
    assert PATIENT_TIMEOUTS.reply >= 10 * 60


def test_an_email_that_is_being_sent_holds_no_connection_to_postgres(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    peer.script = {}
    real, held = Pool.send, []

    def send(pool: Pool, *arguments: Any) -> Any:
        held.append(db.session().in_transaction())
        return real(pool, *arguments)

    monkeypatch.setattr(Pool, "send", send)
    work()
    assert held == [False]
    assert rows(app) == [("sent", None, 2)]


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 3), (2, 21), (7, 21)])
def test_later_attempts_have_a_long_lease(
    app: Flask,
    post: Post,
    working_tenant: str,
    peer: SmtpPeer,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
    minutes: int,
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    real = Pool.send
    leases: list[float] = []
    timeouts: list[Timeouts] = []

    def send(pool: Pool, *arguments: Any) -> Any:
        with app.app_context():
            leases.append(float(sql("SELECT extract(epoch FROM lease_until - now()) FROM deliveries")[0][0]))
        timeouts.append(arguments[-1])
        return real(pool, *arguments)

    monkeypatch.setattr(Pool, "send", send)
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now(), attempts = :attempts", attempts=attempts)
    work()
    assert minutes * 60 - 30 < leases[0] <= minutes * 60 + 1
    assert timeouts[0] == (WORKER_TIMEOUTS if attempts == 1 else PATIENT_TIMEOUTS)


def test_only_the_recipients_still_open_are_tried_again(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"rcpt": ["250 ok", "451 4.3.0 later"]}
    assert post().json["status"] == "partial"
    peer.script = {}
    work()
    assert [mail.recipients for mail in peer.messages] == [PEOPLE[:1], PEOPLE[1:]]
    assert rows(app) == [("sent", None, 2)]
    both = ", ".join(f"<{email}>" for email in PEOPLE).encode()
    assert all(both in mail.content.replace(b"\r\n ", b" ") for mail in peer.messages), "the mail itself is the same"


def test_a_refused_recipient_stays_refused(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"rcpt": ["550 5.1.1 no such user", "451 4.3.0 later"]}
    assert post().json["status"] == "deferred"
    peer.script = {}
    work()
    assert rows(app) == [("partial", None, 2)]
    work()
    assert len(peer.messages) == 1


def test_each_attempt_waits_longer(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    waits = []
    for _ in range(3):
        with app.app_context(), every_tenant():
            delivery = db.session.scalars(select(Delivery)).one()
            assert delivery.next_attempt_at is not None
            assert delivery.last_attempt_at is not None
            waits.append((delivery.next_attempt_at - delivery.last_attempt_at) / timedelta(minutes=1))
        work()
    assert 0.8 <= waits[0] <= 1.2
    assert 4 <= waits[1] <= 6
    assert 12 <= waits[2] <= 18
    assert rows(app) == [("deferred", None, 4)]


def test_a_mail_that_is_not_due_is_left_alone(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with app.app_context():
        assert retry.tenants_with_due() == []


def test_a_lease_that_ran_out_is_taken_over(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    post()
    lose = "UPDATE deliveries SET status = 'pending', lease_until = now() + interval '1 second' * :seconds"
    for seconds, mails in ((60, 1), (-1, 2)):
        with app.app_context():
            sql("UPDATE delivery_recipients SET status = 'pending'")
            sql(lose, seconds=seconds)
            send_due_emails()
        assert len(peer.messages) == mails
    assert rows(app) == [("sent", None, 2)]
    ids = {line for mail in peer.messages for line in mail.content.split(b"\r\n") if line.startswith(b"Message-ID")}
    assert len(ids) == 1


def test_who_lost_the_lease_does_not_overwrite_what_another_learned(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pool.send

    def be_overtaken(*arguments: Any) -> Any:
        result = real(*arguments)
        monkeypatch.setattr(Pool, "send", real)
        peer.script = {}
        with app.app_context():
            sql("UPDATE deliveries SET lease_until = now()")
            send_due_emails()
        return result

    peer.script = {"dot": "451 4.3.0 later"}
    monkeypatch.setattr(Pool, "send", be_overtaken)
    assert post().json["status"] == "deferred"
    assert rows(app) == [("sent", None, 2)]


def test_two_workers_send_one_mail(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    peer.script = {}
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now()")
        (tenant_id,) = retry.tenants_with_due()
    start = threading.Barrier(8)

    def run() -> None:
        with app.app_context():
            start.wait()
            retry.retry_next(tenant_id)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peer.messages) == 1
    assert rows(app) == [("sent", None, 2)]


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (lambda tenant: tenant_service.suspend(tenant), "tenant_suspended"),
        (lambda tenant: settings.set_enabled(tenant, ["queue.call_lost"], on=False), "switched_off"),
        (lambda tenant: mail_server_settings.remove(tenant.id), "no_mail_server"),
    ],
)
def test_what_changed_since_is_looked_at_before_a_retry(
    app: Flask,
    post: Post,
    working_tenant: str,
    peer: SmtpPeer,
    work: Work,
    hinder: Callable[[Tenant], Any],
    reason: str,
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    peer.script = {}
    change(app, hinder)
    work()
    assert rows(app) == [("held", reason, 1)]
    assert not peer.messages


def test_a_retry_takes_the_mail_server_that_is_in_force_now(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with SmtpPeer() as other:
        change(app, lambda tenant: mail_server_settings.save(tenant.id, entered(other.port)))
        work()
        assert len(other.messages) == 1
    assert not peer.messages


def test_a_mail_waits_for_the_end_of_a_pause(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"greeting": "421 4.3.2 closing"}
    post()
    peer.script = {}
    work()
    assert rows(app) == [("deferred", None, 1)]
    assert len(peer.conversations) == 1, "the pause spares the server"


def test_a_mail_that_was_not_sent_in_time_expires_with_the_last_reason(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 mailbox busy"}
    post()
    with app.app_context():
        assert lifecycle.expire_deliveries() == 0
        sql("UPDATE deliveries SET next_attempt_at = now(), expires_at = now()")
        assert not send_due_emails()
        assert lifecycle.expire_deliveries() == 1
    assert rows(app) == [("expired", None, 1)]
    with app.app_context(), every_tenant():
        recipient = db.session.scalars(select(DeliveryRecipient)).first()
        assert recipient is not None
        assert (recipient.status, recipient.text) == ("expired", "mailbox busy")
        assert delivery_log.LogEntry(db.session.scalars(select(Delivery)).one().event).status == "expired"


def test_held_mail_expires_too_and_its_secrets_go(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    change(app, lambda tenant: mail_server_settings.remove(tenant.id))
    assert post("user.created", USER).json["status"] == "held"
    with app.app_context():
        assert sql("SELECT count(secrets_encrypted) FROM events")[0][0] == 1
        sql("UPDATE deliveries SET expires_at = now()")
        assert lifecycle.expire_deliveries() == 2
        assert sql("SELECT count(secrets_encrypted) FROM events")[0][0] == 0


def test_secrets_stay_while_one_of_two_mails_waits_for_recipients(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    change(app, lambda tenant: recipients.replace(tenant, []))
    assert post("user.created", USER).json["status"] == "partial"
    with app.app_context():
        assert sql("SELECT count(secrets_encrypted) FROM events")[0][0] == 1
    change(app, lambda tenant: recipients.replace(tenant, PEOPLE))
    work()
    assert len(peer.messages) == 2
    with app.app_context():
        assert sql("SELECT count(secrets_encrypted) FROM events")[0][0] == 0


def test_a_welcome_mail_that_is_tried_again_carries_a_fresh_token_and_the_old_one_dies(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post("user.created", USER)
    first = [qr_address(read(mail.content)) for each in peer.conversations for mail in each.messages]
    peer.script = {}
    work()
    second = [qr_address(read(mail.content)) for mail in peer.messages]
    assert len({*first, *second}) == 4
    client = app.test_client()
    paths = [[address.removeprefix("http://portal.test") for address in each] for each in (first, second)]
    assert [client.get(path).status_code for path in paths[0]] == [410, 410]
    assert [client.get(path).status_code for path in paths[1]] == [200, 200]


def test_recipients_that_came_late_get_the_mail(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    change(app, lambda tenant: recipients.replace(tenant, []))
    assert post().json["reason"] == "no_recipients"
    change(app, lambda tenant: recipients.replace(tenant, ["new@acme.example"]))
    work()
    assert [mail.recipients for mail in peer.messages] == [["new@acme.example"]]
    assert rows(app) == [("sent", None, 1)]
