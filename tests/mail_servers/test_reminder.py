"""The reminder in the workspace of a tenant without a mail server."""

from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import service as mail_server_service
from tests.conftest import SignIn
from tests.pages import post
from tests.tenant_fixtures import entered

TITLE = "Configure your SMTP server to receive notifications."


def log_of(tenant: str) -> str:
    return f"/tenants/{tenant}/deliveries"


def shows_reminder(browser: FlaskClient, path: str) -> bool:
    return TITLE in browser.get(path, follow_redirects=True).get_data(as_text=True)


def test_it_is_shown_once_per_visit_of_the_workspace(admin: FlaskClient, acme: str) -> None:
    assert shows_reminder(admin, "/")
    assert not shows_reminder(admin, log_of(acme))
    assert not shows_reminder(admin, f"/tenants/{acme}/notifications")
    assert shows_reminder(admin, f"/tenants/{acme}/")
    assert not shows_reminder(admin, log_of(acme))


def test_it_is_shown_on_the_first_page_whichever_it_is(admin: FlaskClient, acme: str) -> None:
    assert shows_reminder(admin, f"/tenants/{acme}/notifications")
    assert not shows_reminder(admin, log_of(acme))


def test_it_is_shown_again_after_the_next_sign_in(admin: FlaskClient, acme: str) -> None:
    assert shows_reminder(admin, log_of(acme))
    post(admin, log_of(acme), "/sign-out")
    post(admin, "/sign-in", email="admin@acme.example", password="a long enough password")
    assert shows_reminder(admin, log_of(acme))


def test_it_is_shown_after_switching_to_another_tenant(sign_in: SignIn, acme: str, globex: str) -> None:
    sign_in("admin@acme.example", administers=globex)
    browser = sign_in("admin@acme.example", administers=acme)
    assert shows_reminder(browser, log_of(acme))
    assert shows_reminder(browser, log_of(globex))
    assert not shows_reminder(browser, log_of(globex))


def test_a_fragment_does_not_count_as_the_first_page(admin: FlaskClient, acme: str) -> None:
    admin.get(f"/tenants/{acme}/mail-server?provider=gmail", headers={"HX-Request": "true"})
    assert shows_reminder(admin, log_of(acme))


def test_it_is_not_shown_while_a_server_is_usable(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        mail_server_service.save(None, entered(2525))
        mail_server_service.share(True)
    assert not shows_reminder(admin, "/")
    with app.app_context():
        mail_server_service.share(False)
    assert shows_reminder(admin, "/")


def test_settings_opens_the_form_and_ok_the_delivery_log(admin: FlaskClient, acme: str) -> None:
    action = f"/tenants/{acme}/mail-server/reminder"
    assert post(admin, log_of(acme), action, settings="y").location == f"/tenants/{acme}/mail-server"
    assert post(admin, log_of(acme), action, ok="y").location == log_of(acme)
    assert shows_reminder(admin, "/")


def test_with_htmx_ok_only_closes_it(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, log_of(acme), f"/tenants/{acme}/mail-server/reminder", htmx=True, ok="y")
    assert (answer.status_code, answer.get_data()) == (200, b"")


def test_dismissal_is_stored_for_the_account_and_the_tenant(sign_in: SignIn, acme: str, globex: str) -> None:
    sign_in("admin@acme.example", administers=globex)
    browser = sign_in("admin@acme.example", administers=acme)
    for _ in range(2):
        post(browser, log_of(acme), f"/tenants/{acme}/mail-server/reminder", never="y", ok="y")
    assert not shows_reminder(browser, f"/tenants/{acme}/")
    assert shows_reminder(browser, f"/tenants/{globex}/")
    assert shows_reminder(sign_in("colleague@acme.example", administers=acme), f"/tenants/{acme}/")


def test_a_stranger_cannot_close_it(sign_in: SignIn, acme: str, globex: str) -> None:
    browser = sign_in("admin@globex.example", administers=globex)
    answer = post(browser, log_of(globex), f"/tenants/{acme}/mail-server/reminder", never="y")
    assert answer.status_code == 404
