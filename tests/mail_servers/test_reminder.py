"""The pop-up in the workspace of a tenant that has no mail server."""

from flask import Flask
from flask.testing import FlaskClient

from portal.mail_servers import settings
from tests.conftest import SignIn
from tests.pages import post
from tests.ready import entered

WORDS = "Configure your SMTP server to receive notifications."


def log_of(tenant: str) -> str:
    return f"/tenants/{tenant}/deliveries"


def pops_up(browser: FlaskClient, path: str) -> bool:
    return WORDS in browser.get(path, follow_redirects=True).get_data(as_text=True)


def test_it_comes_once_per_entering(admin: FlaskClient, acme: str) -> None:
    assert pops_up(admin, "/")
    assert not pops_up(admin, log_of(acme))
    assert not pops_up(admin, f"/tenants/{acme}/notifications")
    assert pops_up(admin, f"/tenants/{acme}/")
    assert not pops_up(admin, log_of(acme))


def test_it_comes_on_whichever_page_is_first(admin: FlaskClient, acme: str) -> None:
    assert pops_up(admin, f"/tenants/{acme}/notifications")
    assert not pops_up(admin, log_of(acme))


def test_it_comes_again_after_the_next_sign_in(admin: FlaskClient, acme: str) -> None:
    assert pops_up(admin, log_of(acme))
    post(admin, log_of(acme), "/sign-out")
    post(admin, "/sign-in", email="admin@acme.example", password="a long enough password")
    assert pops_up(admin, log_of(acme))


def test_it_comes_when_one_switches_to_another_tenant(sign_in: SignIn, acme: str, globex: str) -> None:
    sign_in("admin@acme.example", administers=globex)
    browser = sign_in("admin@acme.example", administers=acme)
    assert pops_up(browser, log_of(acme))
    assert pops_up(browser, log_of(globex))
    assert not pops_up(browser, log_of(globex))


def test_a_fragment_does_not_use_it_up(admin: FlaskClient, acme: str) -> None:
    admin.get(f"/tenants/{acme}/mail-server?provider=gmail", headers={"HX-Request": "true"})
    assert pops_up(admin, log_of(acme))


def test_it_stays_away_while_a_server_is_usable(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        settings.save(None, entered(2525))
        settings.share(True)
    assert not pops_up(admin, "/")
    with app.app_context():
        settings.share(False)
    assert pops_up(admin, "/")


def test_settings_leads_to_the_form_and_ok_back_to_work(admin: FlaskClient, acme: str) -> None:
    action = f"/tenants/{acme}/mail-server/reminder"
    assert post(admin, log_of(acme), action, settings="y").location == f"/tenants/{acme}/mail-server"
    assert post(admin, log_of(acme), action, ok="y").location == log_of(acme)
    assert pops_up(admin, "/")


def test_with_htmx_ok_closes_it_where_it_is(admin: FlaskClient, acme: str) -> None:
    answer = post(admin, log_of(acme), f"/tenants/{acme}/mail-server/reminder", htmx=True, ok="y")
    assert (answer.status_code, answer.get_data()) == (200, b"")


def test_never_again_is_kept_for_the_account_and_the_tenant(sign_in: SignIn, acme: str, globex: str) -> None:
    sign_in("admin@acme.example", administers=globex)
    browser = sign_in("admin@acme.example", administers=acme)
    for _ in range(2):
        post(browser, log_of(acme), f"/tenants/{acme}/mail-server/reminder", never="y", ok="y")
    assert not pops_up(browser, f"/tenants/{acme}/")
    assert pops_up(browser, f"/tenants/{globex}/")
    assert pops_up(sign_in("colleague@acme.example", administers=acme), f"/tenants/{acme}/")


def test_a_stranger_cannot_close_it(sign_in: SignIn, acme: str, globex: str) -> None:
    browser = sign_in("admin@globex.example", administers=globex)
    answer = post(browser, log_of(globex), f"/tenants/{acme}/mail-server/reminder", never="y")
    assert answer.status_code == 404
