"""A tenant's pages: its mail server with recipients, sender and test e-mail, and the switches."""

import re
from email import message_from_bytes, policy
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import enter_scope
from portal.extensions import db
from portal.mail_servers import pause, settings
from portal.mail_servers.connection import AuthMode
from portal.mail_servers.outcome import Pause
from portal.mail_servers.selection import in_force
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.notifications.switches import Switch
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.pages import HTMX, csrf_token, post
from tests.ready import entered
from tests.smtp_peer import SmtpPeer

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
        settings.save(None, entered(port, **{"sender_email": "noreply@pbx.example", **changes}))
        settings.share(True)


def tenant(domain: str) -> Tenant:
    found = directory.find(domain)
    assert found is not None
    enter_scope(found.id)
    return found


def recipients_of(app: Flask, domain: str) -> list[str]:
    with app.app_context():
        tenant(domain)
        return list(recipients.addresses())


def port_in_force(app: Flask, domain: str) -> int | None:
    with app.app_context():
        server = in_force(tenant(domain).id)
        return server.port if server else None


def text_of(browser: FlaskClient, path: str) -> str:
    return unescape(browser.get(path).get_data(as_text=True))


class TestMailServer:
    def test_the_green_sentence_stands_while_the_systems_server_is_usable(
        self, app: Flask, admin: FlaskClient, page: str
    ) -> None:
        assert GREEN not in text_of(admin, page)
        share(app)
        html = text_of(admin, page)
        assert GREEN in html
        assert html.index('class="callout good"') < html.index(GREEN)
        post(admin, page, **values(1025))
        assert GREEN in text_of(admin, page)
        with app.app_context():
            settings.share(False)
        assert GREEN not in text_of(admin, page)

    def test_the_own_server_wins_and_one_button_leads_back(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        share(app, 2525)
        assert post(admin, page, **values(1025)).location == page
        assert port_in_force(app, acme) == 1025
        assert "Use the system administrator's mail server</button>" in text_of(admin, page)
        assert post(admin, page, f"{page}/use-shared").location == page
        assert port_in_force(app, acme) == 2525

    def test_without_a_shared_server_the_own_one_is_removed(self, app: Flask, admin: FlaskClient, page: str) -> None:
        assert 'form="remove"' not in text_of(admin, page)
        post(admin, page, **values(1025))
        html = text_of(admin, page)
        assert 'form="remove"' in html
        assert "Use the system administrator" not in html
        post(admin, page, f"{page}/use-shared")
        assert port_in_force(app, "acme.example") is None

    def test_the_strip_tells_which_server_is_used(self, app: Flask, admin: FlaskClient, page: str, events: str) -> None:
        assert "No mail server" in text_of(admin, events)
        share(app)
        assert "System administrator's mail server" in text_of(admin, events)
        post(admin, page, **values(1025))
        assert "Own mail server <strong>127.0.0.1</strong>" in text_of(admin, events)

    def test_the_strip_tells_that_the_server_refuses(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        post(admin, page, **values(1025))
        with app.app_context():
            server = in_force(tenant(acme).id)
            assert server is not None
            pause.apply(server.id, server.saved_at, Pause.UNTIL_SAVED, "535 5.7.8 <no>")
            db.session.commit()
        html = admin.get(page).get_data(as_text=True)
        assert "Rejected" in html
        assert "535 5.7.8 &lt;no&gt;" in html
        post(admin, page, **values(1025))
        assert "Rejected" not in text_of(admin, page)

    @pytest.mark.parametrize("htmx", [False, True])
    def test_bad_values_are_told_at_the_field(
        self, app: Flask, admin: FlaskClient, acme: str, page: str, htmx: bool
    ) -> None:
        answer = post(admin, page, htmx=htmx, **values(0, host="no such host!"))
        html = answer.get_data(as_text=True)
        assert answer.status_code == 422
        assert "Enter a port from 1 to 65535." in html
        assert "is not a host name" in html
        assert port_in_force(app, acme) is None

    def test_the_password_is_in_no_answer(self, app: Flask, admin: FlaskClient, page: str) -> None:
        signs_in: dict[str, str] = {"auth_mode": "auto", "username": "mailer", "password": SECRET}
        share(app, auth_mode=AuthMode.AUTO, username="root", password="the system's own secret")
        answers = [
            post(admin, page, **values(1025, **signs_in)),
            admin.get(page),
            admin.get(page, headers=HTMX),
            post(admin, page, **values(0, **signs_in)),
            post(admin, page, f"{page}/test", **values(0, **signs_in)),
            post(admin, page, f"{page}/test", htmx=True, **values(0, **signs_in)),
            post(admin, page, f"{page}/recipients", recipients="nobody"),
        ]
        for answer in answers:
            assert SECRET not in answer.get_data(as_text=True)
            assert "own secret" not in answer.get_data(as_text=True)
            assert "root" not in answer.get_data(as_text=True)


class TestRecipients:
    def test_they_are_kept(self, app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
        answer = post(admin, page, f"{page}/recipients", recipients="a@acme.example; b@acme.example\r\nc@acme.example")
        assert (answer.status_code, answer.location) == (303, page)
        assert recipients_of(app, acme) == ["a@acme.example", "b@acme.example", "c@acme.example"]
        assert "a@acme.example\nb@acme.example\nc@acme.example" in text_of(admin, page)

    @pytest.mark.parametrize("htmx", [False, True])
    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            ("a@acme.example; nobody", "“nobody” is not an e-mail address."),
            ("", "Enter at least one e-mail address."),
            (";".join(f"a{number}@acme.example" for number in range(51)), "these are 51."),
            ("a@acme.example\x00", "is not an e-mail address."),
        ],
        ids=["bad", "none", "51", "control"],
    )
    def test_bad_ones_are_told_and_none_is_kept(
        self, app: Flask, admin: FlaskClient, acme: str, page: str, bad: str, words: str, htmx: bool
    ) -> None:
        post(admin, page, f"{page}/recipients", recipients="before@acme.example")
        answer = post(admin, page, f"{page}/recipients", htmx=htmx, recipients=bad)
        html = answer.get_data(as_text=True)
        assert answer.status_code == 422
        assert words in html
        assert html.lstrip().startswith('<form class="panel" id="recipients-form"') is htmx
        assert recipients_of(app, acme) == ["before@acme.example"]


class TestSender:
    def test_reply_to_is_used_and_from_is_the_systems(self, app: Flask, admin: FlaskClient, page: str) -> None:
        answer = post(admin, page, f"{page}/sender", reply_to="help@acme.example")
        assert (answer.status_code, answer.location) == (303, page)
        with SmtpPeer() as peer:
            share(app, peer.port)
            post(admin, page, f"{page}/test-shared", htmx=True)
            message = message_from_bytes(peer.mails[0].content, policy=policy.default)
        assert message["From"] == "Acme <noreply@pbx.example>"
        assert message["Reply-To"] == "help@acme.example"

    def test_a_bad_reply_to_is_told(self, admin: FlaskClient, page: str) -> None:
        answer = post(admin, page, f"{page}/sender", htmx=True, reply_to="help")
        assert answer.status_code == 422
        assert "“help” is not an e-mail address." in answer.get_data(as_text=True)


class TestTestMail:
    def test_to_the_account_with_the_values_in_the_form(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        with SmtpPeer() as peer:
            answer = post(admin, page, f"{page}/test", htmx=True, **values(peer.port, to="me"))
            (mail,) = peer.mails
        assert '<section class="test-result" id="own-test"' in answer.get_data(as_text=True)
        assert "Connected: the mail server took the test e-mail for admin@acme.example." in answer.get_data(
            as_text=True
        )
        assert (mail.sender, mail.recipients) == ("pbx@acme.example", ["admin@acme.example"])
        assert port_in_force(app, acme) is None

    def test_to_the_recipients_and_to_nobody_else(self, app: Flask, admin: FlaskClient, page: str) -> None:
        with SmtpPeer() as peer:
            share(app, peer.port)
            post(admin, page, f"{page}/recipients", recipients="a@acme.example; b@acme.example")
            for to in ("recipients", "victim@example.com"):
                post(admin, page, f"{page}/test-shared", htmx=True, to=to)
            assert [mail.recipients for mail in peer.mails] == [
                ["a@acme.example", "b@acme.example"],
                ["admin@acme.example"],
            ]

    def test_without_recipients_it_goes_to_the_account(self, app: Flask, admin: FlaskClient, page: str) -> None:
        with SmtpPeer() as peer:
            share(app, peer.port)
            answer = post(admin, page, f"{page}/test-shared", to="recipients")
            assert peer.mails[0].recipients == ["admin@acme.example"]
        assert "the mail server took the test e-mail" in answer.get_data(as_text=True)

    def test_a_saved_password_has_to_be_typed_again_for_another_server(self, admin: FlaskClient, page: str) -> None:
        signs_in = {"auth_mode": "plain", "username": "mailer"}
        with SmtpPeer(accounts={"mailer": SECRET}) as own, SmtpPeer(accounts={"mailer": SECRET}) as elsewhere:
            post(admin, page, **values(own.port, **signs_in, password=SECRET))
            kept = post(admin, page, f"{page}/test", htmx=True, **values(own.port, **signs_in))
            moved = post(admin, page, f"{page}/test", htmx=True, **values(elsewhere.port, **signs_in))
            assert not elsewhere.conversations
        assert "the mail server took the test e-mail" in kept.get_data(as_text=True)
        assert moved.status_code == 422
        assert "Enter the password again" in moved.get_data(as_text=True)

    def test_there_is_no_shared_test_without_a_shared_server(self, admin: FlaskClient, page: str) -> None:
        assert post(admin, page, f"{page}/test-shared").status_code == 404

    def test_tests_are_limited_over_both_buttons(self, app: Flask, admin: FlaskClient, page: str) -> None:
        data = {"csrf_token": csrf_token(text_of(admin, page)), **values(0)}
        answers = [
            admin.post(f"{page}/{each}", data=data, headers=HTMX).status_code for each in ["test", "test-shared"] * 6
        ]
        assert answers == [422, 404] * 5 + [429, 429]


class TestSwitches:
    def test_there_is_one_for_each_kind_and_all_are_off(self, admin: FlaskClient, events: str) -> None:
        html = text_of(admin, events)
        assert html.count('role="switch"') == len(KINDS)
        assert " checked" not in html
        assert all(kind.label in html for kind in KINDS.values())

    @pytest.mark.parametrize("event_type", KINDS)
    def test_htmx_gets_the_switch_back(
        self, app: Flask, admin: FlaskClient, acme: str, events: str, event_type: str
    ) -> None:
        html = post(admin, events, f"{events}/{event_type}", htmx=True, enabled="y").get_data(as_text=True)
        assert html.lstrip().startswith(f'<div class="kind" id="kind-{event_type.replace(".", "-")}"')
        assert " checked" in html
        with app.app_context():
            tenant(acme)
            assert [each for each, switch in switches.switches(KINDS).items() if switch.enabled] == [event_type]

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
        assert "It holds a password." in html
        assert '<option value="both" selected>' in html
        html = post(admin, events, f"{events}/user.created/audience", htmx=True, audience="user").get_data(as_text=True)
        assert '<option value="user" selected>' in html
        with app.app_context():
            tenant(acme)
            assert switches.switch("user.created") == Switch(enabled=True, audience=switches.Audience.USER)

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
        words = "Nobody gets mail yet"
        assert words in text_of(admin, events)
        assert f'href="{page}#recipients-form"' in text_of(admin, events)
        post(admin, page, f"{page}/recipients", recipients="a@acme.example")
        assert words not in text_of(admin, events)


class TestStorm:
    def test_the_limits_of_a_new_tenant_are_shown_and_others_are_kept(
        self, app: Flask, admin: FlaskClient, acme: str, events: str
    ) -> None:
        found = re.findall(r'name="(limit|minutes)"[^>]*value="(\d+)"', text_of(admin, events))
        assert found == [("limit", "10"), ("minutes", "5")]
        answer = post(admin, events, f"{events}/storm", limit="25", minutes="60")
        assert (answer.status_code, answer.location) == (303, events)
        assert "The limits are saved." in text_of(admin, events)
        with app.app_context():
            assert (tenant(acme).storm_limit, tenant(acme).storm_minutes) == (25, 60)

    @pytest.mark.parametrize("htmx", [False, True])
    @pytest.mark.parametrize(
        ("limit", "minutes", "words"),
        [
            ("0", "5", "Enter a number of mails from 1 to 1,000."),
            ("1001", "5", "Enter a number of mails from 1 to 1,000."),
            ("9" * 5000, "5", "Enter a number of mails from 1 to 1,000."),
            ("1.5", "5", "Enter a number of mails from 1 to 1,000."),
            ("", "5", "Enter a number of mails."),
            ("10", "61", "Enter a number of minutes from 1 to 60."),
            ("10", "\u0665", "Enter a number of minutes from 1 to 60."),
        ],
        ids=["zero", "too many", "huge", "a fraction", "none", "too long", "other digits"],
    )
    def test_bad_ones_are_told_and_not_kept(
        self, app: Flask, admin: FlaskClient, acme: str, events: str, limit: str, minutes: str, words: str, htmx: bool
    ) -> None:
        answer = post(admin, events, f"{events}/storm", htmx=htmx, limit=limit, minutes=minutes)
        html = answer.get_data(as_text=True)
        assert answer.status_code == 422
        assert words in html
        assert html.lstrip().startswith('<form class="panel" id="storm"') is htmx
        with app.app_context():
            assert (tenant(acme).storm_limit, tenant(acme).storm_minutes) == (10, 5)


class TestPause:
    def test_a_pause_is_told_and_ends_when_one_tries_now(
        self, app: Flask, admin: FlaskClient, page: str, events: str
    ) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.BRIEF)
        html = text_of(admin, events)
        assert "Paused" in html
        assert "It is tried again" in html
        assert "421 4.3.2 <closing>" in html
        assert f'action="{page}/try-now"' in html
        answer = post(admin, page, f"{page}/try-now")
        assert (answer.status_code, answer.location) == (303, page)
        html = text_of(admin, page)
        assert "The mail server is tried again now." in html
        assert "Paused" not in html

    def test_htmx_gets_the_strip(self, app: Flask, admin: FlaskClient, page: str) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.BRIEF)
        html = post(admin, page, f"{page}/try-now", htmx=True).get_data(as_text=True)
        assert html.lstrip().startswith('<aside class="strip" id="mail-server-status"')
        assert "Paused" not in html

    def test_a_server_that_rejects_its_settings_has_to_be_saved_again(
        self, app: Flask, admin: FlaskClient, page: str
    ) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.UNTIL_SAVED)
        assert "try-now" not in text_of(admin, page)
        post(admin, page, f"{page}/try-now")
        html = text_of(admin, page)
        assert "Check them, then save them again." in html
        assert "Rejected" in html

    def test_the_pause_of_the_shared_server_is_told_and_not_the_tenants_to_lift(
        self, app: Flask, admin: FlaskClient, page: str
    ) -> None:
        share(app)
        pause_server(app, Pause.BRIEF)
        html = text_of(admin, page)
        assert "Paused" in html
        assert "try-now" not in html
        assert post(admin, page, f"{page}/try-now").status_code == 404
        assert "Paused" in text_of(admin, page)


