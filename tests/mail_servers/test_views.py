"""A tenant's page "Mail Server": one form for its mail server, the recipients and the Reply-To address."""

from email import message_from_bytes, policy
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from portal.database.scope import enter_scope
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.service import effective_server
from portal.mail_servers.smtp.client import AuthMode
from portal.mail_servers.smtp.outcome import Pause
from portal.notifications import recipients
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.pages import HTMX, post, read_form
from tests.smtp_peer import SmtpPeer
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
            mail_server_service.share(False)
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
            server = effective_server(tenant(acme).id)
            assert server is not None
            mail_server_service.pause(server.id, server.saved_at, Pause.UNTIL_SAVED, "535 5.7.8 <no>")
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
            post(admin, page, recipients="nobody"),
        ]
        for answer in answers:
            assert SECRET not in answer.get_data(as_text=True)
            assert "own secret" not in answer.get_data(as_text=True)
            assert "root" not in answer.get_data(as_text=True)


def opened(browser: FlaskClient, page: str) -> dict[str, str]:
    """Return the values of the page's form, as it is when the page was opened."""
    return read_form(browser.get(page).text, "mail-server")


def submit(
    browser: FlaskClient, page: str, values: dict[str, str], *, htmx: bool = False, **typed: Any
) -> TestResponse:
    """Submit the form with what was typed into it."""
    return browser.post(page, data=values | typed, headers=HTMX if htmx else None)


