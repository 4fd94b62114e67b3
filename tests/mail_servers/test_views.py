"""The system administrator's page of the mail server."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.extensions import db
from portal.mail_servers import pause
from portal.mail_servers.outcome import Pause
from portal.mail_servers.selection import of_owner
from tests.conftest import SignIn
from tests.pages import HTMX, csrf_token, post
from tests.smtp_peer import SmtpPeer, refusing_port

PAGE = "/system/mail-server"
SECRET = "correct horse battery"


def values(port: int, **changes: str) -> dict[str, Any]:
    return {
        "provider": "smtp",
        "host": "127.0.0.1",
        "port": str(port),
        "encryption": "none",
        "auth_mode": "auto",
        "username": "mailer",
        "password": SECRET,
        "sender_email": "noreply@pbx.example",
        **changes,
    }


def test_saving_leads_back_to_the_page(app: Flask, system: FlaskClient) -> None:
    answer = post(system, PAGE, **values(2525))
    assert (answer.status_code, answer.location) == (303, PAGE)
    page = system.get(PAGE).get_data(as_text=True)
    assert 'value="2525"' in page
    assert "The mail server is saved." in page
    with app.app_context():
        server = of_owner(None)
        assert server is not None
        assert server.password == SECRET


def test_the_password_is_in_no_answer(system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    answers = [
        system.get(PAGE),
        post(system, PAGE, **values(70000)),
        post(system, PAGE, htmx=True, **values(70000)),
        post(system, PAGE, f"{PAGE}/test", **values(70000)),
        post(system, PAGE, f"{PAGE}/share", enabled="y"),
    ]
    assert all(SECRET not in answer.get_data(as_text=True) for answer in answers)
    assert "Saved. Type to replace it." in answers[0].get_data(as_text=True)


@pytest.mark.parametrize("htmx", [False, True])
def test_a_bad_port_is_told_at_the_field_and_nothing_is_saved(app: Flask, system: FlaskClient, htmx: bool) -> None:
    answer = post(system, PAGE, htmx=htmx, **values(70000))
    html = answer.get_data(as_text=True)
    assert answer.status_code == 422
    assert ("<!doctype html>" in html) is not htmx
    assert "Enter a port from 1 to 65535." in html
    assert 'value="70000"' in html
    assert 'value="mailer"' in html
    with app.app_context():
        assert of_owner(None) is None


def test_a_fragment_has_its_target_as_its_root(system: FlaskClient) -> None:
    html = post(system, PAGE, htmx=True, **values(0)).get_data(as_text=True)
    assert html.lstrip().startswith('<form class="panel" id="mail-server"')
    html = post(system, PAGE, f"{PAGE}/test", htmx=True, **values(0)).get_data(as_text=True)
    assert html.lstrip().startswith('<section class="test-result" id="own-test"')


@pytest.mark.parametrize("provider", [("gmail", "smtp.gmail.com"), ("microsoft365", "smtp.office365.com")])
def test_a_provider_fills_in_what_it_wants(system: FlaskClient, provider: tuple[str, str]) -> None:
    post(system, PAGE, **values(2525))
    html = system.get(f"{PAGE}?provider={provider[0]}", headers=HTMX).get_data(as_text=True)
    assert f'value="{provider[1]}"' in html
    assert 'value="587"' in html
    assert 'value="mailer"' in html


def test_an_unknown_provider_changes_nothing(system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    assert 'value="2525"' in system.get(f"{PAGE}?provider=nobody").get_data(as_text=True)


def test_the_test_uses_the_values_in_the_form_and_saves_nothing(app: Flask, system: FlaskClient) -> None:
    with SmtpPeer(accounts={"mailer": SECRET}) as peer:
        answer = post(system, PAGE, f"{PAGE}/test", htmx=True, **values(peer.port))
        (mail,) = peer.mails
    assert "Connected, signed in: the mail server took the test e-mail" in answer.get_data(as_text=True)
    assert mail.recipients == ["root@pbx.example"]
    with app.app_context():
        assert of_owner(None) is None


def test_without_javascript_the_test_answers_with_the_page_as_it_was_filled_in(system: FlaskClient) -> None:
    with refusing_port() as port:
        answer = post(system, PAGE, f"{PAGE}/test", **values(port))
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert "No connection was made." in html
    assert f'value="{port}"' in html


def test_tests_are_limited(system: FlaskClient) -> None:
    token = csrf_token(system.get(PAGE).get_data(as_text=True))
    data = {"csrf_token": token, **values(0)}
    answers = [system.post(f"{PAGE}/test", data=data, headers=HTMX).status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]


def test_sharing_is_switched_at_once(app: Flask, system: FlaskClient) -> None:
    def is_shared() -> bool:
        with app.app_context():
            server = of_owner(None)
            return server is not None and server.shared

    post(system, PAGE, **values(2525))
    html = post(system, PAGE, f"{PAGE}/share", htmx=True, enabled="y").get_data(as_text=True)
    assert html.lstrip().startswith('<form class="panel list" id="share"')
    assert " checked" in html
    assert is_shared()
    answer = post(system, PAGE, f"{PAGE}/share")
    assert (answer.status_code, answer.location) == (303, PAGE)
    assert not is_shared()


def test_nothing_can_be_shared_before_there_is_a_server(system: FlaskClient) -> None:
    html = post(system, PAGE, f"{PAGE}/share", htmx=True, enabled="y").get_data(as_text=True)
    assert "Set the system&#39;s mail server first." in html
    assert " disabled" in html


def pause_server(app: Flask, how: Pause) -> None:
    with app.app_context():
        server = of_owner(None)
        assert server is not None
        pause.apply(server.id, server.saved_at, how, "421 4.3.2 <closing>")
        db.session.commit()


def test_a_pause_is_told_and_ends_when_one_tries_now(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    assert "try-now" not in system.get(PAGE).get_data(as_text=True)
    pause_server(app, Pause.BRIEF)
    html = system.get(PAGE).get_data(as_text=True)
    assert "Paused: the mail server is tried again" in html
    assert "421 4.3.2 &lt;closing&gt;" in html
    assert f'action="{PAGE}/try-now"' in html
    answer = post(system, PAGE, f"{PAGE}/try-now")
    assert (answer.status_code, answer.location) == (303, PAGE)
    html = system.get(PAGE).get_data(as_text=True)
    assert "The mail server is tried again now." in html
    assert "Paused" not in html


def test_a_server_that_rejects_its_settings_has_to_be_saved_again(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    pause_server(app, Pause.UNTIL_SAVED)
    assert "try-now" not in system.get(PAGE).get_data(as_text=True)
    post(system, PAGE, f"{PAGE}/try-now")
    html = system.get(PAGE).get_data(as_text=True)
    assert "The mail server rejects its settings." in html
    assert "The mail server rejects these settings." in html


def test_without_a_server_there_is_none_to_try(system: FlaskClient) -> None:
    assert post(system, PAGE, f"{PAGE}/try-now").status_code == 404


def test_for_everybody_else_the_page_does_not_exist(sign_in: SignIn, acme: str) -> None:
    admin = sign_in("admin@acme.example", administers=acme)
    assert admin.get(PAGE).status_code == 404
    page = f"/tenants/{acme}/mail-server"
    for path in (PAGE, f"{PAGE}/test", f"{PAGE}/share", f"{PAGE}/try-now"):
        assert post(admin, page, path, **values(2525)).status_code == 404


def test_a_post_without_its_token_does_nothing(app: Flask, system: FlaskClient) -> None:
    assert system.post(PAGE, data=values(2525)).status_code == 400
    with app.app_context():
        assert of_owner(None) is None
