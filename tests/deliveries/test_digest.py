"""Storms: ten emails, then one summary, and nothing is dropped."""

import email
import email.policy
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.database.scope import enter_scope, every_tenant
from portal.deliveries import actions, digest
from portal.deliveries.models import Delivery, Storm
from portal.extensions import db
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.tenants import service as tenant_service
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post, entered

LIMIT = 10
Lose = Callable[..., Any]


@pytest.fixture
def lose(post: Post) -> Lose:
    """A function that reports a lost call and returns what the PBX is told."""

    def lose(queue: str = "8000", number: int = 0) -> Any:
        data = {"queue_number": queue, "queue_name": "Support", "caller_number": f"+4420{number:06}"}
        return post(data=data).json

    return lose


def end_storms(app: Flask) -> int:
    """Let the time of all storms be over, let a worker look, and return how many digests it wrote."""
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        sql("UPDATE events SET received_at = received_at - interval '5 minutes'")
        written = sum(digest.write_digest(*each) for each in digest.ended_storms())
        send_due_emails()
    return written


def last_words(peer: SmtpPeer) -> tuple[str, str]:
    message = email.message_from_bytes(peer.messages[-1].content, policy=email.policy.default)
    body = message.get_body(("plain",))
    assert body is not None
    return str(message["Subject"]), body.get_content()


def test_the_eleventh_mail_is_held_and_a_digest_tells_of_it(
    app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer, admin: FlaskClient
) -> None:
    answers = [lose(number=number) for number in range(LIMIT + 1)]
    assert [answer["status"] for answer in answers] == ["sent"] * LIMIT + ["held"]
    assert answers[-1]["reason"] == "throttled"
    assert len(peer.messages) == LIMIT
    assert end_storms(app) == 1
    assert len(peer.messages) == LIMIT + 1
    assert peer.messages[-1].recipients == PEOPLE
    subject, body = last_words(peer)
    assert subject.startswith("11 lost calls in queue Support ")
    assert "1 of them" in body
    assert "+4420000010" in body
    assert "more" not in body
    url = re.search(r"\(http://portal\.test(/tenants/acme\.example/deliveries\?[^)]*)\)", body)
    assert url
    page = admin.get(url[1]).text
    assert page.count("+4420000010") == 1, "the log shows the event that was held, and no other"
    assert "+4420000009" not in page


MORE_HELD_EVENTS = """
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, received_at, fingerprint, data)
    SELECT gen_random_uuid(), tenant_id, 'copy' || n, type, occurred_at, received_at, fingerprint, data
    FROM events, generate_series(1, 3989) n WHERE id IN (SELECT event_id FROM deliveries WHERE reason = 'throttled')
"""
THEIR_MAILS = """
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, attempts, expires_at)
    SELECT gen_random_uuid(), tenant_id, id, 'recipients', id::text, 'held', 'throttled', 0, now() + interval '1 day'
    FROM events WHERE external_id LIKE 'copy%'
"""


@pytest.mark.slow
def test_a_digest_of_four_thousand_reads_well(app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer) -> None:
    for number in range(LIMIT + 1):
        lose(number=number)
    with app.app_context():
        for statement in (MORE_HELD_EVENTS, THEIR_MAILS, "UPDATE storms SET event_count = 4000, held_count = 3990"):
            sql(statement)
    assert end_storms(app) == 1
    subject, body = last_words(peer)
    assert subject.startswith("4,000 lost calls in queue Support")
    assert "3,990 of them" in body
    assert body.count("+4420") == 20
    assert "… and 3,970 more" in body
    assert len(body) < 3000


def test_a_storm_in_one_queue_leaves_the_others_alone(app: Flask, lose: Lose, working_tenant: str) -> None:
    for number in range(LIMIT + 2):
        lose(number=number)
    assert lose(queue="8001")["status"] == "sent"


def test_another_kind_of_event_has_a_count_of_its_own(app: Flask, lose: Lose, post: Post, working_tenant: str) -> None:
    for number in range(LIMIT + 2):
        lose(number=number)
    data = {"queue_number": "8000", "caller_number": "1", "sla_seconds": 60}
    assert post("queue.sla_breached", data).json["status"] == "sent"


def test_welcome_mails_are_never_held_for_their_number(post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    answers = [post("user.created", {"extension_number": str(1000 + number)}).json for number in range(30)]
    assert {answer["status"] for answer in answers} == {"sent"}


def test_after_a_storm_mails_go_out_again(app: Flask, lose: Lose, working_tenant: str) -> None:
    for number in range(LIMIT + 2):
        lose(number=number)
    assert end_storms(app) == 1
    assert lose()["status"] == "sent"


def test_a_time_without_too_many_needs_no_digest(app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer) -> None:
    for number in range(LIMIT):
        lose(number=number)
    assert end_storms(app) == 0
    assert lose()["status"] == "sent"
    with app.app_context(), every_tenant():
        assert [storm.event_count for storm in db.session.scalars(select(Storm))] == [1]


def test_a_repeated_event_does_not_count_twice(app: Flask, post: Post, working_tenant: str) -> None:
    for _ in range(LIMIT + 5):
        assert post(id="same").json["status"] == "sent"


def test_the_tenant_sets_its_own_limit(app: Flask, lose: Lose, working_tenant: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        tenant.storm_limit = 2
        db.session.commit()
    assert [lose(number=number)["status"] for number in range(3)] == ["sent", "sent", "held"]


def test_held_mails_stay_for_a_person_to_send(app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer) -> None:
    for number in range(LIMIT + 1):
        lose(number=number)
    end_storms(app)
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, PEOPLE)
        assert not send_due_emails(), "only a person lets it go on"
        held = db.session.scalars(select(Delivery.id).where(Delivery.reason == "throttled")).all()
        assert actions.send_now(held) == 1
        send_due_emails()
    assert b"+4420000010" in peer.messages[-1].content


def test_a_digest_is_held_and_mended_like_any_mail(app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer) -> None:
    for number in range(LIMIT + 1):
        lose(number=number)
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        mail_server_settings.remove(tenant.id)
    assert end_storms(app) == 1
    assert len(peer.messages) == LIMIT
    with app.app_context():
        mail_server_settings.save(tenant.id, entered(peer.port))
        send_due_emails()
    assert last_words(peer)[0].startswith("11 lost calls")


def test_a_digest_waits_for_the_first_recipient(
    app: Flask, lose: Lose, acme: str, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("DELETE FROM recipients")
    for number in range(LIMIT + 2):
        lose(number=number)
    assert end_storms(app) == 1
    assert peer.messages == []
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        recipients.replace(tenant, PEOPLE)
        send_due_emails()
    assert len(peer.messages) == LIMIT + 1
    assert last_words(peer)[0].startswith("12 lost calls")


def test_a_digest_of_a_switched_off_event_is_not_sent(
    app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer
) -> None:
    for number in range(LIMIT + 1):
        lose(number=number)
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        settings.set_enabled(tenant, ["queue.call_lost"], on=False)
    end_storms(app)
    assert len(peer.messages) == LIMIT


def test_many_at_once_are_counted_exactly(app: Flask, lose: Lose, working_tenant: str, peer: SmtpPeer) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(lose(number=n)["status"])) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("held") == 6


def test_long_names_do_not_keep_a_digest_from_being_written(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    data = {"queue_number": "8000", "caller_name": "n" * 200, "caller_number": "1" * 64}
    for _ in range(LIMIT + 1):
        post(data=data)
    assert end_storms(app) == 1
    assert "11 lost calls" in last_words(peer)[0]
