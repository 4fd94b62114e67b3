"""Quiet hours: what is held until they end, and the summary of it."""

import email
import email.policy
import re
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.deliveries import actions, digest, lifecycle, quiet_hours
from portal.events.types import EVENT_TYPES
from portal.notifications import recipients
from portal.notifications.decision import QuietHours, RecipientRules
from portal.notifications.models import Recipient
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.sql_log import Statements, statements
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post

__all__ = ["statements"]

OPS, NIGHT = PEOPLE
LOST = "queue.call_lost"
ALL_DAY = time(0)
WELCOME = {"extension_number": "101", "extension_password": "s3cret-Extension"}
HELD = "SELECT count(*) FROM deliveries WHERE reason = 'quiet_hours'"


def acme() -> Tenant:
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def recipient(address: str) -> Recipient:
    return next(row for row in recipients.list_recipients() if row.email == address)


def set_rules(app: Flask, address: str, quiet: QuietHours | None = None, **others: Any) -> None:
    with app.app_context():
        rules = RecipientRules(address, quiet_hours=quiet, **others)
        recipients.change_rules(acme(), recipient(address), EVENT_TYPES, rules)


def begin_quiet_hours(app: Flask, *addresses: str, until: time = ALL_DAY, urgent: Any = ()) -> None:
    """Set quiet hours from yesterday until at least tomorrow, whatever the time is."""
    today = datetime.now(UTC).weekday()
    quiet = QuietHours(frozenset((today + number) % 7 for number in (-1, 0, 1)), until, until)
    for address in addresses:
        set_rules(app, address, quiet, urgent_event_types=urgent)


def end_quiet_hours(app: Flask, where: str = "true") -> int:
    """Let the time of what is held be over, let a worker look and send, and return how many summaries it wrote."""
    with app.app_context():
        sql(f"UPDATE deliveries SET held_until = now() WHERE held_until IS NOT NULL AND {where}")
        written = sum(quiet_hours.write_summaries(tenant) for tenant in quiet_hours.tenants_with_ended_quiet_hours())
        send_due_emails()
    return written


def text_of(mail: Any) -> tuple[str, str]:
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    body = message.get_body(("plain",))
    assert body is not None
    return str(message["Subject"]), body.get_content()


def statuses(app: Flask) -> list[tuple[str, str | None]]:
    with app.app_context():
        rows = sql("SELECT status, reason FROM deliveries JOIN events e ON e.id = event_id WHERE e.type = :t", t=LOST)
        return [(status, reason) for status, reason in rows]


def test_a_recipient_in_quiet_hours_gets_a_summary_afterwards(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, NIGHT)
    answer = post().json
    assert answer["status"] == "partial"
    now, later = answer["deliveries"]
    assert (now["status"], [each["address"] for each in now["recipients"]]) == ("sent", [OPS])
    assert (later["status"], later["reason"]) == ("held", "quiet_hours")
    assert datetime.fromisoformat(later["held_until"]) > datetime.now(UTC)
    assert [mail.recipients for mail in peer.messages] == [[OPS]]
    with app.app_context():
        assert not send_due_emails(), "nothing is due before"
        assert not quiet_hours.tenants_with_ended_quiet_hours()
    assert end_quiet_hours(app) == 1
    assert peer.messages[-1].recipients == [NIGHT]
    subject, body = text_of(peer.messages[-1])
    assert subject == "After your quiet hours: 1 held back"
    assert "+442079460123" in body
    assert sorted(statuses(app)) == [("discarded", None), ("sent", None)]
    assert end_quiet_hours(app) == 0
    assert len(peer.messages) == 2


