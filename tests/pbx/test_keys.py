"""The page of keys: what is issued, how it stands with each of them, and why calls were rejected."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.pbx import keys
from portal.pbx.models import KeyState, PbxKey
from portal.pbx.reasons import WORDS, Reason
from portal.tenants import directory
from tests.pages import post as submit
from tests.ready import Post
from tests.signed import call, signed
from tests.sql import sql

__all__ = ["signed"]

NOW = datetime.now(UTC)
PATH = "/tenants/acme.example/keys"


def page(browser: FlaskClient, path: str = PATH) -> str:
    return browser.get(path).get_data(as_text=True)


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, KeyState.UNUSED),
        ({"last_used_at": NOW}, KeyState.LIVE),
        ({"last_used_at": NOW, "expires_at": NOW + timedelta(days=8)}, KeyState.LIVE),
        ({"expires_at": NOW + timedelta(days=3)}, KeyState.EXPIRING),
        ({"last_used_at": NOW, "expires_at": NOW - timedelta(seconds=1)}, KeyState.EXPIRED),
        ({"revoked_at": NOW, "expires_at": NOW - timedelta(days=1)}, KeyState.REVOKED),
    ],
)
def test_how_it_stands_with_a_key(values: dict[str, Any], state: KeyState) -> None:
    key = PbxKey(**values)
    assert key.state == state
    assert key.is_live == (state not in {KeyState.EXPIRED, KeyState.REVOKED})


@pytest.mark.parametrize("path", [PATH, "/system/keys"])
@pytest.mark.parametrize("htmx", [False, True])
def test_a_key_is_issued_rotated_and_revoked(
    app: Flask, admin: FlaskClient, system: FlaskClient, path: str, htmx: bool
) -> None:
    browser = admin if path == PATH else system
    day = str((NOW + timedelta(days=300)).date())
    shown = submit(browser, path, htmx=htmx, name="Main PBX", last_day=day, signed="y").get_data(as_text=True)
    for text in ("Main PBX", "Never used", "Requires a signature", "pbx_", "whsec_", "webhook-signature"):
        assert text in shown
    shown = submit(browser, path, f"{path}/1/rotate", htmx=htmx, hours="24").get_data(as_text=True)
    assert shown.count("Main PBX") >= 2
    assert 'id="new-key"' in shown
    assert "in 1 day" in shown or "in 24 hours" in shown
    shown = submit(browser, path, f"{path}/2/secret", htmx=htmx, hours="1").get_data(as_text=True)
    assert 'id="new-signing-secret"' in shown
    assert 'id="new-key"' not in shown
    assert "The earlier secret counts until" in shown
    answer = submit(browser, path, f"{path}/1/revoke", htmx=htmx)
    assert answer.status_code == (200 if htmx else 303)
    assert "Revoked" in page(browser, path)
    with app.app_context():
        assert [key.state for key, _ in keys.every_key()] == [KeyState.REVOKED, KeyState.UNUSED]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": ""}, "Enter a name"),
        ({"name": "x" * 61}, "at most 60"),
        ({"name": "a\nb"}, "Control characters"),
        ({"name": "Main", "last_day": "tomorrow"}, "like 2027-01-31"),
        ({"name": "Main", "last_day": "2020-01-01"}, "is over"),
        ({"name": "Main", "last_day": "9999-12-31"}, "before the end of 2100"),
    ],
)
def test_what_is_wrong_in_the_form_is_said(app: Flask, admin: FlaskClient, values: dict[str, Any], says: str) -> None:
    answer = submit(admin, PATH, **values)
    assert answer.status_code == 422
    assert says in answer.get_data(as_text=True)
    with app.app_context():
        assert not keys.every_key()


def test_what_cannot_be_done_to_a_key_is_said(app: Flask, admin: FlaskClient, key: str) -> None:
    tries: list[tuple[str, dict[str, Any], str]] = [
        ("rotate", {"hours": "9999"}, "Send one of these"),
        ("rotate", {}, "Send one of these"),
        ("rotate", {"hours": "1", "last_day": "2020-01-01"}, "is over"),
        ("secret", {"hours": "-1"}, "Send one of these"),
        ("secret", {"hours": "1"}, "requires no signature"),
    ]
    for action, values, says in tries:
        answer = submit(admin, PATH, f"{PATH}/1/{action}", **values)
        assert answer.status_code == 422
        assert says in answer.get_data(as_text=True)
    submit(admin, PATH, f"{PATH}/1/revoke")
    answer = submit(admin, PATH, f"{PATH}/1/rotate", hours="1")
    assert (answer.status_code, "not live any more" in answer.get_data(as_text=True)) == (422, True)
    with app.app_context():
        assert len(keys.every_key()) == 1


def test_a_name_is_text(admin: FlaskClient, acme: str) -> None:
    shown = submit(admin, PATH, name="<b>Main</b>", signed="y").get_data(as_text=True)
    assert "<b>Main" not in shown
    assert "&lt;b&gt;Main" in shown


def test_each_reason_is_shown_with_what_to_do(
    app: Flask, admin: FlaskClient, client: FlaskClient, post: Post, key: str, signed: keys.IssuedKey
) -> None:
    late = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,"}
    wrong = late | {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()))}
    with app.app_context():
        acme = directory.find("acme.example")
        revoked, expired = keys.issue(acme), keys.issue(acme)
        keys.revoke(revoked.row)
        sql("UPDATE pbx_keys SET expires_at = now() WHERE id = :id", id=expired.row.id)
        settings = app.extensions["settings"]
    for headers in ({}, late, wrong):
        call(client, signed.secret, headers)
    for secret in (revoked.secret, expired.secret):
        call(client, secret, {})
    for body, media_type in (("x", "text/plain"), ("x" * 70_000, "application/json"), ("x", "application/json")):
        call(client, key, {"Content-Type": media_type}, body)
    assert post(tenant="globex.example").status_code == 403
    assert [post(id="one").status_code, post("queue.call_lost", {"queue_number": "8000"}).status_code] == [200, 422]
    other = {"queue_number": "1", "caller_number": "1", "sla_seconds": 5}
    assert post("queue.sla_breached", other, id="one").status_code == 409
    app.extensions["settings"] = settings.model_copy(update={"event_rate_limit": "1 per 2 hours"})
    try:
        assert [post().status_code, post().status_code] == [200, 429]
    finally:
        app.extensions["settings"] = settings
    shown = page(admin)
    for reason in set(Reason) - {Reason.NO_KEY, Reason.UNKNOWN_KEY}:
        assert WORDS[reason].title in shown, reason
        assert WORDS[reason].remedy in shown, reason
    assert "data.caller_number: This field is required" in shown
    assert "queue.sla_breached" in shown


def test_the_same_again_is_counted(admin: FlaskClient, post: Post, acme: str) -> None:
    for _ in range(3):
        post("queue.call_lost", {})
    post("queue.sla_breached", {})
    shown = page(admin)
    assert shown.count("Wrong fields") == 2
    assert "3 times" in shown


def test_calls_without_a_key_are_the_systems(system: FlaskClient, client: FlaskClient) -> None:
    client.post("/api/v1/events", json={})
    call(client, "nonsense", {})
    shown = page(system, "/system/keys")
    assert "No key" in shown
    assert "Unknown key" in shown
    assert "nonsense" not in shown


def test_the_owner_reads_it_in_another_language_and_the_pbx_in_english(
    client: FlaskClient, admin: FlaskClient, post: Post
) -> None:
    for browser in (client, admin):
        browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    answer = post("queue.call_lost", {})
    assert answer.json is not None
    assert answer.json["detail"].startswith("The event")
    shown = page(admin)
    assert "Falsche Felder" in shown
    assert "Senden Sie die Felder so, wie die OpenAPI-Beschreibung sie nennt." in shown
    assert '<p class="meta" lang="en">The event' in shown
    assert not [words.title for words in WORDS.values() if words.title in shown]


def test_a_refusal_is_told_in_the_language_of_the_page(admin: FlaskClient, key: str) -> None:
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "fr"
    submit(admin, PATH, f"{PATH}/1/revoke")
    told = submit(admin, PATH, f"{PATH}/1/rotate", hours="24").get_data(as_text=True)
    assert "Cette clé n’est plus valide." in told  # noqa: RUF001 (as French has it)
    told = submit(admin, PATH, name="PBX", last_day="nonsense").get_data(as_text=True)
    assert "Saisissez un jour comme 2027-01-31." in told
