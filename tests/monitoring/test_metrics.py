"""What Prometheus reads: who may, what it says about the database, and that no label is a tenant or an address."""

import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import OperationalError
from pydantic import SecretStr, ValidationError

from portal import create_app
from portal.config import Settings
from portal.database import fast_sql
from portal.deliveries import lifecycle
from portal.deliveries.status import HoldReason, Status
from portal.mail_servers.smtp import pool
from portal.monitoring.counters import EMAILS, EVENT_SECONDS, EVENTS, REJECTED, note
from portal.monitoring.processes import Reporter
from portal.pbx import api_keys
from portal.pbx.rejection_reasons import RejectionReason
from portal.tenants import service as tenant_service
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.monitoring.conftest import TOKEN, Scrape
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post

LABELS = {"result", "outcome", "owner", "reason", "kind", "le"}


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), (f"Bearer {TOKEN}", 200), ("Bearer wrong", 401), (f"Basic {TOKEN}", 401), ("Bearer ", 401)],
)
def test_they_need_the_token(with_token: Flask, authorization: str | None, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    assert with_token.test_client().get("/metrics", headers=headers).status_code == status


def test_without_a_token_in_the_settings_there_are_none(client: FlaskClient) -> None:
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_the_token_must_not_be_easy_to_guess() -> None:
    with pytest.raises(ValidationError, match="32 random characters"):
        Settings(portal_env="development", metrics_token=SecretStr("prometheus"))


def test_an_empty_portal_has_all_numbers(scrape: Scrape) -> None:
    found = scrape()
    assert found["pbx_portal_database_up"] == 1
    assert found['pbx_portal_events_total{result="sent"}'] == 0
    assert found['pbx_portal_event_seconds_bucket{le="+Inf"}'] == 0
    assert found['pbx_portal_held_emails{reason="no_mail_server"}'] == 0
    assert found["pbx_portal_due_emails"] == found["pbx_portal_oldest_due_email_seconds"] == 0
    assert found["pbx_portal_worker_up"] == 0
    assert 0 < found["pbx_portal_database_connections"] < found["pbx_portal_database_connections_limit"]
    assert 0 < found["pbx_portal_database_disk_free_ratio"] < 1


def test_every_result_and_reason_has_a_label() -> None:
    assert {reason.key for reason in RejectionReason} < set(REJECTED.labels["reason"])
    assert set(Status) - {Status.PENDING} < set(EVENTS.labels["result"])
    results = {Status.SENT, Status.PARTIAL, Status.DEFERRED, Status.FAILED, Status.HELD, Status.EXPIRED}
    assert results < set(EMAILS.labels["outcome"])


def test_no_label_says_who_it_is_about(scrape_text: Callable[[], str], post: Post, working_tenant: str) -> None:
    assert post().json["status"] == "sent"
    text = scrape_text()
    assert set(re.findall(r'[{,]([a-z_]+)="', text)) <= LABELS
    assert "acme" not in text
    assert "127.0.0.1" not in text
    assert len(text.splitlines()) < 250


def test_due_held_and_expired_emails(
    with_token: Flask, scrape: Scrape, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    assert post().json["status"] == "deferred"
    assert scrape()["pbx_portal_due_emails"] == 0, "it is queued for later"
    with with_token.app_context():
        sql("UPDATE deliveries SET next_attempt_at = now() - interval '90 seconds'")
    found = scrape()
    assert found["pbx_portal_due_emails"] == 1
    assert 90 <= found["pbx_portal_oldest_due_email_seconds"] < 120
    with with_token.app_context():
        sql("DELETE FROM recipients")
    assert post().json["reason"] == HoldReason.NO_RECIPIENTS
    assert scrape()['pbx_portal_held_emails{reason="no_recipients"}'] == 1
    with with_token.app_context():
        sql("UPDATE deliveries SET expires_at = now() - interval '1 second'")
        assert lifecycle.expire_deliveries() == 2
    Reporter(with_token, "worker", pool.slots_in_use).report()
    found = scrape()
    assert found["pbx_portal_due_emails"] == found['pbx_portal_held_emails{reason="no_recipients"}'] == 0
    assert found['pbx_portal_emails_total{outcome="deferred",owner="tenant"}'] == 1
    assert found['pbx_portal_emails_total{outcome="expired",owner="tenant"}'] == 1
    assert found['pbx_portal_emails_total{outcome="expired",owner="none"}'] == 1
    assert found['pbx_portal_smtp_seconds_count{owner="tenant"}'] == 1
    assert found['pbx_portal_smtp_slots{kind="worker"}'] == 12


def test_what_lapses_next(with_token: Flask, scrape: Scrape, acme: str) -> None:
    assert not [name for name in scrape() if "lapse" in name]
    today = datetime.now(UTC)
    with with_token.app_context():
        tenant = tenant_service.find(acme)
        for name, days in {"later": 20, "next": 5, "replaced": 3}.items():
            api_keys.issue(tenant, name, (today + timedelta(days=days)).date())
        api_keys.issue(tenant, "replaced", None)
        sql("""
            INSERT INTO oauth_connections (tenant_id, provider, grant_type, lapsed_at, credential_expires_at)
            SELECT id, 'microsoft', 'client_credentials', '2026-01-02Z', '2027-01-02Z' FROM tenants WHERE id > 0
        """)
    found = scrape()
    days_left = (found['pbx_portal_lapse_timestamp_seconds{kind="key"}'] - today.timestamp()) / 86_400
    assert 4 < days_left < 7
    assert found['pbx_portal_lapse_timestamp_seconds{kind="consent"}'] == datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    at = datetime(2027, 1, 2, tzinfo=UTC).timestamp()
    assert found['pbx_portal_lapse_timestamp_seconds{kind="certificate"}'] == at


def test_a_worker_is_up_while_it_gives_signs_of_life(with_token: Flask, scrape: Scrape) -> None:
    with with_token.app_context():
        sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now())")
    assert scrape()["pbx_portal_worker_up"] == 1
    with with_token.app_context():
        sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
        last_heartbeat = sql("SELECT last_heartbeat FROM procrastinate_workers")[0][0]
    found = scrape()
    assert found["pbx_portal_worker_up"] == 0
    assert found["pbx_portal_worker_heartbeat_timestamp_seconds"] == last_heartbeat.timestamp()


def test_without_its_database_they_say_so() -> None:
    settings = Settings(
        portal_env="production",
        portal_url="http://portal.test",
        secret_key=SecretStr(TEST_SECRET),
        encryption_keys=SecretStr(TEST_KEY),
        database_url="postgresql://127.0.0.1:1/portal",
        metrics_token=SecretStr(TOKEN),
    )
    response = create_app(settings).test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert "pbx_portal_database_up 0.0" in response.text
    assert "pbx_portal_events" not in response.text


def test_what_could_not_be_stored_is_stored_later(
    with_token: Flask, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError

    reporter = Reporter(with_token, "web", pool.slots_in_use)
    note((EVENTS, 1, ("sent",)))
    note((EVENT_SECONDS, 0.3, ()))
    with monkeypatch.context() as patch:
        patch.setattr(fast_sql, "run", fail)
        reporter.report()
    note((EVENTS, 1, ("sent",)))
    note((EVENT_SECONDS, 100.0, ()))
    reporter.report()
    reporter.report()
    found = scrape()
    assert found['pbx_portal_events_total{result="sent"}'] == 2
    buckets = {bound: found[f'pbx_portal_event_seconds_bucket{{le="{bound}"}}'] for bound in ("0.25", "0.5", "60.0")}
    assert buckets == {"0.25": 0, "0.5": 1, "60.0": 1}
    assert found["pbx_portal_event_seconds_count"] == found['pbx_portal_event_seconds_bucket{le="+Inf"}'] == 2
    assert found["pbx_portal_event_seconds_sum"] == pytest.approx(100.3)
    assert found['pbx_portal_processes{kind="web"}'] == 1
    reporter.end()
    assert scrape()['pbx_portal_processes{kind="web"}'] == 0


def test_a_process_that_started_before_the_upgrade_reports_after_it(with_token: Flask, scrape: Scrape) -> None:
    reporter = Reporter(with_token, "web", pool.slots_in_use)
    note((EVENTS, 1, ("sent",)))
    with with_token.app_context():
        sql("ALTER TABLE processes RENAME TO later")
        reporter.report()
        sql("ALTER TABLE later RENAME TO processes")
    reporter.report()
    assert scrape()['pbx_portal_events_total{result="sent"}'] == 1


def test_the_slots_that_are_in_use(with_token: Flask, scrape: Scrape) -> None:
    with with_token.app_context(), pool.current().slots.acquire("a mail server"):
        Reporter(with_token, "web", pool.slots_in_use).report()
    assert scrape()['pbx_portal_smtp_slots_in_use{kind="web"}'] == 1


def test_promtool_finds_nothing_to_criticise(scrape_text: Callable[[], str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=scrape_text(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
