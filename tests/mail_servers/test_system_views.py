"""The system's mail server page."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.service import get_server
from portal.mail_servers.smtp.outcome import Pause
from tests.conftest import SignIn
from tests.pages import HTMX, csrf_token, post
from tests.smtp_peer import SmtpPeer, closed_port
from tests.sql import sql

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


def test_saving_redirects_to_the_page(app: Flask, system: FlaskClient) -> None:
    answer = post(system, PAGE, **values(2525))
    assert (answer.status_code, answer.location) == (303, PAGE)
    page = system.get(PAGE).get_data(as_text=True)
    assert 'value="2525"' in page
    assert "The mail server is saved." in page
    with app.app_context():
        server = get_server(None)
        assert server is not None
        assert server.password == SECRET


def test_the_password_is_in_no_response(system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    answers = [
        system.get(PAGE),
        post(system, PAGE, **values(70000)),
        post(system, PAGE, htmx=True, **values(70000)),
        post(system, PAGE, f"{PAGE}/test", **values(70000)),
    ]
    assert all(SECRET not in answer.get_data(as_text=True) for answer in answers)
    assert "Saved. Type to replace it." in answers[0].get_data(as_text=True)


@pytest.mark.parametrize("htmx", [False, True])
def test_an_invalid_port_is_reported_at_its_field_and_nothing_is_saved(
    app: Flask, system: FlaskClient, htmx: bool
) -> None:
    answer = post(system, PAGE, htmx=htmx, **values(70000))
    html = answer.get_data(as_text=True)
    assert answer.status_code == 422
    assert ("<!doctype html>" in html) is not htmx
    assert "Enter a port from 1 to 65535." in html
    assert 'value="70000"' in html
    assert 'value="mailer"' in html
    with app.app_context():
        assert get_server(None) is None


def test_a_fragment_has_its_target_as_its_root(system: FlaskClient) -> None:
    html = post(system, PAGE, htmx=True, **values(0)).get_data(as_text=True)
    assert html.lstrip().startswith('<form class="panel" id="mail-server"')
    html = post(system, PAGE, f"{PAGE}/test", htmx=True, **values(0)).get_data(as_text=True)
    assert html.lstrip().startswith('<div class="test-result" id="test-email"')


@pytest.mark.parametrize("provider", [("gmail", "smtp.gmail.com"), ("microsoft365", "smtp.office365.com")])
def test_a_provider_fills_in_its_settings(system: FlaskClient, provider: tuple[str, str]) -> None:
    post(system, PAGE, **values(2525))
    html = system.get(f"{PAGE}?provider={provider[0]}", headers=HTMX).get_data(as_text=True)
    assert f'value="{provider[1]}"' in html
    assert 'value="587"' in html
    assert 'value="mailer"' in html


def test_the_username_of_one_provider_is_not_kept_for_another(system: FlaskClient) -> None:
    post(system, PAGE, **values(587, provider="sendgrid", host="smtp.sendgrid.net", username="apikey"))
    html = system.get(f"{PAGE}?provider=gmail", headers=HTMX).get_data(as_text=True)
    assert 'value="smtp.gmail.com"' in html
    assert 'value="apikey"' not in html
    typed = values(587, provider="gmail", username="apikey")
    assert 'value="apikey"' not in post(system, PAGE, f"{PAGE}?fill_in=y", **typed).text


def test_an_unknown_provider_changes_nothing(system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    assert 'value="2525"' in system.get(f"{PAGE}?provider=nobody").get_data(as_text=True)


def test_the_test_uses_the_values_in_the_form_and_saves_nothing(app: Flask, system: FlaskClient) -> None:
    with SmtpPeer(accounts={"mailer": SECRET}) as peer:
        answer = post(system, PAGE, f"{PAGE}/test", htmx=True, **values(peer.port))
        (mail,) = peer.messages
    assert "Connected, signed in: the mail server accepted the test email" in answer.get_data(as_text=True)
    assert mail.recipients == ["root@pbx.example"]
    with app.app_context():
        assert get_server(None) is None


def test_without_javascript_a_test_returns_the_page_with_the_entered_values(system: FlaskClient) -> None:
    with closed_port() as port:
        answer = post(system, PAGE, f"{PAGE}/test", **values(port))
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert "The connection was refused." in html
    assert f'value="{port}"' in html


def test_test_emails_are_limited(system: FlaskClient) -> None:
    token = csrf_token(system.get(PAGE).get_data(as_text=True))
    data = {"csrf_token": token, **values(0)}
    answers = [system.post(f"{PAGE}/test", data=data, headers=HTMX).status_code for _ in range(11)]
    assert answers == [422] * 10 + [429]


def is_shared(app: Flask) -> bool:
    with app.app_context():
        server = get_server(None)
        return server is not None and server.shared


def test_the_server_and_sharing_are_saved_together(app: Flask, system: FlaskClient) -> None:
    assert post(system, PAGE, **values(2525, shared="y")).location == PAGE
    assert is_shared(app)
    assert re.search(r"<input[^>]* checked[^>]* id=\"shared\"", system.get(PAGE).text)
    post(system, PAGE, **values(70000))
    assert is_shared(app)
    post(system, PAGE, **values(2525))
    assert not is_shared(app)


def test_without_javascript_a_provider_is_filled_in_and_what_was_typed_stays(app: Flask, system: FlaskClient) -> None:
    typed = values(2525, provider="sendgrid", sender_email="typed@pbx.example", shared="y")
    html = post(system, PAGE, f"{PAGE}?fill_in=y", **typed).text
    for value in ("smtp.sendgrid.net", "apikey", "typed@pbx.example"):
        assert f'value="{value}"' in html
    assert re.search(r"<input[^>]* checked[^>]* id=\"shared\"", html)
    with app.app_context():
        assert get_server(None) is None


def test_an_older_tab_does_not_overwrite_newer_settings(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    older = based_on(system)
    post(system, PAGE, **values(587), **based_on(system))
    answer = post(system, PAGE, **values(465), **older)
    assert answer.status_code == 422
    assert "The mail server has changed since you opened this page. Now saved: 127.0.0.1:587." in answer.text
    assert 'value="465"' in answer.text
    with app.app_context():
        assert getattr(get_server(None), "port", None) == 587
    again = re.search(r'name="server_based_on"[^>]* value="([^"]*)"', answer.text)
    assert again
    assert post(system, PAGE, **values(465), server_based_on=again[1]).status_code == 303
    with app.app_context():
        assert getattr(get_server(None), "port", None) == 465


def test_an_older_tab_does_not_change_sharing_back(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    older = based_on(system)
    post(system, PAGE, **values(2525, shared="y"), **based_on(system))
    assert post(system, PAGE, **values(587), **older).status_code == 422
    assert is_shared(app)


def test_sharing_that_is_changed_in_an_older_tab_is_not_lost_silently(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    older = based_on(system)
    post(system, PAGE, **values(587), **based_on(system))
    answer = post(system, PAGE, **values(2525, shared="y", password=""), **older)
    assert (answer.status_code, is_shared(app)) == (422, False)
    assert "The mail server has changed since you opened this page." in answer.text


def based_on(browser: FlaskClient) -> dict[str, Any]:
    """Return the hidden field of the page that says which settings it shows."""
    found = re.search(r'name="server_based_on"[^>]* value="([^"]*)"', browser.get(PAGE).text)
    assert found
    return {"server_based_on": found[1]}


def pause_server(app: Flask, pause: Pause) -> None:
    with app.app_context():
        server = get_server(None)
        assert server is not None
        mail_server_service.pause(server.id, server.saved_at, pause, "421 4.3.2 <closing>")
        db.session.commit()


def test_a_pause_is_shown_and_can_be_ended(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    assert "try-now" not in system.get(PAGE).get_data(as_text=True)
    pause_server(app, Pause.BRIEF)
    html = system.get(PAGE).get_data(as_text=True)
    assert "Paused. Next attempt" in html
    assert "421 4.3.2 &lt;closing&gt;" in html
    assert f'action="{PAGE}/try-now"' in html
    answer = post(system, PAGE, f"{PAGE}/try-now")
    assert (answer.status_code, answer.location) == (303, PAGE)
    html = system.get(PAGE).get_data(as_text=True)
    assert "The portal is trying the mail server again." in html
    assert "Paused" not in html


def test_a_server_that_rejects_its_settings_has_to_be_saved_again(app: Flask, system: FlaskClient) -> None:
    post(system, PAGE, **values(2525))
    pause_server(app, Pause.UNTIL_SAVED)
    assert "try-now" not in system.get(PAGE).get_data(as_text=True)
    post(system, PAGE, f"{PAGE}/try-now")
    html = system.get(PAGE).get_data(as_text=True)
    assert "The mail server rejects these settings." in html
    assert "Check and save them again." in html


def test_without_a_server_there_is_no_pause_to_end(system: FlaskClient) -> None:
    assert post(system, PAGE, f"{PAGE}/try-now").status_code == 404


def test_the_page_does_not_exist_for_others(sign_in: SignIn, acme: str) -> None:
    admin = sign_in("admin@acme.example", administers=acme)
    assert admin.get(PAGE).status_code == 404
    page = f"/tenants/{acme}/mail-server"
    for path in (PAGE, f"{PAGE}/test", f"{PAGE}/try-now"):
        assert post(admin, page, path, **values(2525)).status_code == 404


def test_a_post_without_its_token_does_nothing(app: Flask, system: FlaskClient) -> None:
    assert system.post(PAGE, data=values(2525)).status_code == 400
    with app.app_context():
        assert get_server(None) is None


def test_stopping_to_share_asks_first_and_can_be_undone(
    app: Flask, system: FlaskClient, admin: FlaskClient, acme: str
) -> None:
    def is_shared() -> bool:
        with app.app_context():
            server = get_server(None)
            return server is not None and server.shared and server.port == 587

    question = f"{PAGE}/stop-sharing"
    post(system, PAGE, **values(2525, shared="y"))
    assert post(system, PAGE, **values(2525)).location == PAGE  # no tenant has events on
    post(system, PAGE, **values(2525, shared="y"))
    with app.app_context():
        sql("INSERT INTO notification_settings SELECT id, 'queue.call_lost', true, 'both' FROM tenants")
    answer = post(system, PAGE, **values(587))
    assert (answer.status_code, answer.location) == (303, question)
    assert is_shared()  # and the other changes are saved
    assert post(system, PAGE, htmx=True, **values(587)).headers["HX-Redirect"] == question
    assert "1 tenant will send no email." in system.get(question).get_data(as_text=True)
    assert is_shared()
    assert system.post(question).status_code == 400  # without a CSRF token
    assert post(system, question).location == PAGE
    assert not is_shared()
    page = system.get(PAGE).get_data(as_text=True)
    assert "The mail server is no longer shared. 1 tenant sends no email." in page
    assert re.search(rf'<form method="post" action="{PAGE}/share">.*?>Undo</button>', page, re.DOTALL)
    assert system.get(question).location == PAGE  # there is nothing to stop any more
    for path in (question, f"{PAGE}/share"):
        assert post(admin, f"/tenants/{acme}/recipients", path).status_code == 404
    assert post(system, PAGE, f"{PAGE}/share").location == PAGE
    assert is_shared()
