"""A tenant's page "Notifications": the settings of each event type, and storm limits."""

import re
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.service import effective_server
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.notifications.settings import EventSetting
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.pages import post
from tests.tenant_fixtures import entered

GREEN = "You can now use the system administrator's mail server settings to send email notifications."
SECRET = "correct horse battery"


@pytest.fixture
def page(acme: str) -> str:
    return f"/tenants/{acme}/mail-server"


@pytest.fixture
def events(acme: str) -> str:
    return f"/tenants/{acme}/notifications"


def values(port: int, **changes: str) -> dict[str, Any]:
    return {
        "provider": "smtp",
        "host": "127.0.0.1",
        "port": str(port),
        "encryption": "none",
        "auth_mode": "none",
        "sender_email": "pbx@acme.example",
        **changes,
    }


def share(app: Flask, port: int = 2525, **changes: Any) -> None:
    with app.app_context():
        mail_server_service.save(None, entered(port, **{"sender_email": "noreply@pbx.example", **changes}))
        mail_server_service.share(True)


def tenant(domain: str) -> Tenant:
    found = tenant_service.find(domain)
    assert found is not None
    enter_scope(found.id)
    return found


def recipients_of(app: Flask, domain: str) -> list[str]:
    with app.app_context():
        tenant(domain)
        return list(recipients.list_emails())


def port_in_force(app: Flask, domain: str) -> int | None:
    with app.app_context():
        server = effective_server(tenant(domain).id)
        return server.port if server else None


def text_of(browser: FlaskClient, path: str) -> str:
    return unescape(browser.get(path).get_data(as_text=True))


class TestSwitches:
    def test_there_is_one_for_each_kind_and_all_are_off(self, admin: FlaskClient, events: str) -> None:
        html = text_of(admin, events)
        assert html.count('role="switch"') == len(EVENT_TYPES)
        assert " checked" not in html
        assert all(kind.label in html for kind in EVENT_TYPES.values())

    @pytest.mark.parametrize("event_type", EVENT_TYPES)
    def test_htmx_gets_the_switch_back(
        self, app: Flask, admin: FlaskClient, acme: str, events: str, event_type: str
    ) -> None:
        html = post(admin, events, f"{events}/{event_type}", htmx=True, enabled="y").get_data(as_text=True)
        assert html.lstrip().startswith(f'<div class="event-type" id="event-type-{event_type.replace(".", "-")}"')
        assert " checked" in html
        with app.app_context():
            tenant(acme)
            assert [
                each for each, switch in notifications_settings.settings_by_type(EVENT_TYPES).items() if switch.enabled
            ] == [event_type]

    def test_without_javascript_it_leads_back_to_the_page(self, admin: FlaskClient, events: str) -> None:
        answer = post(admin, events, f"{events}/queue.call_lost", enabled="y")
        assert (answer.status_code, answer.location) == (303, events)
        assert text_of(admin, events).count(" checked") == 1
        post(admin, events, f"{events}/queue.call_lost")
        assert " checked" not in text_of(admin, events)

    def test_the_welcome_mail_has_a_choice_of_whom_it_reaches(
        self, app: Flask, admin: FlaskClient, acme: str, events: str
    ) -> None:
        html = post(admin, events, f"{events}/user.created", htmx=True, enabled="y").get_data(as_text=True)
        assert "It contains a password." in html
        assert '<option value="both" selected>' in html
        html = post(admin, events, f"{events}/user.created/audience", htmx=True, audience="user").get_data(as_text=True)
        assert '<option value="user" selected>' in html
        with app.app_context():
            tenant(acme)
            assert notifications_settings.settings_by_type(EVENT_TYPES)["user.created"] == EventSetting(
                enabled=True, audience=notifications_settings.Audience.USER
            )

    @pytest.mark.parametrize(
        ("path", "audience", "status"),
        [
            ("user.created/audience", "everybody", 400),
            ("queue.call_lost/audience", "user", 404),
            ("no.such_kind", None, 404),
            ("no.such_kind/audience", "user", 404),
        ],
    )
    def test_what_does_not_exist(
        self, admin: FlaskClient, events: str, path: str, audience: str | None, status: int
    ) -> None:
        data: dict[str, Any] = {"audience": audience} if audience else {}
        assert post(admin, events, f"{events}/{path}", **data).status_code == status

    def test_missing_recipients_are_told_with_the_next_step(self, admin: FlaskClient, page: str, events: str) -> None:
        words = "No emails are sent yet"
        assert words in text_of(admin, events)
        assert f'href="{page}#emails-of-recipients"' in text_of(admin, events)
        post(admin, page, recipients="a@acme.example")
        assert words not in text_of(admin, events)


