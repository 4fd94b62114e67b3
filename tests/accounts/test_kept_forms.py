"""A form survives the end of its session: it is kept, and saved after signing in again as the same account."""

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, select, update
from werkzeug.routing import IntegerConverter, UUIDConverter
from werkzeug.test import TestResponse

from portal.accounts import kept_forms
from portal.accounts.access import is_public
from portal.accounts.models import Account, AccountSession, KeptForm
from portal.database.scope import enter_scope
from portal.extensions import db
from portal.notifications import recipients
from portal.tenants import service as tenant_service
from tests.authenticator import set_up
from tests.conftest import SignIn
from tests.pages import HTMX, PASSWORD, csrf_token, post, read_form

EMAIL = "admin@acme.example"
PAGE = "/tenants/acme.example/mail-server"
TYPED = {"recipients": "a@acme.example,\nb@acme.example", "reply_to": 'quote"<&>'}
KEPT = r"/account/kept-forms/\d+"


def end_session(app: Flask, browser: FlaskClient) -> None:
    """The row is gone: it expired, or another browser ended it."""
    with app.app_context():
        db.session.execute(delete(AccountSession))
        db.session.commit()


def lose_cookie(_app: Flask, browser: FlaskClient) -> None:
    browser.delete_cookie("session")


def sign_out(_app: Flask, browser: FlaskClient) -> None:
    """In another tab."""
    post(browser, PAGE, "/sign-out")


ENDS = [end_session, lose_cookie, sign_out]


def sign_in_again(browser: FlaskClient, answer: TestResponse, email: str = EMAIL) -> TestResponse:
    """Follow the redirect to the sign-in page, and sign in."""
    location = answer.headers.get("HX-Redirect") or answer.location
    page = browser.get(location).text
    assert "You were signed out. Sign in again: your changes were kept." in page
    data = read_form(page.replace('<form method="post" action="/sign-in">', '<form id="it">'), "it")
    return browser.post("/sign-in", data=data | {"email": email, "password": PASSWORD})


def recipients_of_acme(app: Flask) -> list[str]:
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant
        enter_scope(tenant.id)
        return list(recipients.list_emails())


def save_kept(browser: FlaskClient, location: str) -> TestResponse:
    """Press Save on the page that shows the kept form, as a browser would."""
    html = browser.get(location).text
    assert "Your changes were kept" in html
    action = re.search(r'<form method="post" action="([^"]+)"', html)
    assert action
    values = read_form(html.replace('<form method="post"', '<form id="kept" method="post"'), "kept")
    return browser.post(action[1], data=values)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("htmx", [False, True])
def test_what_was_typed_is_saved_after_signing_in_again(
    app: Flask, admin: FlaskClient, end: Callable[[Flask, FlaskClient], None], htmx: bool
) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    end(app, admin)
    answer = admin.post(PAGE, data=form | TYPED | {"reply_to": "help@acme.example"}, headers=HTMX if htmx else None)
    assert answer.status_code == (204 if htmx else 303)
    assert recipients_of_acme(app) == []
    location = sign_in_again(admin, answer).location
    assert re.fullmatch(KEPT, location)
    assert recipients_of_acme(app) == [], "only once the person has confirmed it"
    assert save_kept(admin, location).location == PAGE
    assert recipients_of_acme(app) == ["a@acme.example", "b@acme.example"]