def pause_server(app: Flask, how: Pause) -> None:
    """Pause the mail server in force for Acme, as an attempt does."""
    with app.app_context():
        server = in_force(tenant("acme.example").id)
        assert server is not None
        pause.apply(server.id, server.saved_at, how, "421 4.3.2 <closing>")
        db.session.commit()


PATHS = ("", "/test", "/test-shared", "/use-shared", "/recipients", "/sender", "/try-now")


class TestStrangers:
    def test_the_administrator_of_another_tenant_finds_nothing_and_changes_nothing(
        self, app: Flask, sign_in: SignIn, admin: FlaskClient, page: str, events: str, globex: str
    ) -> None:
        post(admin, page, **values(1025))
        post(admin, page, f"{page}/recipients", recipients="a@acme.example")
        stranger = sign_in("admin@globex.example", administers=globex)
        own = f"/tenants/{globex}/mail-server"
        assert stranger.get(page).status_code == stranger.get(events).status_code == 404
        for path in [*(page + each for each in PATHS), *(f"{events}/{each}" for each in (*KINDS, "storm"))]:
            answer = post(stranger, own, path, **values(2025), recipients="x@globex.example", enabled="y")
            assert answer.status_code == 404, path
        assert port_in_force(app, "acme.example") == 1025
        assert recipients_of(app, "acme.example") == ["a@acme.example"]

    def test_the_system_administrator_may_enter(self, system: FlaskClient, page: str, events: str) -> None:
        assert system.get(page).status_code == system.get(events).status_code == 200

    def test_a_post_without_its_token_does_nothing(
        self, app: Flask, admin: FlaskClient, page: str, events: str
    ) -> None:
        for path in [*(page + each for each in PATHS), f"{events}/queue.call_lost", f"{events}/storm"]:
            assert admin.post(path, data=values(1025)).status_code == 400, path
        assert port_in_force(app, "acme.example") is None
