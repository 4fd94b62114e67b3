"""The overview of the system: email health, tenants with problems and silent tenants."""

from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.deliveries import statistics
from portal.mail_servers import service as mail_server_settings
from portal.overview import alerts
from portal.pbx import api_keys
from portal.signals import alerts_due
from portal.tenants import service as tenant_service
from tests.overview.page_text import page_text
from tests.pages import post as submit
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, entered

PAGE = "/system/overview"
ALIVE = "INSERT INTO procrastinate_workers DEFAULT VALUES"
CALM = "Nothing needs your attention"


def test_it_is_the_system_administrators_first_page(system: FlaskClient) -> None:
    assert system.get("/").location == PAGE


def test_a_new_system(system: FlaskClient, app: Flask) -> None:
    page = page_text(system, PAGE)
    assert "No system mail server" in page
    assert "No worker is running" in page
    assert "30 days have not been counted yet" in page
    with app.app_context():
        sql(ALIVE)
        before = datetime.now(UTC)
        statistics.update()
        after = datetime.now(UTC)
    page = page_text(system, PAGE)
    assert CALM in page
    assert "not counted" not in page
    assert any(f"Counted at {counted_at:%H:}" in page for counted_at in (before, after))


def test_the_systems_mail_server(system: FlaskClient, app: Flask) -> None:
    with app.app_context():
        mail_server_settings.save(None, entered(2525))
    assert "Mail server is ready 127.0.0.1, not shared with tenants" in page_text(system, PAGE)
    with app.app_context():
        mail_server_settings.share(True)
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute', pause_reason = 'It does not answer.'")
    page = page_text(system, PAGE)
    assert "Email is delayed 127.0.0.1, shared with all tenants" in page
    assert "It does not answer. Next attempt in" in page
    assert submit(system, PAGE, f"{PAGE}/try-now").location == PAGE
    assert "Mail server is ready" in page_text(system, PAGE)


def test_overdue_email(system: FlaskClient, post: Post, working_tenant: str, app: Flask) -> None:
    post()
    with app.app_context():
        sql(ALIVE)
        sql("UPDATE deliveries SET status = 'deferred', next_attempt_at = now() - interval '10 minutes'")
    assert "1 email is overdue by more than 5 minutes" in page_text(system, PAGE)


def test_requests_without_a_valid_key(system: FlaskClient, app: Flask) -> None:
    client = app.test_client()
    for _ in range(2):
        assert client.post("/api/v1/events", json={}).status_code == 401
    assert "2 requests were rejected in the last 7 days (system key or no valid key)." in page_text(system, PAGE)


def test_the_worst_tenants_come_first(
    system: FlaskClient, post: Post, working_tenant: str, globex: str, app: Flask
) -> None:
    for caller in range(12):
        post(data=CALL_LOST | {"caller_number": f"70{caller:02}"})
    with app.app_context():
        sql(ALIVE)
        other = tenant_service.find(globex)
        assert other
        mail_server_settings.save(other.id, entered(2525))
        sql("UPDATE mail_servers SET rejected_at = now() WHERE tenant_id = :id", id=other.id)
    page = page_text(system, PAGE)
    assert "Globex globex.example Its mail server rejects the settings. Acme acme.example 2 emails are held." in page
    assert f'href="/tenants/{globex}/"' in system.get(PAGE).get_data(as_text=True)
    with app.app_context():
        sql("UPDATE deliveries SET status = 'failed' WHERE status = 'sent'")
    assert "Acme acme.example 10 emails were not delivered in the last 24 hours. 2 emails are held." in page_text(
        system, PAGE
    )


def test_a_tenant_with_events_on_and_no_mail_server(system: FlaskClient, working_tenant: str, app: Flask) -> None:
    problem = "Acme acme.example Events are on, but no mail server is set up."
    assert problem not in page_text(system, PAGE)
    with app.app_context():
        sql("DELETE FROM mail_servers")
        mail_server_settings.save(None, entered(2525))
    assert problem in page_text(system, PAGE)
    with app.app_context():
        mail_server_settings.share(True)
    assert problem not in page_text(system, PAGE)


def test_a_paused_server(system: FlaskClient, working_tenant: str, app: Flask) -> None:
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute'")
        assert "Its mail server is not responding at the moment." in page_text(system, PAGE)
        sql("UPDATE mail_servers SET paused_until = now() - interval '1 second'")
        assert "Tenants with problems" not in page_text(system, PAGE)


def test_more_tenants_with_problems_than_are_shown(
    system: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_TENANTS_SHOWN", 2)
    with app.app_context():
        for number in range(5):
            tenant_service.add(f"Tenant {number}", f"t{number}.example", "UTC")
        sql("INSERT INTO notification_settings SELECT id, 'queue.call_lost', true, 'both' FROM tenants")
    page = page_text(system, PAGE)
    assert "t0.example" in page
    assert "t2.example" not in page
    assert "And 3 more" in page
    assert 'href="/system/tenants?health=problem&amp;sort=health">And 3 more<' in system.get(PAGE).get_data(
        as_text=True
    )
    assert "5 tenants" in page_text(system, "/system/tenants?health=problem&sort=health")


def test_a_worker_finds_the_worst_tenants(
    system: FlaskClient, working_tenant: str, globex: str, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.app_context():
        sql(ALIVE)
        sql("UPDATE mail_servers SET rejected_at = now()")
        alerts_due.send()
        sql("INSERT INTO notification_settings SELECT id, 'queue.call_lost', true, 'both' FROM tenants WHERE id = 2")
        only_acme = "Acme acme.example Its mail server rejects the settings."
        assert only_acme in page_text(system, PAGE)
        assert "Globex" not in page_text(system, PAGE)
        sql("UPDATE mail_servers SET rejected_at = NULL")
        assert CALM in page_text(system, PAGE), "what is over is not shown"
        alerts_due.send()
        assert "Globex globex.example Events are on, but no mail server is set up." in page_text(system, PAGE)
        sql("UPDATE mail_servers SET rejected_at = now()")
        sql("UPDATE worst_tenants SET found_at = now() - interval '4 minutes'")
        assert only_acme in page_text(system, PAGE), "no worker runs"


def test_silent_tenants(system: FlaskClient, app: Flask, acme: str, globex: str) -> None:
    with app.app_context():
        for domain in (acme, globex):
            api_keys.issue(tenant_service.find(domain))
        assert "No events for a week" not in page_text(system, PAGE)
        sql("UPDATE api_keys SET created_at = now() - interval '20 days'")
        sql("UPDATE api_keys SET last_used_at = now() - interval '8 days' WHERE tenant_id = 1")
        page = page_text(system, PAGE)
        assert "No events for a week Acme acme.example Last event" in page
        assert "Globex globex.example Never used; key issued" in page
        sql("UPDATE api_keys SET last_used_at = now() WHERE tenant_id = 1")
        sql("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = 2")
        assert "No events for a week" not in page_text(system, PAGE)


def test_a_tenant_that_uses_another_key_is_not_silent(system: FlaskClient, app: Flask, acme: str) -> None:
    with app.app_context():
        for _ in range(2):
            api_keys.issue(tenant_service.find(acme))
        sql("UPDATE api_keys SET created_at = now() - interval '20 days'")
        sql("UPDATE api_keys SET last_used_at = now() WHERE id = (SELECT max(id) FROM api_keys)")
    assert "No events for a week" not in page_text(system, PAGE)