def test_an_invalid_form_is_shown_again_with_its_errors(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    end_session(app, admin)
    location = sign_in_again(admin, admin.post(PAGE, data=form | TYPED)).location
    answer = save_kept(admin, location)
    assert answer.status_code == 422
    assert "a@acme.example,\nb@acme.example" in answer.text.replace("\r\n", "\n")


def test_it_survives_a_second_factor(app: Flask, admin: FlaskClient) -> None:
    phone, _ = set_up(admin)
    form = read_form(admin.get(PAGE).text, "mail-server")
    end_session(app, admin)
    answer = sign_in_again(admin, admin.post(PAGE, data=form | TYPED))
    assert answer.location.startswith("/sign-in/code")
    assert re.fullmatch(KEPT, post(admin, answer.location, code=phone.code()).location)


def test_a_page_of_an_earlier_session_of_the_same_account_is_shown_again(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    sign_out(app, admin)
    post(admin, "/sign-in", email=EMAIL, password=PASSWORD)
    answer = admin.post(PAGE, data=form | {"recipients": "a@acme.example"})
    assert re.fullmatch(KEPT, answer.location)
    assert save_kept(admin, answer.location).location == PAGE
    assert recipients_of_acme(app) == ["a@acme.example"]


def test_another_account_does_not_get_it(app: Flask, admin: FlaskClient, sign_in: SignIn) -> None:
    stranger = sign_in("root@pbx.example", system=True)
    form = read_form(admin.get(PAGE).text, "mail-server")
    lose_cookie(app, admin)
    answer = admin.post(PAGE, data=form | TYPED)
    location = sign_in_again(admin, answer, "root@pbx.example").location
    for browser in (admin, stranger):
        shown = browser.get(location)
        assert shown.location == "/"
        assert "no longer kept, or belong to another account" in browser.get("/system/overview").text


def test_a_form_of_another_account_is_rejected(app: Flask, admin: FlaskClient, system: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    assert system.post(PAGE, data=form | TYPED).status_code == 400
    with app.app_context():
        assert db.session.query(KeptForm).count() == 0


@pytest.mark.parametrize("token", ["", "nonsense", "IjEtYWJjIg.aSl.forged"])
def test_without_a_token_of_the_portal_nothing_is_kept(app: Flask, client: FlaskClient, acme: str, token: str) -> None:
    assert client.post(PAGE, data=TYPED | {"csrf_token": token}).status_code == 400
    page = client.get("/sign-in").text
    assert client.post(PAGE, data=TYPED | {"csrf_token": csrf_token(page)}).location.startswith("/sign-in")
    with app.app_context():
        assert db.session.query(KeptForm).count() == 0


def test_passwords_are_not_kept_and_the_rest_is_encrypted(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    end_session(app, admin)
    admin.post(PAGE, data=form | TYPED | {"password": "never to be stored"})
    with app.app_context():
        row = db.session.query(KeptForm).one()
        assert b"acme" not in row.values_encrypted
        found = kept_forms.find(db.session.get_one(Account, row.account_id), row.id)
    assert found
    assert "never to be stored" not in str(found[1])
    assert ["recipients", TYPED["recipients"]] in found[1]


def test_they_are_few_and_end_after_a_day(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    end_session(app, admin)
    answers = [admin.post(PAGE, data=form | TYPED) for _ in range(kept_forms.MAX_KEPT_FORMS + 2)]
    with app.app_context():
        assert db.session.query(KeptForm).count() == kept_forms.MAX_KEPT_FORMS
        db.session.execute(update(KeptForm).values(created_at=KeptForm.created_at - timedelta(days=1)))
        db.session.commit()
    location = sign_in_again(admin, answers[-1]).location
    assert admin.get(location).location == "/"
    with app.app_context():
        kept_forms.delete_expired()
        assert db.session.query(KeptForm).count() == 0


def test_signing_out_and_passwords_are_no_forms_to_keep(app: Flask, admin: FlaskClient) -> None:
    token = csrf_token(admin.get(PAGE).text)
    end_session(app, admin)
    for path in ("/sign-out", "/account/password"):
        answer = admin.post(path, data={"csrf_token": token, "password": PASSWORD, "new_password": "x"})
        assert "kept-forms" not in (answer.location or "")


# Each endpoint that a form is sent to, and where the kept form is sent. Previews and test emails carry the whole form
# of their page: "Save" saves it.
SAVED_BY = {
    **{
        endpoint: endpoint
        for endpoint in (
            *(
                "account.change_name",
                "alerts.choose_kinds",
                "alerts.watch_silence",
                "account.choose_language",
                "alerts.choose_kinds",
                "alerts.watch_silence",
                "people.invite",
                "api_keys.issue_key",
                "branding.edit",
                "connect.issue_key",
                "mail_servers.edit",
            ),
            *("mail_templates.edit", "notifications.save_storm_limits", "notifications.set_audience"),
            *("notifications.set_enabled", "recipients.add", "recipients.choose_events", "recipients.pause"),
            "recipients.edit_recipient",
            *("system_api_keys.issue_key", "system_mail_server.edit", "system_sign_in.require_two_factor"),
            *("tenants.edit", "tenants.new", "oauth.show", "system_oauth.show"),
        )
    },
    **dict.fromkeys(("mail_templates.preview", "mail_templates.html", "mail_templates.sample"), "mail_templates.edit"),
    "branding.preview": "branding.edit",
    "mail_servers.test": "mail_servers.edit",
    "system_mail_server.test": "system_mail_server.edit",
}
ACTIONS = {  # "Save" is not what their buttons say
    *("account.cancel_email_change", "account.change_email", "people.accept_own", "people.act", "people.remove"),
    *("people.resend", "people.set_role", "people.withdraw"),
    *("account.discard_kept_form", "account.end_other_sessions", "account.end_session"),
    *("account.renew_recovery_codes", "account.set_up_two_factor", "account.turn_two_factor_off"),
    *("api_keys.renew_secret", "api_keys.revoke_key", "api_keys.rotate_key"),
    *("deliveries.discard", "deliveries.send_again", "deliveries.send_now", "deliveries.send_sample"),
    *("mail_servers.close_reminder", "mail_servers.try_now", "mail_servers.use_shared"),
    *("mail_templates.restore", "mail_templates.use", "overview.try_now", "overview.try_system_now"),
    *("oauth.disconnect", "system_oauth.disconnect"),
    *("notifications.set_all_enabled", "recipients.choose_event_for_all"),
    *("recipients.remove", "recipients.resume", "system_api_keys.renew_secret", "system_api_keys.revoke_key"),
    *("system_mail_server.share", "system_mail_server.stop_sharing"),
    *("system_api_keys.rotate_key", "system_mail_server.try_now", "tenants.resume", "tenants.suspend"),
    *("transfer.confirm", "transfer.delete", "transfer.export", "transfer.new_import"),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", [end_session, lose_cookie])
def test_forms_are_kept_as_what_save_does_and_actions_are_not(
    app: Flask, admin: FlaskClient, end: Callable[[Flask, FlaskClient], None], subtests: pytest.Subtests
) -> None:
    token = csrf_token(admin.get(PAGE).text)
    end(app, admin)
    adapter, seen = app.url_map.bind("localhost"), set()
    for rule in app.url_map.iter_rules():
        if "POST" not in (rule.methods or ()) or is_public(app, rule.endpoint) or rule.endpoint.startswith("security."):
            continue
        values: dict[str, object] = dict.fromkeys(rule.arguments, "acme.example")
        for name, kind in rule._converters.items():
            if isinstance(kind, IntegerConverter):
                values[name] = 1
            if isinstance(kind, UUIDConverter):
                values[name] = UUID(int=1)
        path = adapter.build(rule.endpoint, values, method="POST")
        seen.add(rule.endpoint)
        with subtests.test(path):
            answer = admin.post(path, data={"csrf_token": token, "typed": "something"})
            assert answer.status_code == 303
            saved_by = SAVED_BY.get(rule.endpoint)
            if saved_by is None:
                assert answer.location == "/sign-in"
                assert "nothing was changed" in admin.get("/sign-in").text
                continue
            assert "kept-forms" in answer.location
            with app.app_context():
                kept = db.session.scalars(select(KeptForm.path).order_by(KeptForm.id.desc())).first()
            assert kept == adapter.build(saved_by, values, method="POST")
    assert seen == SAVED_BY.keys() | ACTIONS


def test_an_action_in_a_fragment_loads_its_page_anew(app: Flask, admin: FlaskClient) -> None:
    token = csrf_token(admin.get(PAGE).text)
    lose_cookie(app, admin)
    answer = admin.post("/tenants/acme.example/deliveries/discard", data={"csrf_token": token}, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Refresh"]) == (401, "true")


def test_what_was_typed_in_the_template_editor_is_saved(app: Flask, admin: FlaskClient) -> None:
    """The session ends while someone types: it is the automatic preview that finds out."""
    editor = "/tenants/acme.example/templates/queue.call_lost"
    form = read_form(admin.get(editor).text, "template")
    end_session(app, admin)
    typed = {"subject": "%%CALLER_NUMBER%%", "body": "Typed for an hour"}
    answer = admin.post(f"{editor}/preview", data=form | typed, headers=HTMX)
    assert save_kept(admin, sign_in_again(admin, answer).location).location == editor
    assert "Typed for an hour" in admin.get(editor).text


def test_what_was_typed_before_a_provider_is_suggested_is_saved(app: Flask, admin: FlaskClient) -> None:
    """The session ends while someone types: it is the suggestion that finds out."""
    html = admin.get(PAGE).text
    assert html.count('hx-params="not password"') == 2  # the whole form is sent, and so kept
    form = read_form(html, "mail-server")
    end_session(app, admin)
    answer = admin.post(f"{PAGE}?suggest=y", data=form | {"recipients": "typed@acme.example"}, headers=HTMX)
    assert save_kept(admin, sign_in_again(admin, answer).location).location == PAGE
    assert read_form(admin.get(PAGE).text, "mail-server")["recipients"] == "typed@acme.example"


def test_filling_in_a_provider_is_not_repeated(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    end_session(app, admin)
    answer = admin.post(f"{PAGE}?fill_in=y", data=form | {"recipients": "a@acme.example"})
    save_kept(admin, sign_in_again(admin, answer).location)
    page = admin.get(PAGE)
    assert "Your changes were kept" not in page.text


def test_it_is_the_first_page_until_it_is_saved_or_discarded(
    app: Flask, admin: FlaskClient, client: FlaskClient
) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server") | TYPED
    end_session(app, admin)
    first, second = (admin.post(PAGE, data=form | {"reply_to": each}) for each in ("bad", "help@acme.example"))
    assert first.location != second.location
    assert post(admin, "/sign-in", email=EMAIL, password=PASSWORD).location == "/"
    shown = admin.get("/").location
    assert re.fullmatch(KEPT, shown)
    assert "help@acme.example" in admin.get(shown).text, "the newest comes first"
    assert save_kept(admin, shown).location == PAGE
    older = admin.get("/").location
    assert re.fullmatch(KEPT, older)
    assert older != shown
    assert admin.get(shown).location == "/", "it was saved"
    assert post(admin, older, f"{older}/discard").location == "/"
    assert admin.get("/").location == "/tenants/acme.example/"
    assert recipients_of_acme(app) == ["a@acme.example", "b@acme.example"]


def test_it_is_kept_once_if_the_session_ends_again(app: Flask, admin: FlaskClient) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server") | TYPED
    end_session(app, admin)
    location = sign_in_again(admin, admin.post(PAGE, data=form)).location
    html = admin.get(location).text.replace('<form method="post"', '<form id="kept" method="post"')
    end_session(app, admin)
    again = admin.post(PAGE, data=read_form(html, "kept"))
    with app.app_context():
        assert db.session.query(KeptForm).count() == 1
    assert save_kept(admin, sign_in_again(admin, again).location).status_code == 422


@pytest.mark.parametrize("form_id", ["", "x", "9" * 30, "\x00"])
def test_any_id_of_a_kept_form_may_be_sent(admin: FlaskClient, form_id: str) -> None:
    form = read_form(admin.get(PAGE).text, "mail-server")
    assert admin.post(PAGE, data=form | {"recipients": "a@acme.example", "kept_form": form_id}).location == PAGE