class TestOneForm:
    def test_everything_typed_is_saved_by_one_button(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        html = text_of(admin, page)
        form = html.partition('id="mail-server"')[2].partition("</form>")[0]
        assert form.count(">Save</button>") == html.count(">Save</button>") == 1
        typed = values(1025, recipients="a@acme.example", reply_to="help@acme.example")
        answer = submit(admin, page, opened(admin, page), **typed)
        assert (answer.status_code, answer.location) == (303, page)
        assert port_in_force(app, acme) == 1025
        assert recipients_of(app, acme) == ["a@acme.example"]
        assert {"reply_to": "help@acme.example", "port": "1025"}.items() <= opened(admin, page).items()

    def test_only_recipients_are_saved_while_no_server_is_entered(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        assert submit(admin, page, opened(admin, page), recipients="a@acme.example").status_code == 303
        share(app)
        assert submit(admin, page, opened(admin, page), recipients="b@acme.example").status_code == 303
        assert recipients_of(app, acme) == ["b@acme.example"]
        assert port_in_force(app, acme) == 2525

    @pytest.mark.parametrize(
        ("field", "typed"),
        [("host", "smtp.acme.example"), ("username", "me"), ("password", SECRET), ("port", "25"), ("provider", "gmail"),
         ("sender_email", "pbx@acme.example"), ("encryption", "tls"), ("auth_mode", "none")],
    )  # fmt: skip
    def test_nothing_typed_about_an_own_server_is_discarded(
        self, app: Flask, admin: FlaskClient, acme: str, page: str, field: str, typed: str
    ) -> None:
        share(app)
        entered: dict[str, Any] = {"recipients": "a@acme.example", field: typed}
        answer = submit(admin, page, opened(admin, page), **entered)
        assert answer.status_code == 422
        assert '<details class="fold" open>' in answer.text
        assert "a@acme.example" in answer.text
        assert field == "password" or read_form(answer.text, "mail-server")[field] == typed

    def test_an_empty_form_says_what_is_missing(self, admin: FlaskClient, page: str) -> None:
        answer = submit(admin, page, opened(admin, page))
        assert answer.status_code == 422
        assert "Enter the mail server&#39;s name or IP address." in answer.text

    def test_errors_of_all_parts_are_shown_together_and_nothing_is_saved(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        typed = values(0, recipients="nobody", reply_to="help")
        html = unescape(submit(admin, page, opened(admin, page), **typed).text)
        for error in ("Enter a port from 1 to 65535.", "“nobody” is not an email", "“help” is not an email"):
            assert error in html
        assert recipients_of(app, acme) == []
        assert port_in_force(app, acme) is None

    def test_a_test_keeps_what_was_typed(self, app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
        with SmtpPeer() as peer:
            typed = values(peer.port, recipients="new@acme.example", reply_to="help@acme.example")
            answer = admin.post(f"{page}/test", data=opened(admin, page) | typed)
            assert [mail.recipients for mail in peer.messages] == [["admin@acme.example"]]
        assert typed.items() <= read_form(answer.text, "mail-server").items()
        assert recipients_of(app, acme) == []

    def test_without_javascript_a_provider_is_filled_in_and_what_was_typed_stays(
        self, admin: FlaskClient, page: str
    ) -> None:
        typed: dict[str, Any] = {
            "provider": "sendgrid",
            "recipients": "new@acme.example",
            "sender_email": "pbx@acme.example",
        }
        answer = submit(admin, f"{page}?fill_in=y", opened(admin, page), **typed)
        filled = read_form(answer.text, "mail-server")
        assert (typed | {"host": "smtp.sendgrid.net", "username": "apikey"}).items() <= filled.items()

    def test_enter_saves_and_does_not_fill_in_a_provider(self, admin: FlaskClient, page: str) -> None:
        form = admin.get(page).text.partition('id="mail-server"')[2]
        assert form.index('<button type="submit" hidden>') < form.index("?fill_in=y")


class TestRecipients:
    def test_they_are_kept(self, app: Flask, admin: FlaskClient, acme: str, page: str) -> None:
        typed = "a@acme.example; b@acme.example\r\nDoe, Ann <c@acme.example>"
        answer = submit(admin, page, opened(admin, page), recipients=typed)
        assert (answer.status_code, answer.location) == (303, page)
        assert recipients_of(app, acme) == ["a@acme.example", "b@acme.example", "c@acme.example"]
        assert "a@acme.example\nb@acme.example\nc@acme.example" in text_of(admin, page)

    @pytest.mark.parametrize("htmx", [False, True])
    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            ("a@acme.example; nobody", "“nobody” is not an email address."),
            ("", "Enter at least one email address."),
            (";".join(f"a{number}@acme.example" for number in range(51)), "You entered 51."),
            ("a@acme.example\x00", "is not an email address."),
        ],
        ids=["bad", "none", "51", "control"],
    )
    def test_bad_ones_are_told_and_none_is_kept(
        self, app: Flask, admin: FlaskClient, acme: str, page: str, bad: str, words: str, htmx: bool
    ) -> None:
        submit(admin, page, opened(admin, page), recipients="before@acme.example")
        answer = submit(admin, page, opened(admin, page), htmx=htmx, recipients=bad)
        assert answer.status_code == 422
        assert words in answer.text
        assert answer.text.lstrip().startswith('<form class="panel" id="mail-server"') is htmx
        assert recipients_of(app, acme) == ["before@acme.example"]


class TestOlderTab:
    @pytest.mark.parametrize("htmx", [False, True])
    def test_newer_recipients_are_not_overwritten(
        self, app: Flask, admin: FlaskClient, acme: str, page: str, htmx: bool
    ) -> None:
        older = opened(admin, page)
        submit(admin, page, opened(admin, page), recipients="newer@acme.example")
        answer = submit(admin, page, older, htmx=htmx, recipients="older@acme.example")
        assert answer.status_code == 422
        assert "The recipients have changed since you opened this page. Now saved: newer@acme.example." in answer.text
        assert recipients_of(app, acme) == ["newer@acme.example"]
        shown = read_form(answer.text, "mail-server")
        assert shown["recipients"] == "older@acme.example"
        assert submit(admin, page, shown).status_code == 303, "saving once more is meant"
        assert recipients_of(app, acme) == ["older@acme.example"]

    def test_recipients_that_it_did_not_change_stay_the_newer_ones(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        submit(admin, page, opened(admin, page), recipients="before@acme.example")
        older = opened(admin, page)
        submit(admin, page, opened(admin, page), recipients="newer@acme.example", reply_to="newer@acme.example")
        assert submit(admin, page, older, **values(1025)).status_code == 303
        assert recipients_of(app, acme) == ["newer@acme.example"]
        assert {"reply_to": "newer@acme.example", "port": "1025"}.items() <= opened(admin, page).items()

    def test_a_newer_server_and_reply_to_are_not_overwritten(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        submit(admin, page, opened(admin, page), **values(1025, recipients="a@acme.example"))
        older = opened(admin, page)
        submit(admin, page, opened(admin, page), **values(2025, reply_to="newer@acme.example"))
        assert submit(admin, page, older, recipients="b@acme.example").status_code == 303, "the server is as it was"
        assert port_in_force(app, acme) == 2025
        refused = submit(admin, page, older, **values(1026, recipients="b@acme.example"))
        assert "The mail server has changed since you opened this page. Now saved: 127.0.0.1:2025." in refused.text
        refused = submit(admin, page, older, reply_to="older@acme.example", recipients="b@acme.example")
        assert "Reply-To has changed since you opened this page. Now saved: newer@acme.example." in refused.text
        assert port_in_force(app, acme) == 2025


class TestSender:
    def test_reply_to_is_used_and_from_is_the_systems(self, app: Flask, admin: FlaskClient, page: str) -> None:
        with SmtpPeer() as peer:
            share(app, peer.port)
            typed: dict[str, Any] = {"recipients": "a@acme.example", "reply_to": "Help <help@acme.example>"}
            assert submit(admin, page, opened(admin, page), **typed).status_code == 303
            submit(admin, f"{page}/test", opened(admin, page), htmx=True)
            message = message_from_bytes(peer.messages[0].content, policy=policy.default)
        assert message["From"] == "Acme <noreply@pbx.example>"
        assert message["Reply-To"] == "help@acme.example"


class TestTestMail:
    def test_to_the_account_with_the_values_in_the_form(
        self, app: Flask, admin: FlaskClient, acme: str, page: str
    ) -> None:
        with SmtpPeer() as peer:
            answer = post(admin, page, f"{page}/test", htmx=True, **values(peer.port, to="me"))
            (mail,) = peer.messages
        assert '<div class="test-result" id="test-email"' in answer.get_data(as_text=True)
        assert "Connected: the mail server accepted the test email for admin@acme.example." in answer.get_data(
            as_text=True
        )
        assert (mail.sender, mail.recipients) == ("pbx@acme.example", ["admin@acme.example"])
        assert port_in_force(app, acme) is None

    def test_to_the_recipients_and_to_nobody_else(self, app: Flask, admin: FlaskClient, page: str) -> None:
        with SmtpPeer() as peer:
            share(app, peer.port)
            post(admin, page, recipients="a@acme.example; b@acme.example")
            for to in ("recipients", "victim@example.com"):
                post(admin, page, f"{page}/test", htmx=True, to=to)
            assert [mail.recipients for mail in peer.messages] == [
                ["a@acme.example", "b@acme.example"],
                ["admin@acme.example"],
            ]

    def test_without_recipients_it_goes_to_the_account(self, app: Flask, admin: FlaskClient, page: str) -> None:
        with SmtpPeer() as peer:
            share(app, peer.port)
            answer = post(admin, page, f"{page}/test", to="recipients")
            assert peer.messages[0].recipients == ["admin@acme.example"]
        assert "the mail server accepted the test email" in answer.get_data(as_text=True)

    def test_a_saved_password_has_to_be_typed_again_for_another_server(self, admin: FlaskClient, page: str) -> None:
        signs_in = {"auth_mode": "plain", "username": "mailer"}
        with SmtpPeer(accounts={"mailer": SECRET}) as own, SmtpPeer(accounts={"mailer": SECRET}) as elsewhere:
            post(admin, page, **values(own.port, **signs_in, password=SECRET))
            kept = post(admin, page, f"{page}/test", htmx=True, **values(own.port, **signs_in))
            moved = post(admin, page, f"{page}/test", htmx=True, **values(elsewhere.port, **signs_in))
            assert not elsewhere.conversations
        assert "the mail server accepted the test email" in kept.get_data(as_text=True)
        assert moved.status_code == 422
        assert "Enter the password again" in moved.get_data(as_text=True)

    def test_a_test_needs_a_server(self, admin: FlaskClient, page: str) -> None:
        answer = submit(admin, f"{page}/test", opened(admin, page), htmx=True)
        assert answer.status_code == 422
        assert "No test email was sent." in answer.text


class TestPause:
    def test_a_pause_is_told_and_ends_when_one_tries_now(
        self, app: Flask, admin: FlaskClient, page: str, events: str
    ) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.BRIEF)
        html = text_of(admin, events)
        assert "Paused" in html
        assert "Next attempt" in html
        assert "421 4.3.2 <closing>" in html
        assert f'action="{page}/try-now"' in html
        answer = post(admin, page, f"{page}/try-now")
        assert (answer.status_code, answer.location) == (303, page)
        html = text_of(admin, page)
        assert "The portal is trying the mail server again." in html
        assert "Paused" not in html

    def test_htmx_gets_the_strip(self, app: Flask, admin: FlaskClient, page: str) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.BRIEF)
        html = post(admin, page, f"{page}/try-now", htmx=True).get_data(as_text=True)
        assert html.lstrip().startswith('<aside class="server-status" id="mail-server-status"')
        assert "Paused" not in html

    def test_a_server_that_rejects_its_settings_has_to_be_saved_again(
        self, app: Flask, admin: FlaskClient, page: str
    ) -> None:
        post(admin, page, **values(1025))
        pause_server(app, Pause.UNTIL_SAVED)
        assert "try-now" not in text_of(admin, page)
        post(admin, page, f"{page}/try-now")
        html = text_of(admin, page)
        assert "Check and save them again." in html
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
        server = effective_server(tenant("acme.example").id)
        assert server is not None
        mail_server_service.pause(server.id, server.saved_at, how, "421 4.3.2 <closing>")
        db.session.commit()


PATHS = ("", "/test", "/use-shared", "/try-now")


class TestStrangers:
    def test_the_administrator_of_another_tenant_finds_nothing_and_changes_nothing(
        self, app: Flask, sign_in: SignIn, admin: FlaskClient, page: str, globex: str
    ) -> None:
        post(admin, page, **values(1025, recipients="a@acme.example"))
        stranger = sign_in("admin@globex.example", administers=globex)
        own = f"/tenants/{globex}/mail-server"
        assert stranger.get(page).status_code == 404
        for path in PATHS:
            answer = post(stranger, own, page + path, **values(2025, recipients="x@globex.example"))
            assert answer.status_code == 404, path
        assert port_in_force(app, "acme.example") == 1025
        assert recipients_of(app, "acme.example") == ["a@acme.example"]

    def test_the_system_administrator_may_enter(self, system: FlaskClient, page: str) -> None:
        assert system.get(page).status_code == 200

    def test_a_post_without_its_token_does_nothing(self, app: Flask, admin: FlaskClient, page: str) -> None:
        for path in PATHS:
            assert admin.post(page + path, data=values(1025)).status_code == 400, path
        assert port_in_force(app, "acme.example") is None
