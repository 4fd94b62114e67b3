"""Emails about alerts: when they begin, once a day, and when they are over; to whom; and never in a loop."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from portal.accounts import service as account_service
from portal.alerts import notices, recording, watch
from portal.deliveries import worker as deliveries_worker
from portal.extensions import db
from portal.mail_servers import account_email
from portal.tenants import service as tenant_service
from tests.alerts.conftest import ADMIN, ROOT
from tests.conftest import make_account, signed_in
from tests.overview.page_text import page_text
from tests.pages import post as submit
from tests.processes import wait_for
from tests.smtp_peer import Fault, SlowReply, SmtpPeer
from tests.sql import owner_engine, sql
from tests.tenant_fixtures import Post

REJECTED = "UPDATE mail_servers SET rejected_at = now() - interval '1 hour' WHERE tenant_id = 1"
ACCEPTED = "UPDATE mail_servers SET rejected_at = NULL WHERE tenant_id = 1"
WORKER = "INSERT INTO procrastinate_workers DEFAULT VALUES"
LATER = """
    UPDATE alert_notices SET told_at = told_at - :hours * interval '1 hour',
        retry_at = retry_at - :hours * interval '1 hour'
"""
SETTLED = "UPDATE alerts SET absent_since = absent_since - interval '6 minutes'"

pytestmark = pytest.mark.usefixtures("people", "alive")


@pytest.fixture
def alive(app: Flask) -> None:
    with app.app_context():
        sql(WORKER)


def told(app: Flask, peer: SmtpPeer, *changes: str) -> Sequence[EmailMessage]:
    """Make these changes, look for alerts, and return the emails that were sent."""
    before = len(peer.messages)
    with app.app_context():
        for change in changes:
            sql(change)
        watch.look()
    return [message_from_bytes(each.content, policy=policy.default) for each in peer.messages[before:]]


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def test_it_begins_lasts_and_is_over(app: Flask, system_peer: SmtpPeer) -> None:
    assert not told(app, system_peer)
    (begun,) = told(app, system_peer, REJECTED)
    assert begun["To"] == ADMIN
    assert begun["From"] == "PBX Notification Portal <portal@pbx.example>"
    assert begun["Auto-Submitted"] == "auto-generated"
    assert begun["Subject"] == "Acme (acme.example): The mail server 127.0.0.1 rejects the settings."
    text = text_of(begun)
    assert re.search(r"Since \d+ \w+ 20\d\d, \d\d:\d\d \(Europe/Berlin\)", text)
    assert "Email is held." in text
    assert "Check the settings\nhttp://portal.test/tenants/acme.example/mail-server\n" in text
    assert "Choose which alerts you get: http://portal.test/account#alerts" in text
    assert not told(app, system_peer), "once"
    assert not told(app, system_peer, LATER.replace(":hours", "23"))
    (reminder,) = told(app, system_peer, LATER.replace(":hours", "2"))
    assert text_of(reminder).lstrip().startswith("Still the case:")
    assert not told(app, system_peer, ACCEPTED), "it may come back at once"
    (over,) = told(app, system_peer, SETTLED)
    assert over["Subject"] == "Acme (acme.example): The mail server 127.0.0.1 works again, or has new settings."
    assert re.search(r"From \d+ .* to \d+ .* \(Europe/Berlin\)", text_of(over))
    assert not told(app, system_peer, LATER.replace(":hours", "48"))


def test_what_is_over_before_anyone_was_told_is_not_told(app: Flask, system_peer: SmtpPeer) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET rejected_at = now() - interval '1 minute' WHERE tenant_id = 1")
    assert not told(app, system_peer)
    assert not told(app, system_peer, ACCEPTED)
    assert not told(app, system_peer, SETTLED)


def test_several_at_once_are_one_email_in_the_language_of_the_account(
    app: Flask, system_peer: SmtpPeer, post: Post
) -> None:
    post()
    with app.app_context():
        account = account_service.find(ADMIN)
        assert account
        account_service.set_language(account, "de")
    held = "UPDATE deliveries SET status = 'held', reason = 'no_recipients', last_attempt_at = now() - interval '2 h'"
    (message,) = told(app, system_peer, REJECTED, held, "UPDATE api_keys SET expires_at = now() + interval '2 days'")
    text = text_of(message)
    assert "/tenants/acme.example/recipients" in text
    assert "/tenants/acme.example/keys" in text
    html = message.get_body(("html",))
    assert html is not None
    assert '<html lang="de">' in html.get_content()
    (reminder,) = told(app, system_peer, LATER.replace(":hours", "25"))
    assert "/tenants/acme.example/keys" in text_of(reminder), "a weekly one comes with a daily one"
    told(app, system_peer, ACCEPTED, "DELETE FROM deliveries")
    told(app, system_peer, SETTLED)
    assert not told(app, system_peer, LATER.replace(":hours", "160")), "alone, it comes once a week"
    (weekly,) = told(app, system_peer, LATER.replace(":hours", "10"))
    assert "/tenants/acme.example/keys" in text_of(weekly)


def test_the_systems_alerts_and_those_of_tenants_without_administrators(app: Flask, system_peer: SmtpPeer) -> None:
    (message,) = told(
        app,
        system_peer,
        REJECTED,
        "DELETE FROM memberships",
        "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '10 minutes'",
    )
    assert message["To"] == ROOT
    assert message["Subject"] == "PBX Notification Portal: 2 alerts"
    assert "Acme (acme.example)\nThe mail server 127.0.0.1 rejects" in text_of(message)
    assert "PBX Notification Portal\nNo worker is running" in text_of(message)
    assert "\nhttp://portal.test/system/overview\n" in text_of(message)


def test_accounts_that_are_deactivated_are_not_told(app: Flask, system_peer: SmtpPeer) -> None:
    make_account(app, "other@acme.example", administers="acme.example")
    messages = told(app, system_peer, REJECTED, f"UPDATE accounts SET active = false WHERE email = '{ADMIN}'")
    assert [message["To"] for message in messages] == ["other@acme.example"]


def test_viewers_are_told_nothing_until_they_want_to_know(app: Flask, system_peer: SmtpPeer) -> None:
    viewer = "viewer@acme.example"
    make_account(app, viewer, administers="acme.example")
    view = """
        UPDATE memberships SET role = 'viewer'
        WHERE account_id = (SELECT id FROM accounts WHERE email = 'viewer@acme.example')
    """
    assert [message["To"] for message in told(app, system_peer, view, REJECTED)] == [ADMIN]
    browser = signed_in(app, viewer)
    assert '" checked>' not in browser.get("/account").text
    submit(browser, "/account", "/account/alerts", kinds=["mail_server"])
    assert [message["To"] for message in told(app, system_peer)] == [viewer]
    remove = "DELETE FROM memberships WHERE role = 'administrator'"
    assert [message["To"] for message in told(app, system_peer, remove)] == [ROOT], "nobody administers the tenant"


def test_a_suspended_tenants_administrators_are_told_nothing(app: Flask, system_peer: SmtpPeer) -> None:
    assert told(app, system_peer, REJECTED)
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant
        tenant_service.suspend(tenant)
    assert not told(app, system_peer, LATER.replace(":hours", "25"))
    assert not told(app, system_peer, ACCEPTED)


def test_each_account_chooses_its_alerts(app: Flask, system_peer: SmtpPeer) -> None:
    browser = signed_in(app, ADMIN)
    page = browser.get("/account").text
    assert page.count('name="kinds"') == 4, "a tenant's administrator is not told about the system"
    assert submit(browser, "/account", "/account/alerts", kinds=["held", "expiry"]).location == "/account#alerts"
    assert browser.get("/account").text.count('" checked>') == 2
    with app.app_context():
        entry = sql("SELECT subject, changes FROM audit_entries WHERE action = 'account.alerts_chosen'")[0]
    assert entry.changes == {"alerts": [["mail_server", "held", "expiry", "silence"], ["held", "expiry"]]}
    assert not told(app, system_peer, REJECTED)
    submit(browser, "/account", "/account/alerts", kinds=["mail_server"])
    assert len(told(app, system_peer)) == 1
    assert signed_in(app, ROOT).get("/account").text.count('name="kinds"') == 6


FAILING = (
    "UPDATE mail_servers SET failing_since = now() - interval '1 hour', last_failed_at = now() WHERE tenant_id IS NULL"
)


def test_a_failing_system_server_is_not_told_through_itself(
    app: Flask, system_peer: SmtpPeer, system: FlaskClient
) -> None:
    paused = "UPDATE mail_servers SET paused_until = now() + interval '1 minute' WHERE tenant_id IS NULL"
    assert not told(app, system_peer, REJECTED, FAILING, paused)
    page = page_text(system, "/system/overview")
    assert "Alerts cannot be emailed at the moment: the system's mail server is not responding." in page
    assert "Sending through the mail server 127.0.0.1 fails." in page
    assert not system_peer.conversations, "no attempt either"
    system_peer.script = {"greeting": Fault.DROP}
    assert not told(app, system_peer, "UPDATE mail_servers SET paused_until = NULL")
    assert len(system_peer.conversations) == 1, "one attempt finds that it fails, and no second email is tried"
    assert not told(app, system_peer)
    assert len(system_peer.conversations) == 1, "it is paused"
    system_peer.script = {}
    first, second = told(app, system_peer, "UPDATE mail_servers SET paused_until = NULL")
    assert {first["To"], second["To"]} == {ADMIN, ROOT}
    assert not told(app, system_peer)
    with app.app_context():
        assert sql("SELECT failing_since FROM mail_servers WHERE tenant_id IS NULL")[0][0] is None
    page = page_text(system, "/system/overview")
    assert "Administrators were last emailed about an alert" in page
    assert "cannot be emailed" not in page
    assert "Sending through" not in page


def test_a_system_without_a_mail_server_says_that_nobody_is_told(
    app: Flask, peer: SmtpPeer, system: FlaskClient
) -> None:
    assert not told(app, peer, REJECTED)
    page = page_text(system, "/system/overview")
    assert "Alerts cannot be emailed at the moment: the system has no mail server." in page


def test_one_account_that_cannot_be_reached_is_named_and_does_not_stop_the_others(
    app: Flask, system_peer: SmtpPeer, system: FlaskClient
) -> None:
    make_account(app, "other@acme.example", administers="acme.example")
    system_peer.script = {"rcpt": "550 5.1.1 No such user"}
    assert not [message for message in told(app, system_peer, REJECTED) if message["To"] is None]
    assert len(system_peer.conversations) == 2, "each of the two was tried"
    told(app, system_peer)
    assert len(system_peer.conversations) == 2, "and waits for an hour"
    page = page_text(system, "/system/overview")
    assert f"{ADMIN} could not be emailed: rcpt 550" in page
    system_peer.script = {}
    messages = told(app, system_peer, LATER.replace(":hours", "2"))
    assert sorted(message["To"] for message in messages) == [ADMIN, "other@acme.example"]
    assert "could not be emailed" not in page_text(system, "/system/overview")


def test_alert_emails_are_nobodys_deliveries(app: Flask, system_peer: SmtpPeer) -> None:
    assert told(app, system_peer, REJECTED)
    with app.app_context():
        assert not sql("SELECT * FROM deliveries")
        assert not sql("SELECT * FROM shared_server_usage")


def test_the_page_says_that_administrators_were_told(app: Flask, system_peer: SmtpPeer) -> None:
    told(app, system_peer, REJECTED)
    page = page_text(signed_in(app, ADMIN), "/tenants/acme.example/overview")
    assert re.search(r"rejects the settings\. Administrators were emailed .* ago *\. Check the settings", page)


def test_two_processes_send_once(app: Flask, system_peer: SmtpPeer) -> None:
    with app.app_context():
        sql(REJECTED)
        with owner_engine(db.engine.url).connect() as other:
            other.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": watch.LOCK})
            watch.look()
            assert not system_peer.messages, "another process is looking"
            other.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": watch.LOCK})

    def look() -> None:
        with app.app_context():
            watch.look()

    system_peer.script = {"dot": SlowReply("250 ok", 0.05)}
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(look) for _ in range(4)]:
            done.result()
    assert len(system_peer.messages) == 1


class Killed(BaseException):
    """Stands for the end of a process."""


def test_a_process_that_dies_repeats_one_email_at_most(
    app: Flask, system_peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_account(app, "a@acme.example", administers="acme.example")
    make_account(app, "b@acme.example", administers="acme.example")
    store, stored = notices._store, list[object]()

    def die_at_the_second(*values: Any) -> None:
        stored.append(values)
        if len(stored) == 2:
            raise Killed
        store(*values)

    monkeypatch.setattr(notices, "_store", die_at_the_second)
    with pytest.raises(Killed):
        told(app, system_peer, REJECTED)
    monkeypatch.undo()
    assert len(system_peer.messages) == 2
    messages = told(app, system_peer)
    assert len(messages) == 2, "the second is repeated, the third is sent"
    assert not told(app, system_peer)


def test_a_worker_looks_every_minute(app: Flask, system_peer: SmtpPeer) -> None:
    with app.app_context():
        sql(REJECTED)
        deliveries_worker.PERIODIC_WORK["alerts"][1]()
    assert len(system_peer.messages) == 1


def test_a_web_process_looks_while_no_worker_is_running(app: Flask, system_peer: SmtpPeer) -> None:
    with app.app_context():
        sql(REJECTED)
        watch.look_without_worker()
        assert not system_peer.messages, "a worker is there, and looks"
        sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '6 minutes'")
        watch.look_without_worker()
    messages = [message_from_bytes(each.content, policy=policy.default) for each in system_peer.messages]
    assert {message["To"] for message in messages} == {ADMIN, ROOT}
    assert "No worker is running" in text_of(next(message for message in messages if message["To"] == ROOT))
    (over,) = told(app, system_peer, "UPDATE procrastinate_workers SET last_heartbeat = now()", SETTLED) or told(
        app, system_peer, SETTLED
    )
    assert over["Subject"] == "PBX Notification Portal: A worker is running again."


def test_the_thread_of_a_web_process_looks_at_intervals(
    app: Flask, system_peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.app_context():
        sql(REJECTED)
        sql("DELETE FROM procrastinate_workers")
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    look, failures = watch.look, [RuntimeError("once")]

    def fail_once() -> None:
        if failures:
            raise failures.pop()
        look()

    monkeypatch.setattr(watch, "look", fail_once)
    thread, stop = watch.start(app)
    wait_for(lambda: bool(system_peer.messages))
    stop.set()
    thread.join(60)
    assert [message.recipients for message in system_peer.messages] == [[ADMIN]]


def test_a_tenant_that_is_deleted_meanwhile_does_not_repeat_the_email_about_others(
    app: Flask, system_peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = """
        WITH tenant AS (
            INSERT INTO tenants (id, name, domain, time_zone, language)
            VALUES (77, 'Other', 'other.example', 'UTC', 'en') RETURNING id
        )
        INSERT INTO memberships (account_id, tenant_id) SELECT accounts.id, tenant.id FROM accounts, tenant
        WHERE email = 'admin@acme.example'
    """
    send = account_email.send

    def send_and_delete(*values: Any) -> Any:
        failed = send(*values)
        sql("DELETE FROM tenants WHERE id = 77")
        return failed

    monkeypatch.setattr(account_email, "send", send_and_delete)
    record = recording.record_all

    def record_one_more() -> None:
        record()
        sql("""INSERT INTO alerts (tenant_id, kind, subject, details, began_at, tell_at)
            VALUES (77, 'silence', '', '{}', now(), now())""")

    monkeypatch.setattr(recording, "record_all", record_one_more)
    assert len(told(app, system_peer, REJECTED, other)) == 1
    monkeypatch.setattr(recording, "record_all", record)
    assert not told(app, system_peer)
