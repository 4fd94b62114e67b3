"""The emails about alerts in all languages, compared with the expected ones in `tests/emails/alerts/`.

After an intended change, write the files again and read the differences:

    REWRITE_EMAILS=1 pytest tests/alerts/test_emails.py
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from portal.alerts import notices, texts
from portal.alerts.conditions import AlertKind
from portal.database import clock
from portal.web.i18n import LANGUAGES, html_language

EMAILS = Path(__file__).parents[1] / "emails" / "alerts"
NOW = datetime(2026, 11, 29, 9, 5, tzinfo=UTC)
MAILBOX = {"provider": "google", "mailbox": "pbx@acme.example", "state": "lapsed"}
HELD = {"count": 3, "limit": 1000, "connected": True}
SERVER = {"host": "mail.acme.example", "reason": "", "state": "failing"}
REJECTED = {
    "host": "mail.acme.example",
    "reason": "The password is missing: enter it again and save.",
    "state": "rejected",
}


def ends(days: int) -> str:
    return (NOW + timedelta(days=days, hours=1)).isoformat()


Example = tuple[AlertKind, str, dict[str, Any]]

# One email of each stage, and one with everything that can be told.
TENANTS: list[Example] = [
    (AlertKind.MAIL_SERVER, "", REJECTED),
    (AlertKind.MAIL_SERVER, "", SERVER),
    *((AlertKind.HELD, str(reason), HELD) for reason in texts.HELD_TEXTS),
    (AlertKind.EXPIRY, "connection", MAILBOX),
    (AlertKind.EXPIRY, "secret", MAILBOX | {"expires_at": ends(9)}),
    (AlertKind.EXPIRY, "key 1", {"name": "Main PBX", "expires_at": ends(9)}),
    (AlertKind.SILENCE, "", {}),
]
SYSTEMS: list[Example] = [(AlertKind.NO_WORKER, "", {}), (AlertKind.DISK, "", {"free": 0.08})]
EXAMPLES: dict[str, list[tuple[str, Example]]] = {
    "begins": [("new", TENANTS[0])],
    "lasts": [("open", TENANTS[0])],
    "over": [("over", TENANTS[1])],
    "tenant": [("new", alert) for alert in TENANTS],
    "system": [*(("new", alert) for alert in SYSTEMS), ("open", TENANTS[0]), ("over", TENANTS[-2])],
}


@pytest.fixture(autouse=True)
def at_nine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW)


def row(stage: str, alert: Example, language: str) -> Any:
    kind, subject, details = alert
    owner = (None, None, None) if alert in SYSTEMS else ("Acme GmbH", "acme.example", "Europe/Berlin")
    name, domain, time_zone = owner
    return SimpleNamespace(
        stage=stage,
        kind=kind,
        subject=subject,
        details=details,
        language=language,
        tenant_language=None,
        administers=True,
        began_at=NOW - timedelta(hours=2),
        ended_at=NOW if stage == "over" else None,
        name=name,
        domain=domain,
        time_zone=time_zone,
    )


def compare(name: str, text: str) -> None:
    file = EMAILS / name
    if os.environ.get("REWRITE_EMAILS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.is_file(), f"{name} is not there: see the top of this file"
    assert text == file.read_text()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_email(context: Flask, example: str, language: str) -> None:
    alerts: Sequence[Any] = [row(*alert, language) for alert in EXAMPLES[example]]
    content = notices.compose(alerts)
    compare(f"{example}.{language}.txt", f"Subject: {content.subject}\n\n{content.text}")
    if language == "en":
        compare(f"{example}.html", content.html)
    assert f'<html lang="{html_language(language)}">' in content.html
    for text in (content.subject, content.text, content.html):
        assert not re.search(r"%\(|\n\n\n", text)


def test_no_expected_email_is_obsolete() -> None:
    expected = {f"{example}.{language}.txt" for example in EXAMPLES for language in LANGUAGES}
    assert {file.name for file in EMAILS.iterdir()} == expected | {f"{example}.html" for example in EXAMPLES}


def test_each_kind_of_alert_is_in_an_example() -> None:
    assert {kind for kind, _, _ in (*TENANTS, *SYSTEMS)} == set(AlertKind) == set(texts.KIND_LABELS)


def test_many_alerts_are_cut_and_lead_to_the_overview(context: Flask) -> None:
    content = notices.compose([row("new", TENANTS[0], "en") for _ in range(30)])
    assert content.subject == "Acme GmbH (acme.example): 30 alerts"
    assert content.text.count("rejects the settings.") == 20
    assert "10 more alerts are on the overview: http://portal.test/\n" in content.text


def test_names_are_escaped_and_the_subject_is_short(context: Flask) -> None:
    key = (AlertKind.EXPIRY, "key 1", {"name": "<b>" + "x" * 300, "expires_at": ends(1)})
    content = notices.compose([row("new", key, "en")])
    assert "<b>" not in content.html.replace("&lt;b&gt;", "")
    assert len(content.subject) <= notices.MAX_SUBJECT_LENGTH


def test_a_viewer_is_led_to_the_overview(context: Flask) -> None:
    alert = row("new", TENANTS[0], "en")
    alert.administers = False
    assert "Overview\nhttp://portal.test/tenants/acme.example/overview\n" in notices.compose([alert]).text
