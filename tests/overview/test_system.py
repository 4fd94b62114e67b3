"""The overview of the system: who has trouble, who is silent, and whether the system itself works."""

from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.deliveries import tally
from portal.mail_servers import settings as mail_server_settings
from portal.overview import troubles
from portal.pbx import keys
from portal.tenants import directory
from tests.overview.reading import words
from tests.pages import post as submit
from tests.ready import CALL_LOST, Post, entered
from tests.sql import sql

PAGE = "/system/overview"
ALIVE = "INSERT INTO procrastinate_workers DEFAULT VALUES"
CALM = "Nothing needs your attention"


def test_it_is_where_the_systems_administrator_begins(system: FlaskClient) -> None:
    assert system.get("/").location == PAGE


def test_a_new_system(system: FlaskClient, app: Flask) -> None:
    page = words(system, PAGE)
    assert "No system mail server" in page
    assert "No worker is running" in page
    assert "30 days are not counted yet" in page
    with app.app_context():
        sql(ALIVE)
        tally.count()
    page = words(system, PAGE)
    assert CALM in page
    assert "not counted" not in page
    assert f"Counted at {datetime.now(UTC):%H:}" in page


def test_the_systems_mail_server(system: FlaskClient, app: Flask) -> None:
    with app.app_context():
        mail_server_settings.save(None, entered(2525))
    assert "Mail server is ready 127.0.0.1, not shared with tenants" in words(system, PAGE)
    with app.app_context():
        mail_server_settings.share(True)
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute', pause_text = 'It does not answer.'")
    page = words(system, PAGE)
    assert "Mail waits 127.0.0.1, shared with all tenants" in page
    assert "It does not answer. Next try in" in page
    assert submit(system, PAGE, f"{PAGE}/try-now").location == PAGE
    assert "Mail server is ready" in words(system, PAGE)


def test_mail_that_no_worker_takes(system: FlaskClient, post: Post, ready: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql(ALIVE)
        sql("UPDATE deliveries SET status = 'deferred', next_attempt_at = now() - interval '10 minutes'")
    assert "1 mail is overdue by more than 5 minutes" in words(system, PAGE)


def test_calls_without_a_key(system: FlaskClient, app: Flask) -> None:
    client = app.test_client()
    for _ in range(2):
        assert client.post("/api/v1/events", json={}).status_code == 401
    assert "2 calls were rejected in the last 7 days, of the system's keys or of none." in words(system, PAGE)


def test_the_worst_come_first(system: FlaskClient, post: Post, ready: str, globex: str, app: Flask) -> None:
    for caller in range(12):
        post(data=CALL_LOST | {"caller_number": f"70{caller:02}"})
    with app.app_context():
        sql(ALIVE)
        other = directory.find(globex)
        assert other
        mail_server_settings.save(other.id, entered(2525))
        sql("UPDATE mail_servers SET rejected_at = now() WHERE tenant_id = :id", id=other.id)
    page = words(system, PAGE)
    assert "Globex globex.example Its mail server rejects the settings. Acme acme.example 2 mails are held." in page
    assert f'href="/tenants/{globex}/"' in system.get(PAGE).get_data(as_text=True)
    with app.app_context():
        sql("UPDATE deliveries SET status = 'failed' WHERE status = 'sent'")
    assert "Acme acme.example 10 mails were not delivered in the last 24 hours. 2 mails are held." in words(
        system, PAGE
    )


def test_a_tenant_without_a_server_although_its_events_are_on(system: FlaskClient, ready: str, app: Flask) -> None:
    trouble = "Acme acme.example Events are on, and there is no mail server."
    assert trouble not in words(system, PAGE)
    with app.app_context():
        sql("DELETE FROM mail_servers")
        mail_server_settings.save(None, entered(2525))
    assert trouble in words(system, PAGE)
    with app.app_context():
        mail_server_settings.share(True)
    assert trouble not in words(system, PAGE)


def test_a_paused_server(system: FlaskClient, ready: str, app: Flask) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute'")
        assert "Its mail server does not answer just now." in words(system, PAGE)
        sql("UPDATE mail_servers SET paused_until = now() - interval '1 second'")
        assert "Tenants in trouble" not in words(system, PAGE)


def test_more_than_a_page_of_trouble(system: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(troubles, "SHOWN", 2)
    with app.app_context():
        for number in range(5):
            directory.add(f"Tenant {number}", f"t{number}.example", "UTC")
        sql("INSERT INTO notification_switches SELECT id, 'queue.call_lost', true, 'both' FROM tenants")
    page = words(system, PAGE)
    assert "t0.example" in page
    assert "t2.example" not in page
    assert "And 3 more." in page


def test_who_is_silent(system: FlaskClient, app: Flask, acme: str, globex: str) -> None:
    with app.app_context():
        for domain in (acme, globex):
            keys.issue(directory.find(domain))
        assert "Silent" not in words(system, PAGE)
        sql("UPDATE pbx_keys SET created_at = now() - interval '20 days'")
        sql("UPDATE pbx_keys SET last_used_at = now() - interval '8 days' WHERE tenant_id = 1")
        page = words(system, PAGE)
        assert "Silent for a week Acme acme.example Last called" in page
        assert "Globex globex.example Never called; key issued" in page
        sql("UPDATE pbx_keys SET last_used_at = now() WHERE tenant_id = 1")
        sql("UPDATE pbx_keys SET revoked_at = now() WHERE tenant_id = 2")
        assert "Silent" not in words(system, PAGE)


def test_who_calls_with_another_key_is_not_silent(system: FlaskClient, app: Flask, acme: str) -> None:
    with app.app_context():
        for _ in range(2):
            keys.issue(directory.find(acme))
        sql("UPDATE pbx_keys SET created_at = now() - interval '20 days'")
        sql("UPDATE pbx_keys SET last_used_at = now() WHERE id = (SELECT max(id) FROM pbx_keys)")
    assert "Silent" not in words(system, PAGE)