def test_if_all_are_in_quiet_hours_the_event_is_held(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    answer = post(id="one").json
    assert (answer["status"], answer["reason"]) == ("held", "quiet_hours")
    repeated = post(id="one").json
    assert repeated["duplicate"] is True
    assert repeated["deliveries"] == answer["deliveries"]
    assert not peer.messages
    assert end_quiet_hours(app) == 2, "one for each of them"
    assert [mail.recipients for mail in peer.messages] == [[OPS], [NIGHT]]
    assert post(id="one").json["status"] == "discarded"
    assert end_quiet_hours(app) == 0


def with_one_email(statements: Statements) -> set[str]:
    return {re.sub(r", \(%\(email1_id.*?%\(email1_text\)s::text\)", "", statement) for statement in statements}


def test_rules_take_no_further_statement(app: Flask, post: Post, working_tenant: str, statements: Statements) -> None:
    post()
    statements.clear()
    post()
    without_rules = with_one_email(statements)
    begin_quiet_hours(app, NIGHT)
    post()  # loads them
    statements.clear()
    assert post().json["status"] == "partial"
    assert with_one_email(statements) == without_rules


def test_urgent_events_are_sent_at_once(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS, NIGHT, urgent=[LOST])
    assert post().json["status"] == "sent"
    data = {**CALL_LOST, "sla_seconds": 60}
    assert post("queue.sla_breached", data).json["reason"] == "quiet_hours"


def test_events_of_other_queues_are_not_for_them(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    set_rules(app, NIGHT, queues=("8001", "Support"))
    for data in ({}, {"queue_number": "8001"}, {"queue_number": "8002", "queue_name": "support"}):
        assert post(data={**CALL_LOST, **data}).json["status"] == "sent"
    assert post("user.created", WELCOME).json["status"] == "sent"
    assert [mail.recipients for mail in peer.messages] == [[OPS], *([sorted(PEOPLE, reverse=True)] * 3)]
    set_rules(app, OPS, queues=("8001",))
    answer = post().json
    assert (answer["status"], answer["reason"]) == ("ignored", "no_recipient_wants_it")


def test_each_has_their_own_end(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS)
    begin_quiet_hours(app, NIGHT, until=time(12))
    answer = post().json
    assert len({delivery["held_until"] for delivery in answer["deliveries"]}) == 2
    ops = f"id = (SELECT delivery_id FROM delivery_recipients WHERE email = '{OPS}')"
    assert end_quiet_hours(app, where=ops) == 1
    assert [mail.recipients for mail in peer.messages] == [[OPS]]
    assert end_quiet_hours(app) == 1
    assert [mail.recipients for mail in peer.messages] == [[OPS], [NIGHT]]


def test_without_events_there_is_no_summary(app: Flask, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    assert end_quiet_hours(app) == 0
    assert not peer.messages


def test_a_welcome_email_is_sent_itself_for_its_password(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, NIGHT)
    post("user.created", WELCOME)
    assert end_quiet_hours(app) == 0
    assert [mail.recipients for mail in peer.messages] == [[OPS], [NIGHT]]
    assert b"s3cret-Extension" in peer.messages[-1].content
    with app.app_context():
        assert sql("SELECT count(*) FROM events WHERE secrets_encrypted IS NOT NULL")[0][0] == 0


def test_a_removed_or_paused_recipient_gets_nothing(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    post("user.created", WELCOME)
    with app.app_context():
        recipients.replace(acme(), [OPS, "new@acme.example"])
        recipients.pause(acme(), recipient(OPS), None)
    assert end_quiet_hours(app) == 0
    assert not peer.messages
    assert statuses(app) == [("discarded", None)]
    with app.app_context():
        texts = {row[0] for row in sql("SELECT text FROM delivery_recipients")}
        assert texts == {quiet_hours.NOT_LISTED}
        assert sql("SELECT count(*) FROM events WHERE secrets_encrypted IS NOT NULL")[0][0] == 0


def test_what_is_held_waits_for_the_time_that_was_promised(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, NIGHT)
    held_until = post().json["deliveries"][1]["held_until"]
    set_rules(app, NIGHT)
    with app.app_context():
        acme().time_zone = "Pacific/Auckland"
        send_due_emails()
        (held,) = sql("SELECT held_until FROM deliveries WHERE held_until IS NOT NULL")
        assert held[0] == datetime.fromisoformat(held_until)
    assert post().json["status"] == "sent", "without quiet hours, the next event is sent"
    assert end_quiet_hours(app) == 1


def test_a_person_may_send_or_discard_what_is_held(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    post()
    with app.app_context():
        acme()
        first, second = (row[0] for row in sql("SELECT id FROM deliveries ORDER BY id"))
        assert actions.send_now([first]) == 1
        assert actions.discard([second]) == 1
        send_due_emails()
    assert len(peer.messages) == 1
    assert end_quiet_hours(app) == 0


def test_a_storm_in_quiet_hours(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, NIGHT)
    answers = [post().json["status"] for _ in range(12)]
    assert answers == ["partial"] * 10 + ["held"] * 2
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        sql("UPDATE events SET received_at = received_at - interval '5 minutes'")
        assert all(digest.write_digest(*storm) for storm in digest.ended_storms())
        send_due_emails()
    assert {tuple(mail.recipients) for mail in peer.messages} == {(OPS,)}
    assert end_quiet_hours(app) == 1
    subject, body = text_of(peer.messages[-1])
    assert subject == "After your quiet hours: 11 held back"
    assert "12 lost calls in queue 8000" in body
    assert sorted({reason for _, reason in statuses(app)}, key=str) == [None, "throttled"]


def test_a_summary_is_tried_again_with_the_same_content(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    peer.script = {"data": "451 4.3.0 not now"}
    assert end_quiet_hours(app) == 2
    assert not peer.messages
    peer.script = {}
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now() WHERE status = 'deferred'")
    assert end_quiet_hours(app) == 0
    assert [mail.recipients for mail in peer.messages] == [[OPS], [NIGHT]]


def test_a_worker_that_dies_loses_and_repeats_nothing(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    with monkeypatch.context() as patch:
        patch.setattr(quiet_hours, "_end_emails", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            end_quiet_hours(app)
    assert not peer.messages
    with app.app_context():
        assert sql(HELD)[0][0] == 1
        assert lifecycle.expire_deliveries() == 0
    assert end_quiet_hours(app) == 2


def test_late_workers_do_not_let_it_expire(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    with app.app_context():
        sql("UPDATE deliveries SET expires_at = now() - interval '3 days', held_until = now() - interval '4 days'")
        assert lifecycle.expire_deliveries() == 0
    assert end_quiet_hours(app) == 2
    assert len(peer.messages) == 2


def test_it_expires_later_by_the_quiet_hours(app: Flask, post: Post, working_tenant: str) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    with app.app_context():
        lasts = sql("SELECT expires_at - held_until FROM deliveries")[0][0]
    assert abs(lasts - timedelta(hours=24)) < timedelta(seconds=5)


def test_many_events_are_counted_and_the_first_are_listed(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("UPDATE tenants SET storm_limit = 1000")
    begin_quiet_hours(app, NIGHT, OPS)
    for number in range(25):
        post(data={**CALL_LOST, "caller_number": f"+4420{number:04}"})
    assert end_quiet_hours(app) == 2
    subject, body = text_of(peer.messages[-1])
    assert subject == "After your quiet hours: 25 held back"
    assert body.count("+4420") == 20
    assert "… and 5 more" in body


def test_an_email_that_waited_for_recipients_does_not_wait_for_quiet_hours_too(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("DELETE FROM recipients")
    assert post().json["reason"] == "no_recipients"
    with app.app_context():
        recipients.replace(acme(), PEOPLE)
    begin_quiet_hours(app, OPS)
    with app.app_context():
        send_due_emails()
    assert sorted(peer.messages[-1].recipients) == sorted(PEOPLE)


def test_it_is_suspended_with_the_tenant(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    begin_quiet_hours(app, OPS, NIGHT)
    post()
    with app.app_context():
        tenant_service.suspend(acme())
    assert end_quiet_hours(app) == 2
    assert not peer.messages
    with app.app_context():
        tenant_service.resume(acme())
        send_due_emails()
    assert len(peer.messages) == 2


def test_a_digest_lists_a_call_once_though_some_are_in_quiet_hours(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, NIGHT)
    for number in range(14):
        post(data={**CALL_LOST, "caller_number": f"+4420{number:04}"})
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        sql("UPDATE events SET received_at = received_at - interval '5 minutes'")
        assert all(digest.write_digest(*storm) for storm in digest.ended_storms())
        send_due_emails()
    _, body = text_of(peer.messages[-1])
    assert [body.count(f"+4420{number:04}") for number in range(10, 14)] == [1] * 4


def test_a_recipient_that_is_written_in_other_letters_meanwhile_gets_the_summary(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    begin_quiet_hours(app, NIGHT)
    post()
    with app.app_context():
        recipients.replace(acme(), [OPS, NIGHT.capitalize()])
    assert end_quiet_hours(app) == 1
    assert peer.messages[-1].recipients == [NIGHT.capitalize()]
