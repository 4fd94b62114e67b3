"""The delivery log as CSV: what the filter shows, a line for each recipient."""

import csv
from io import StringIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.deliveries.export import COLUMNS
from portal.extensions import db
from portal.web import csv_export
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, PEOPLE, Post

CSV = "/tenants/acme.example/deliveries.csv"


def read(browser: FlaskClient, **arguments: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(browser.get(CSV, query_string=arguments).get_data(as_text=True))))


def test_it_has_a_line_for_each_recipient(admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"rcpt": ["250 ok", "550 5.1.1 no such user"]}
    post(data=CALL_LOST | {"caller_number": "7001"}, id="evt-1")
    answer = admin.get(CSV)
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == "attachment; filename=delivery-log-acme.example.csv"
    answer.close()
    lines = read(admin)
    assert tuple(lines[0]) == tuple(COLUMNS)
    assert [(each["recipient"], each["recipient_outcome"], each["code"]) for each in lines] == [
        (PEOPLE[0], "sent", "250"),
        (PEOPLE[1], "failed", "550"),
    ]
    assert {(each["event_id"], each["event"], each["outcome"], each["caller"]) for each in lines} == {
        ("evt-1", "queue.call_lost", "partial", "7001")
    }
    assert lines[0]["received_at"].endswith("+00:00")


def test_it_has_what_no_mail_was_made_of_too(app: Flask, admin: FlaskClient, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("DELETE FROM recipients")
    post()
    with app.app_context():
        sql("DELETE FROM notification_settings")
    post()
    ignored, held = read(admin)
    assert (ignored["ignored"], ignored["outcome"], ignored["recipient"]) == ("switched_off", "", "")
    assert (held["outcome"], held["held_for"], held["recipient"]) == ("held", "no_recipients", "")


def test_it_is_narrowed_as_the_log_is_and_not_to_a_page(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_export, "BATCH_SIZE", 2)
    monkeypatch.setattr("portal.deliveries.search.MAX_SEARCHED", 3)
    for number in range(9):
        post(data=CALL_LOST | {"caller_number": f"70{number:02}", "queue_number": str(number % 2)})
    callers = [each["caller"] for each in read(admin, queue="1")]
    assert callers == [f"70{number:02}" for number in (7, 7, 5, 5, 3, 3, 1, 1)]
    assert len(read(admin)) == 18
    assert read(admin, q="nobody") == []


def test_no_cell_is_a_formula(admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "554 =cmd|' /C calc'!A0"}
    post(data=CALL_LOST | {"caller_number": "+442079460123", "queue_number": "=1+1"}, id="@SUM(1)")
    for line in read(admin):
        assert line["caller"] == "'+442079460123"
        assert line["queue"] == "'=1+1"
        assert line["event_id"] == "'@SUM(1)"
        assert line["reply"].startswith("'=cmd")


def test_it_is_complete_before_it_is_sent_and_holds_no_connection(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_export, "BATCH_SIZE", 1)
    for _ in range(3):
        post()
    with app.app_context():
        free = db.engine.pool.checkedout()  # type: ignore[attr-defined]
        answer = admin.get(CSV)
        assert db.engine.pool.checkedout() == free  # type: ignore[attr-defined]
        sql("DELETE FROM events")
    assert answer.text.count("queue.call_lost") == 3 * len(PEOPLE)
    answer.close()
