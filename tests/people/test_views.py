"""The pages of people: lists, invitations from sending to accepting, roles, and what is done to an account."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts.models import ADMINISTRATOR, SYSTEM_ADMINISTRATOR, VIEWER
from tests.authenticator import set_up
from tests.conftest import SignIn, signed_in
from tests.mail_servers.test_account_email import use_server, wait_for
from tests.pages import PASSWORD, csrf_token, post
from tests.people.example_people import NEW, accept, account_with, invite, role_of, texts, within
from tests.smtp_peer import SmtpPeer

ADMIN, BOB = "admin@acme.example", "bob@acme.example"
PEOPLE = "/tenants/acme.example/people"


def id_of(app: Flask, email: str) -> int:
    return within(app, lambda: account_with(email).id)


def test_an_invited_person_gets_an_email_chooses_a_password_and_is_signed_in(
    app: Flask, admin: FlaskClient, acme: str
) -> None:
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        assert post(admin, f"{PEOPLE}/invite", email="Bob@Acme.Example", role=VIEWER).location == PEOPLE
        wait_for(lambda: peer.messages)
        text = texts(peer)[BOB]
    assert f"{ADMIN} invites you to view the overview and the delivery log of Acme" in text
    assert "7 days" in text
    link = re.search(r"http://portal\.test(/invitations/\S+)", text)
    assert link
    listed = admin.get(PEOPLE, follow_redirects=True).text
    assert "has been invited" in listed
    assert "Viewer · invited by admin@acme.example" in listed
    browser = app.test_client()
    assert accept(browser, link[1], **NEW) == (303, f"/tenants/{acme}/")
    page = browser.get(f"/tenants/{acme}/overview")
    assert page.status_code == 200
    listed = admin.get(PEOPLE).text
    assert "Bob Smith" in listed
    assert "Never" not in listed
    assert "Open invitations" not in listed
    assert role_of(app, BOB, acme) == VIEWER
    assert post(app.test_client(), "/sign-in", email=BOB, password=NEW["password"]).status_code == 302


def test_an_account_accepts_signed_in_or_with_the_link(
    app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str
) -> None:
    bob = sign_in(BOB)
    link = invite(app, acme, BOB, ADMINISTRATOR, ADMIN)
    assert role_of(app, BOB, acme) is None
    page = bob.get("/account").text
    assert "admin@acme.example invites you to Acme." in page
    action = re.search(r'action="(/account/invitations/\d+/accept)"', page)
    assert action
    assert post(bob, "/account", action[1]).location == f"/tenants/{acme}/"
    assert role_of(app, BOB, acme) == ADMINISTRATOR
    assert app.test_client().get(link).status_code == 404, "the link is used up"
    sign_in("carol@acme.example")
    link = invite(app, acme, "carol@acme.example", VIEWER, ADMIN)
    assert accept(app.test_client(), link)[0] == 303, "the password stays, so the page asks for none"
    assert role_of(app, "carol@acme.example", acme) == VIEWER
    signed_in(app, "carol@acme.example")


def test_an_invitation_is_sent_again_or_withdrawn(app: Flask, admin: FlaskClient, acme: str) -> None:
    old = invite(app, acme, BOB, VIEWER, ADMIN)
    resend, withdraw = re.findall(rf'action="({PEOPLE}/invitations/\d+/\w+)"', admin.get(PEOPLE).text)
    assert post(admin, PEOPLE, resend).location == PEOPLE
    assert app.test_client().get(old).status_code == 404
    assert admin.get(PEOPLE).text.count(withdraw) == 1
    assert post(admin, PEOPLE, withdraw).location == PEOPLE
    assert "Open invitations" not in admin.get(PEOPLE).text
    assert post(admin, PEOPLE, withdraw).status_code == 404


def test_without_a_mail_server_only_a_system_administrator_sees_the_link(
    app: Flask, admin: FlaskClient, system: FlaskClient, acme: str
) -> None:
    answer = post(admin, f"{PEOPLE}/invite", email=BOB, role=VIEWER)
    assert "no email could be sent" in admin.get(answer.location or "").text
    assert "/invitations/" not in re.sub(rf"{PEOPLE}/invitations/", "", admin.get(PEOPLE).text)
    answer = post(system, "/system/people/invite", email="second@pbx.example")
    link = re.search(r"http://portal\.test(/invitations/[\w-]+)", answer.text)
    assert link
    assert answer.headers["Cache-Control"] == "no-store"
    assert link[1] not in system.get("/system/people").text
    assert accept(app.test_client(), link[1], **NEW) == (303, "/")
    assert signed_in_as_system(app, "second@pbx.example")


def signed_in_as_system(app: Flask, email: str) -> bool:
    return within(app, lambda: account_with(email).is_system_administrator)


def test_a_role_is_changed_and_access_is_taken_away(app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str) -> None:
    bob = sign_in(BOB, administers=acme)
    page = f"{PEOPLE}/{id_of(app, BOB)}"
    assert post(admin, page, f"{page}/role", role=VIEWER).location == page
    assert bob.get(f"/tenants/{acme}/keys").status_code == 404
    assert post(admin, page, f"{page}/role", role="owner").status_code == 422
    assert role_of(app, BOB, acme) == VIEWER
    assert post(admin, page, f"{page}/remove").location == PEOPLE
    assert bob.get(f"/tenants/{acme}/overview").status_code == 404
    trail = admin.get(f"/tenants/{acme}/audit").text
    for text in ("changed the role of", "removed", "Administrator"):
        assert text in trail


def test_a_colleague_is_deactivated_and_reactivated(app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str) -> None:
    bob = sign_in(BOB, administers=acme)
    page = f"{PEOPLE}/{id_of(app, BOB)}"
    assert post(admin, page, f"{page}/end-sessions").location == page
    assert bob.get("/account").status_code == 302
    assert post(admin, page, f"{page}/deactivate").location == page
    assert "Deactivated" in admin.get(PEOPLE).text
    assert post(app.test_client(), "/sign-in", email=BOB, password=PASSWORD).status_code == 200
    assert post(admin, page, f"{page}/reactivate").location == page
    signed_in(app, BOB)
    trail = admin.get(f"/tenants/{acme}/audit").text
    for text in ("ended all sessions of", "deactivated the account", "reactivated the account"):
        assert text in trail


def test_a_reset_second_factor_is_emailed_to_its_owner(
    app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str
) -> None:
    set_up(sign_in(BOB, administers=acme))
    page = f"{PEOPLE}/{id_of(app, BOB)}"
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        assert post(admin, page, f"{page}/reset-two-factor").location == page
        wait_for(lambda: "An administrator has just" in texts(peer).get(BOB, ""))
        text = texts(peer)[BOB]
    assert "An administrator has just turned off two-factor authentication" in text
    assert "http://portal.test/forgotten-password" in text
    signed_in(app, BOB)


def test_the_last_administrator_stays_unless_a_system_administrator_removes_them(
    app: Flask, admin: FlaskClient, system: FlaskClient, acme: str
) -> None:
    page = f"{PEOPLE}/{id_of(app, ADMIN)}"
    for action in ("remove", "role"):
        assert post(admin, page, f"{page}/{action}", role=VIEWER).location == page
        assert "last active administrator" in admin.get(page).text
    assert role_of(app, ADMIN, acme) == ADMINISTRATOR
    assert post(system, page, f"{page}/remove").location == PEOPLE
    assert role_of(app, ADMIN, acme) is None


def test_an_administrator_leaves(app: Flask, admin: FlaskClient, sign_in: SignIn, acme: str) -> None:
    sign_in(BOB, administers=acme)
    page = f"{PEOPLE}/{id_of(app, ADMIN)}"
    assert post(admin, page, f"{page}/remove").location == "/"
    assert admin.get(PEOPLE).status_code == 404


def test_a_system_administrator_manages_all_accounts(app: Flask, system: FlaskClient, admin: FlaskClient) -> None:
    listed = system.get("/system/people").text
    for text in (ADMIN, "root@pbx.example", "(you)", "System administrator", "Acme"):
        assert text in listed
    found = system.get("/system/people?q=ACME", headers={"HX-Request": "true"}).text
    assert ADMIN in found
    assert "root@pbx.example" not in found.replace("root@pbx.example</", "")
    page = f"/system/people/{id_of(app, ADMIN)}"
    assert post(system, page, f"{page}/make-system-administrator").location == page
    assert signed_in_as_system(app, ADMIN)
    assert post(system, page, f"{page}/remove-system-administrator").location == page
    assert not signed_in_as_system(app, ADMIN)
    assert post(system, page, f"{page}/unlock").location == page
    own = f"/system/people/{id_of(app, 'root@pbx.example')}"
    post(system, own, f"{own}/remove-system-administrator")
    assert "last active system administrator" in system.get(own).text
    assert signed_in_as_system(app, "root@pbx.example")


def test_the_last_sign_in_is_shown(app: Flask, admin: FlaskClient) -> None:
    assert within(app, lambda: account_with(ADMIN).last_sign_in_at) is not None
    assert "Never" not in admin.get(PEOPLE).text


# An ideographic and a small full stop, a heart, a decomposed accent, and what is not seen.
DISGUISED = (
    "evil\uff61example",
    "evil\ufe52example",
    "i\u2764.example",
    "cafe\u0301.example",
    "evil.\u2060example",
    "http\uff1aevil",
    "\u200b",
)


def test_a_name_is_saved_and_cannot_be_a_link(app: Flask, admin: FlaskClient) -> None:
    assert post(admin, "/account/name", name="Ann Müller-O'Neil Jr.").location == "/account"
    assert within(app, lambda: account_with(ADMIN).name) == "Ann Müller-O'Neil Jr."
    for name in (
        "evil.example",
        "Pay at https://evil",
        "a@b",
        "",
        "x" * 101,
        "evil。example",
        "\u202eelpmaxe",
        *DISGUISED,
    ):
        assert post(admin, "/account/name", name=name).status_code == 422


@pytest.mark.parametrize("email", ["", "nonsense", ADMIN])
def test_a_wrong_address_is_marked(admin: FlaskClient, email: str) -> None:
    answer = post(admin, f"{PEOPLE}/invite", email=email, role=VIEWER)
    assert answer.status_code == 422
    assert 'id="email-error"' in answer.text


def test_a_link_of_another_account_says_so(app: Flask, admin: FlaskClient, acme: str) -> None:
    link = invite(app, acme, BOB, VIEWER, ADMIN)
    page = admin.get(link)
    assert "You are signed in as admin@acme.example" in page.text
    token = csrf_token(page.text)
    assert admin.post(link, data={"csrf_token": token, **NEW}).status_code == 200
    assert role_of(app, BOB, acme) is None


def test_an_invitation_in_the_language_of_the_tenant(app: Flask, admin: FlaskClient, acme: str) -> None:
    post(admin, f"/tenants/{acme}/appearance", language="de", sender_name="", email_footer="", brand_color="#336699")
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        post(admin, f"{PEOPLE}/invite", email=BOB, role=SYSTEM_ADMINISTRATOR)
        post(admin, f"{PEOPLE}/invite", email=BOB, role=ADMINISTRATOR)
        wait_for(lambda: peer.messages)
        assert "gilt 7 Tage" in texts(peer)[BOB]
