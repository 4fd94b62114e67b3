"""The page "PBX keys": issuing, rotating and revoking keys, their state, and why requests were rejected."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.pbx import api_keys
from portal.pbx.models import ApiKey, KeyState
from portal.pbx.rejection_reasons import RejectionReason
from portal.tenants import service as tenant_service
from tests.pages import post as submit
from tests.signing import post_body, signed_key
from tests.sql import sql
from tests.tenant_fixtures import Post

__all__ = ["signed_key"]

NOW = datetime.now(UTC)
PATH = "/tenants/acme.example/keys"


def page(browser: FlaskClient, path: str = PATH) -> str:
    return browser.get(path).get_data(as_text=True)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, KeyState.UNUSED),
        ({"last_used_at": NOW}, KeyState.ACTIVE),
        ({"last_used_at": NOW, "expires_at": NOW + timedelta(days=8)}, KeyState.ACTIVE),
        ({"expires_at": NOW + timedelta(days=3)}, KeyState.EXPIRING),
        ({"last_used_at": NOW, "expires_at": NOW - timedelta(seconds=1)}, KeyState.EXPIRED),
        ({"revoked_at": NOW, "expires_at": NOW - timedelta(days=1)}, KeyState.REVOKED),
    ],
)
def test_the_state_of_a_key(values: dict[str, Any], state: KeyState) -> None:
    key = ApiKey(**values)
    assert key.state == state
    assert key.is_valid == (state not in {KeyState.EXPIRED, KeyState.REVOKED})


@pytest.mark.parametrize("path", [PATH, "/system/keys"])
@pytest.mark.parametrize("htmx", [False, True])
def test_a_key_is_issued_rotated_and_revoked(
    app: Flask, admin: FlaskClient, system: FlaskClient, path: str, htmx: bool
) -> None:
    browser = admin if path == PATH else system
    day = str((NOW + timedelta(days=300)).date())
    shown = submit(browser, path, htmx=htmx, name="Main PBX", expires_on=day, signed="y").get_data(as_text=True)
    for text in ("Main PBX", "Never used", "Requires a signature", "pbx_", "whsec_", "webhook-signature"):
        assert text in shown
    shown = submit(browser, path, f"{path}/1/rotate", htmx=htmx, hours="24").get_data(as_text=True)
    assert shown.count("Main PBX") >= 2
    assert 'id="new-key"' in shown
    assert "in 1 day" in shown or "in 24 hours" in shown
    shown = submit(browser, path, f"{path}/2/secret", htmx=htmx, hours="1").get_data(as_text=True)
    assert 'id="new-signing-secret"' in shown
    assert 'id="new-key"' not in shown
    assert "The previous secret is valid until" in shown
    response = submit(browser, path, f"{path}/1/revoke", htmx=htmx)
    assert response.status_code == (200 if htmx else 303)
    assert "Revoked" in page(browser, path)
    with app.app_context():
        assert [key.state for key, _ in api_keys.list_all()] == [KeyState.REVOKED, KeyState.UNUSED]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"name": ""}, "Enter a name"),
        ({"name": "x" * 61}, "at most 60"),
        ({"name": "a\nb"}, "Control characters"),
        ({"name": "Main", "expires_on": "tomorrow"}, "like 2027-01-31"),
        ({"name": "Main", "expires_on": "2020-01-01"}, "is over"),
        ({"name": "Main", "expires_on": "9999-12-31"}, "before the end of 2100"),
    ],
)
def test_an_invalid_form_shows_why(app: Flask, admin: FlaskClient, values: dict[str, Any], error: str) -> None:
    response = submit(admin, PATH, **values)
    assert response.status_code == 422
    assert error in response.get_data(as_text=True)
    with app.app_context():
        assert not api_keys.list_all()


def test_an_action_that_is_not_possible_shows_why(app: Flask, admin: FlaskClient, key: str) -> None:
    tries: list[tuple[str, dict[str, Any], str]] = [
        ("rotate", {"hours": "9999"}, "Send one of these"),
        ("rotate", {}, "Send one of these"),
        ("rotate", {"hours": "1", "expires_on": "2020-01-01"}, "is over"),
        ("secret", {"hours": "-1"}, "Send one of these"),
        ("secret", {"hours": "1"}, "does not require a signature"),
    ]
    for action, values, error in tries:
        response = submit(admin, PATH, f"{PATH}/1/{action}", **values)
        assert response.status_code == 422
        assert error in response.get_data(as_text=True)
    submit(admin, PATH, f"{PATH}/1/revoke")
    response = submit(admin, PATH, f"{PATH}/1/rotate", hours="1")
    assert (response.status_code, "no longer valid" in response.get_data(as_text=True)) == (422, True)
    with app.app_context():
        assert len(api_keys.list_all()) == 1


def test_a_name_is_escaped(admin: FlaskClient, acme: str) -> None:
    shown = submit(admin, PATH, name="<b>Main</b>", signed="y").get_data(as_text=True)
    assert "<b>Main" not in shown
    assert "&lt;b&gt;Main" in shown


def test_each_reason_is_shown_with_advice(
    app: Flask, admin: FlaskClient, client: FlaskClient, post: Post, key: str, signed_key: api_keys.IssuedKey
) -> None:
    late = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,"}
    wrong = late | {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()))}
    with app.app_context():
        acme = tenant_service.find("acme.example")
        revoked, expired = api_keys.issue(acme), api_keys.issue(acme)
        api_keys.revoke(revoked.row)
        sql("UPDATE api_keys SET expires_at = now() WHERE id = :id", id=expired.row.id)
        settings = app.extensions["settings"]
    for headers in ({}, late, wrong):
        post_body(client, signed_key.secret, headers)
    for secret in (revoked.secret, expired.secret):
        post_body(client, secret, {})
    for body, media_type in (("x", "text/plain"), ("x" * 70_000, "application/json"), ("x", "application/json")):
        post_body(client, key, {"Content-Type": media_type}, body)
    assert post(tenant="globex.example").status_code == 403
    assert [post(id="one").status_code, post("queue.call_lost", {"caller_number": "1"}).status_code] == [200, 422]
    other = {"queue_number": "1", "caller_number": "1", "sla_seconds": 5}
    assert post("queue.sla_breached", other, id="one").status_code == 409
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "1 per 2 hours"})
    try:
        assert [post().status_code, post().status_code] == [200, 429]
    finally:
        app.extensions["settings"] = settings
    shown = page(admin)
    for reason in set(RejectionReason) - {RejectionReason.NO_KEY, RejectionReason.UNKNOWN_KEY}:
        assert reason.title in shown, reason
        assert reason.advice in shown, reason
    assert "data.queue_number: This field is required" in shown
    assert "queue.sla_breached" in shown


def test_repeated_rejections_are_counted(admin: FlaskClient, post: Post, acme: str) -> None:
    for _ in range(3):
        post("queue.call_lost", {})
    post("queue.sla_breached", {})
    shown = page(admin)
    assert shown.count("Wrong fields") == 2
    assert "3 times" in shown


def test_requests_without_a_known_key_are_shown_to_the_system(system: FlaskClient, client: FlaskClient) -> None:
    client.post("/api/v1/events", json={})
    post_body(client, "nonsense", {})
    shown = page(system, "/system/keys")
    assert "No key" in shown
    assert "Unknown key" in shown
    assert "nonsense" not in shown


def test_the_owner_reads_reasons_in_another_language_and_the_pbx_in_english(
    client: FlaskClient, admin: FlaskClient, post: Post
) -> None:
    for browser in (client, admin):
        browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    response = post("queue.call_lost", {})
    assert response.json is not None
    assert response.json["detail"].startswith("The event")
    shown = page(admin)
    assert "Falsche Felder" in shown
    assert "Senden Sie die Felder so, wie die API-Referenz sie beschreibt." in shown
    assert '<p class="meta" lang="en">The event' in shown
    assert not [reason.title for reason in RejectionReason if reason.title in shown]


def test_an_error_is_shown_in_the_language_of_the_page(admin: FlaskClient, key: str) -> None:
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "fr"
    submit(admin, PATH, f"{PATH}/1/revoke")
    page_text = submit(admin, PATH, f"{PATH}/1/rotate", hours="24").get_data(as_text=True)
    assert "Cette clé n’est plus valide." in page_text  # noqa: RUF001 (as French has it)
    page_text = submit(admin, PATH, name="PBX", expires_on="nonsense").get_data(as_text=True)
    assert "Saisissez une date au format 2027-01-31." in page_text