class TestStorm:
    def test_the_limits_of_a_new_tenant_are_shown_and_others_are_kept(
        self, app: Flask, admin: FlaskClient, acme: str, events: str
    ) -> None:
        found = re.findall(r'name="(limit|minutes)"[^>]*value="(\d+)"', text_of(admin, events))
        assert found == [("limit", "10"), ("minutes", "5")]
        answer = post(admin, events, f"{events}/storm-limits", limit="25", minutes="60")
        assert (answer.status_code, answer.location) == (303, events)
        assert "The limits are saved." in text_of(admin, events)
        with app.app_context():
            assert (tenant(acme).storm_limit, tenant(acme).storm_minutes) == (25, 60)

    @pytest.mark.parametrize("htmx", [False, True])
    @pytest.mark.parametrize(
        ("limit", "minutes", "words"),
        [
            ("0", "5", "Enter a number of emails from 1 to 1,000."),
            ("1001", "5", "Enter a number of emails from 1 to 1,000."),
            ("9" * 5000, "5", "Enter a number of emails from 1 to 1,000."),
            ("1.5", "5", "Enter a number of emails from 1 to 1,000."),
            ("", "5", "Enter a number of emails."),
            ("10", "61", "Enter a number of minutes from 1 to 60."),
            ("10", "\u0665", "Enter a number of minutes from 1 to 60."),
        ],
        ids=["zero", "too many", "huge", "a fraction", "none", "too long", "other digits"],
    )
    def test_bad_ones_are_told_and_not_kept(
        self, app: Flask, admin: FlaskClient, acme: str, events: str, limit: str, minutes: str, words: str, htmx: bool
    ) -> None:
        answer = post(admin, events, f"{events}/storm-limits", htmx=htmx, limit=limit, minutes=minutes)
        html = answer.get_data(as_text=True)
        assert answer.status_code == 422
        assert words in html
        assert html.lstrip().startswith('<form class="panel" id="storm-limits"') is htmx
        with app.app_context():
            assert (tenant(acme).storm_limit, tenant(acme).storm_minutes) == (10, 5)


class TestStrangers:
    def test_the_administrator_of_another_tenant_finds_nothing_and_changes_nothing(
        self, app: Flask, sign_in: SignIn, admin: FlaskClient, acme: str, events: str, globex: str
    ) -> None:
        stranger = sign_in("admin@globex.example", administers=globex)
        assert stranger.get(events).status_code == 404
        for path in (*EVENT_TYPES, "storm-limits"):
            data: dict[str, Any] = {"enabled": "y", "limit": "1", "minutes": "1"}
            answer = post(stranger, f"/tenants/{globex}/mail-server", f"{events}/{path}", **data)
            assert answer.status_code == 404, path
        with app.app_context():
            assert tenant(acme).storm_limit == 10
            settings = notifications_settings.settings_by_type(EVENT_TYPES)
            assert not any(setting.enabled for setting in settings.values())

    def test_the_system_administrator_may_enter(self, system: FlaskClient, events: str) -> None:
        assert system.get(events).status_code == 200

    def test_a_post_without_its_token_does_nothing(self, admin: FlaskClient, events: str) -> None:
        for path in ("queue.call_lost", "storm-limits"):
            assert admin.post(f"{events}/{path}", data={"enabled": "y"}).status_code == 400, path


def test_all_events_are_turned_on_and_off(admin: FlaskClient, events: str) -> None:
    for value, count in (("on", len(EVENT_TYPES)), ("off", 0)):
        assert post(admin, events, f"{events}/all", all=value).status_code == 303
        assert admin.get(events).text.count(" checked") == count
