"""Attacks on people: taking over accounts of others, misusing invitations, and doing more than a viewer may."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import rate_limits
from portal.accounts import service as account_service
from portal.accounts.models import ADMINISTRATOR, VIEWER, Account
from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications import recipients, settings
from portal.people import invitations, members
from tests.concurrency import blocked_until_done
from tests.conftest import SignIn, make_account, signed_in
from tests.mail_servers.test_account_email import use_server, wait_for
from tests.pages import HTMX, PASSWORD, csrf_token, post
from tests.people.example_people import NEW, accept, account_with, invite, role_of, tenant_with, texts, within
from tests.security.test_routes import address
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

ADMIN, BOB, EVE = "admin@acme.example", "bob@acme.example", "eve@globex.example"
ROOT = "root@pbx.example"
PEOPLE = "/tenants/acme.example/people"
CONTROLS = ("deactivate", "reactivate", "end-sessions", "reset-two-factor")


@pytest.fixture
def eve(sign_in: SignIn, globex: str) -> FlaskClient:
    """The browser of Globex's administrator."""
    return sign_in(EVE, administers=globex)


def id_of(app: Flask, email: str) -> int:
    return within(app, lambda: account_with(email).id)


def has_account(app: Flask, email: str) -> bool:
    return within(app, lambda: account_service.find(email) is not None)


class TestViewers:
    """A viewer sees the overview and the delivery log."""

    OPEN = frozenset(
        {
            "overview.of_tenant",
            "deliveries.log",
            "deliveries.csv",
            "deliveries.updates",
            "deliveries.event",
            "tenants.enter",
        }
    )

    @pytest.fixture
    def viewer(self, app: Flask, sign_in: SignIn, acme: str) -> FlaskClient:
        with app.app_context():
            account_service.add(BOB, PASSWORD, tenant_id=tenant_with(acme).id, role=VIEWER)
        return signed_in(app, BOB)

    @pytest.mark.slow
    def test_every_other_route_does_not_exist(self, app: Flask, viewer: FlaskClient, acme: str) -> None:
        token = csrf_token(viewer.get("/account").text)
        rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(("/tenants/<domain>", "/system"))]
        assert len(rules) > 60
        for rule in rules:
            for method in {"GET", "POST"} & (rule.methods or set()):
                for headers in ({}, HTMX):
                    path, data = address(rule.rule, acme), {"csrf_token": token}
                    answer = viewer.open(path, method=method, data=data, headers=headers)
                    expected = {404}
                    if method == "GET" and rule.endpoint in self.OPEN:
                        expected = {200, 204, 302, 400, 404} if rule.endpoint != "overview.of_tenant" else {200}
                    assert answer.status_code in expected, f"{method} {rule.rule}: {answer.status}"

    def test_every_link_and_form_of_the_open_pages_works(self, app: Flask, viewer: FlaskClient, acme: str) -> None:
        for path in (f"/tenants/{acme}/overview", f"/tenants/{acme}/deliveries", "/"):
            page = viewer.get(path, follow_redirects=True)
            assert page.status_code == 200
            for link in set(re.findall(r'href="(/[^"#]*)"', page.text.replace("/static/", "#"))):
                assert viewer.get(link.replace("&amp;", "&")).status_code in {200, 302}, f"{path}: {link}"
            actions = set(
                re.findall(r'method="post" action="([^"]+)"|formaction="([^"]+)"|hx-post="([^"]+)"', page.text)
            )
            assert actions <= {("/sign-out", "", "")}, path

    def test_an_event_page_has_no_action(self, app: Flask, viewer: FlaskClient, admin: FlaskClient, acme: str) -> None:
        with app.app_context():
            enter_scope(tenant_with(acme).id)
            recipients.replace(tenant_with(acme), [BOB])
            settings.set_enabled(tenant_with(acme), ["queue.call_lost"], on=True)
        post(admin, f"/tenants/{acme}/notifications", f"/tenants/{acme}/samples", event="queue.call_lost")
        listed = viewer.get(f"/tenants/{acme}/deliveries").text
        link = re.search(r'href="(/tenants/acme.example/deliveries/[0-9a-f-]{36})"', listed)
        assert link
        for browser, count in ((viewer, 0), (admin, 1)):
            page = browser.get(link[1])
            assert page.status_code == 200
            assert min(page.text.count("formaction="), 1) == count

    def test_a_viewer_elsewhere_is_no_administrator_here(self, app: Flask, viewer: FlaskClient, globex: str) -> None:
        with app.app_context():
            account_service.add(BOB, None, tenant_id=tenant_with(globex).id)
        assert viewer.get(f"/tenants/{globex}/keys").status_code == 200
        assert viewer.get("/tenants/acme.example/keys").status_code == 404


class TestOtherTenants:
    """What belongs to others too can only be removed from one's own tenant."""

    @pytest.mark.parametrize("owner", ["globex", "system"])
    def test_a_shared_account_is_not_taken_over(
        self, app: Flask, admin: FlaskClient, acme: str, globex: str, owner: str
    ) -> None:
        make_account(app, BOB, administers=acme)
        make_account(app, BOB, administers=globex if owner == "globex" else None, system=owner == "system")
        page = f"{PEOPLE}/{id_of(app, BOB)}"
        before = within(app, lambda: sql("SELECT active, password, totp_secret_encrypted FROM accounts ORDER BY id"))
        bob = signed_in(app, BOB)
        for action in CONTROLS:
            assert post(admin, page, f"{page}/{action}").location == page
            assert "Only a system administrator" in admin.get(page).text
        after = within(app, lambda: sql("SELECT active, password, totp_secret_encrypted FROM accounts ORDER BY id"))
        assert after == before
        assert bob.get("/account").status_code == 200
        assert post(admin, page, f"{page}/remove").location == PEOPLE
        assert role_of(app, BOB, acme) == (ADMINISTRATOR if owner == "system" else None)

    def test_an_account_that_joins_another_tenant_meanwhile_is_not_blocked(
        self, app: Flask, admin: FlaskClient, acme: str, globex: str
    ) -> None:
        make_account(app, BOB, administers=acme)

        def block() -> Refusal | None:
            tenant_id = tenant_with(acme).id
            return members.set_active(account_with(BOB), False, by=account_with(ADMIN), tenant_id=tenant_id)

        with app.app_context():
            account_service.lock_access()
            with blocked_until_done(app, block) as blocking:
                account_service.grant(account_with(BOB), VIEWER, tenant_with(globex).id)
                db.session.commit()
            assert blocking.result() is not None
            assert account_with(BOB).active

    def test_a_block_of_a_system_administrator_stays(
        self, app: Flask, admin: FlaskClient, system: FlaskClient, acme: str
    ) -> None:
        make_account(app, BOB, administers=acme)
        bob = id_of(app, BOB)
        post(system, f"/system/people/{bob}", f"/system/people/{bob}/deactivate")
        for action in ("deactivate", "reactivate"):
            post(admin, f"{PEOPLE}/{bob}", f"{PEOPLE}/{bob}/{action}")
        assert not within(app, lambda: account_with(BOB).active)
        post(system, f"/system/people/{bob}", f"/system/people/{bob}/reactivate")
        assert within(app, lambda: account_with(BOB).active)

    def test_people_of_another_tenant_do_not_exist(self, app: Flask, eve: FlaskClient, acme: str, globex: str) -> None:
        make_account(app, BOB, administers=acme)
        make_account(app, ADMIN, administers=acme)
        invite(app, acme, "new@acme.example", VIEWER, ADMIN)
        bob = id_of(app, BOB)
        token = csrf_token(eve.get("/account").text)
        for prefix in (PEOPLE, f"/tenants/{globex}/people", "/system/people"):
            for action in (*CONTROLS, "role", "remove", "unlock", "make-system-administrator"):
                answer = eve.post(f"{prefix}/{bob}/{action}", data={"csrf_token": token, "role": VIEWER})
                assert answer.status_code == 404, f"{prefix} {action}"
            for action in ("resend", "withdraw"):
                answer = eve.post(f"{prefix}/invitations/1/{action}", data={"csrf_token": token})
                assert answer.status_code == 404, f"{prefix} {action}"
        listed = eve.get(f"/tenants/{globex}/people").text
        assert "acme.example" not in listed

    def test_nobody_is_made_system_administrator_from_a_tenants_page(
        self, app: Flask, admin: FlaskClient, acme: str
    ) -> None:
        make_account(app, BOB, administers=acme)
        page = f"{PEOPLE}/{id_of(app, BOB)}"
        assert post(admin, page, f"{page}/make-system-administrator").status_code == 404
        assert post(admin, f"{PEOPLE}/invite", email="x@acme.example", role="system_administrator").status_code == 422

    def test_inviting_takes_over_nothing(self, app: Flask, admin: FlaskClient, eve: FlaskClient, globex: str) -> None:
        """The invited account keeps its password, its second factor and its tenant until it accepts, and after that."""
        link = invite(app, globex, ADMIN, VIEWER, EVE)
        assert ADMIN not in eve.get("/").text
        page = app.test_client().get(link).text
        assert 'name="password"' not in page
        token = csrf_token(page)
        stranger = app.test_client()
        stranger.get(link)
        with stranger.session_transaction() as session:
            assert "_user_id" not in session
        browser = app.test_client()
        token = csrf_token(browser.get(link).text)
        assert browser.post(link, data={"csrf_token": token, "password": "another good password"}).status_code == 303
        assert browser.get("/account").status_code == 302, "the link signs nobody in"
        signed_in(app, ADMIN)
        page = f"/tenants/{globex}/people/{id_of(app, ADMIN)}"
        assert "Only a system administrator" in eve.get(page).text


class TestLinks:
    """Links of invitations: each works once, for its address, for seven days, and opening it does nothing."""

    @pytest.fixture
    def link(self, app: Flask, admin: FlaskClient, acme: str) -> str:
        return invite(app, acme, BOB, ADMINISTRATOR, ADMIN)

    def test_opening_it_spends_nothing(self, app: Flask, link: str) -> None:
        for _ in range(3):
            assert app.test_client().get(link).status_code == 200
            assert app.test_client().head(link).status_code == 200
        assert accept(app.test_client(), link, **NEW)[0] == 303

    def test_it_works_once(self, app: Flask, link: str, acme: str) -> None:
        late = app.test_client()
        token = csrf_token(late.get(link).text)
        assert accept(app.test_client(), link, **NEW)[0] == 303
        data = {"csrf_token": token, "name": "Eve", "password": "a password of the thief"}
        assert late.post(link, data=data).status_code == 404
        signed_in_with(app, BOB, NEW["password"])
        with app.app_context():
            assert not members.remove(account_with(BOB), tenant_with(acme).id, by=None)
        assert accept(app.test_client(), link)[0] == 404
        assert role_of(app, BOB, acme) is None

    @pytest.mark.parametrize(
        "end",
        [
            "UPDATE invitations SET expires_at = now()",
            "DELETE FROM invitations",
            "UPDATE accounts SET active = false WHERE email LIKE 'bob%'",
        ],
    )
    def test_an_old_one_gives_nothing(self, app: Flask, link: str, acme: str, end: str) -> None:
        browser = app.test_client()
        token = csrf_token(browser.get(link).text)
        within(app, lambda: sql(end))
        assert browser.post(link, data={"csrf_token": token, **NEW}).status_code in {404, 422}
        assert role_of(app, BOB, acme) is None
        assert within(app, lambda: account_with(BOB).password) is None

    def test_an_account_that_is_deleted_meanwhile_gets_nothing(
        self, app: Flask, link: str, acme: str, admin: FlaskClient
    ) -> None:
        def begin() -> object:
            found = invitations.find_by_token(link.rpartition("/")[2])
            assert found is not None
            assert account_with(BOB).password is None  # as the view has loaded it
            return invitations.accept_with_password(found, NEW["name"], NEW["password"])

        with app.app_context():
            account_service.lock_access()
            with blocked_until_done(app, begin) as beginning:
                enter_scope(tenant_with(acme).id)
                invitations.withdraw(invitations.list_open(tenant_with(acme))[0])
            assert isinstance(beginning.result(), Refusal)
        assert not has_account(app, BOB)

    @pytest.mark.parametrize("domain", ["acme.example", None], ids=["tenant", "system"])
    def test_one_from_before_is_no_way_back(
        self, app: Flask, link: str, acme: str, system: FlaskClient, domain: str | None
    ) -> None:
        """The operator gives the role meanwhile, and someone takes it away."""
        if domain is None:
            link = invite(app, None, BOB, "system_administrator", ROOT)
        with app.app_context():
            account_service.add(BOB, PASSWORD, system_administrator=domain is None, tenant_id=tenant_with(acme).id)
            if domain:
                assert members.remove(account_with(BOB), tenant_with(acme).id, by=None) is None
            else:
                assert members.set_system_administrator(account_with(BOB), False, by=None) is None
        assert accept(app.test_client(), link)[0] == 404

    def test_those_of_a_removed_administrator_end(self, app: Flask, admin: FlaskClient, link: str, acme: str) -> None:
        make_account(app, "second@acme.example", administers=acme)
        with app.app_context():
            refusal = members.remove(account_with(ADMIN), tenant_with(acme).id, by=account_with("second@acme.example"))
            assert refusal is None
        assert app.test_client().get(link).status_code == 404

    def test_a_post_needs_a_token_and_a_good_password(self, app: Flask, link: str) -> None:
        assert app.test_client().post(link, data=NEW).status_code == 400
        for password in ("short", "password123", "bob@acme.example"):
            assert accept(app.test_client(), link, name="Bob", password=password)[0] == 422
        assert accept(app.test_client(), link, name="https://evil.example", password=NEW["password"])[0] == 422

    def test_tokens_are_stored_as_hashes(self, app: Flask, link: str) -> None:
        token = link.rpartition("/")[2]
        dump = str(within(app, lambda: sql("SELECT *, encode(token_hash, 'escape') FROM invitations")))
        assert token not in dump
        assert token not in str(within(app, lambda: sql("SELECT * FROM audit_entries")))

    def test_an_invited_account_gets_no_link_for_a_new_password(self, app: Flask, link: str) -> None:
        with SmtpPeer() as peer:
            use_server(app, peer.port)
            assert post(app.test_client(), "/forgotten-password", email=BOB).status_code in {200, 302}
            assert post(app.test_client(), "/sign-in", email=BOB, password="").status_code == 200
            make_account(app, "carol@acme.example")
            post(app.test_client(), "/forgotten-password", email="carol@acme.example")
            wait_for(lambda: "carol@acme.example" in texts(peer))
            assert "/forgotten-password" not in texts(peer).get(BOB, "")

    def test_the_link_has_the_host_of_the_portal(self, app: Flask, admin: FlaskClient) -> None:
        token = csrf_token(admin.get(f"{PEOPLE}/invite").text)
        data = {"csrf_token": token, "email": "carol@acme.example", "role": VIEWER}
        with SmtpPeer() as peer:
            use_server(app, peer.port)
            assert admin.post(f"{PEOPLE}/invite", data=data, headers={"Host": "evil.example"}).status_code == 400
            admin.post(f"{PEOPLE}/invite", data=data, headers={"X-Forwarded-Host": "evil.example"})
            wait_for(lambda: peer.messages)
            text = texts(peer)["carol@acme.example"]
        assert "evil" not in text
        assert "http://portal.test/invitations/" in text


def signed_in_with(app: Flask, email: str, password: str) -> None:
    assert post(app.test_client(), "/sign-in", email=email, password=password).status_code == 302


class TestDisclosure:
    """Inviting reveals nothing about other tenants, and cannot flood a mailbox."""

    def test_addresses_with_and_without_an_account_look_the_same(
        self, app: Flask, admin: FlaskClient, globex: str
    ) -> None:
        known, unknown = EVE, "eva@globex.example"
        make_account(app, known, administers=globex)
        shown = []
        for email in (known, unknown):
            answer = post(admin, f"{PEOPLE}/invite", email=email, role=VIEWER)
            page = admin.get(PEOPLE).text
            again = post(admin, f"{PEOPLE}/invite", email=email, role=VIEWER)
            withdraw = re.findall(rf'action="({PEOPLE}/invitations/\d+/withdraw)"', page)[0]
            gone = post(admin, PEOPLE, withdraw)
            trail = admin.get("/tenants/acme.example/audit?action=invitation.sent").text.count(email)
            listed = page.rpartition("Open invitations")[2].replace(email, "EMAIL")
            shape = re.sub(r"\d+|[\w-]{30,}|\.[\w-]+", "", listed)
            shown.append((answer.status_code, again.status_code, gone.status_code, trail, shape))
            admin.get(PEOPLE)
        assert shown[0] == shown[1]
        assert has_account(app, known)
        assert not has_account(app, unknown), "an account that nobody uses is deleted with its last invitation"

    def test_withdrawing_leaves_an_account_that_others_invite_too(
        self, app: Flask, admin: FlaskClient, eve: FlaskClient, acme: str, globex: str
    ) -> None:
        ours = invite(app, acme, BOB, VIEWER, ADMIN)
        theirs = invite(app, globex, BOB, VIEWER, EVE)
        withdraw = re.findall(r'action="([^"]+/withdraw)"', eve.get(f"/tenants/{globex}/people").text)[0]
        post(eve, f"/tenants/{globex}/people", withdraw)
        assert app.test_client().get(theirs).status_code == 404
        assert accept(app.test_client(), ours, **NEW)[0] == 303

    def test_inviting_again_does_not_unblock(self, app: Flask, admin: FlaskClient, acme: str) -> None:
        invite(app, acme, BOB, VIEWER, ADMIN)
        with app.app_context():
            assert members.set_active(account_with(BOB), False, by=None) is None
        post(admin, PEOPLE, re.findall(r'action="([^"]+/withdraw)"', admin.get(PEOPLE).text)[0])
        link = invite(app, acme, BOB, VIEWER, ADMIN)
        assert accept(app.test_client(), link, **NEW)[0] == 422
        assert role_of(app, BOB, acme) is None

    def test_a_mailbox_is_not_flooded(self, app: Flask, admin: FlaskClient, eve: FlaskClient, globex: str) -> None:
        """Nor does a tenant that tries it keep others from inviting."""
        answers = [post(admin, f"{PEOPLE}/invite", email=BOB, role=VIEWER).status_code for _ in range(8)]
        assert answers == [303] * 3 + [422] * 5
        answers = [post(eve, f"/tenants/{globex}/people/invite", email=BOB, role=VIEWER).status_code for _ in range(4)]
        assert answers == [303] * 3 + [422]
        with app.app_context():
            for _ in range(10 - 6):
                assert not rate_limits.count(invitations.SENT_TO_AN_ADDRESS, account=BOB)
            assert rate_limits.count(invitations.SENT_TO_AN_ADDRESS, account=BOB)
        assert post(eve, f"/tenants/{globex}/people/invite", email="x@acme.example", role=VIEWER).status_code == 303

    @pytest.mark.slow
    def test_neither_are_many_mailboxes(self, app: Flask, admin: FlaskClient, acme: str) -> None:
        def send(number: int) -> bool:
            sent = invitations.invite(tenant_with(acme), f"a{number}@x.example", VIEWER, by=account_with(ADMIN))
            return not isinstance(sent, Refusal)

        with app.app_context():
            enter_scope(tenant_with(acme).id)
            assert sum(send(number) for number in range(25)) == 20


class TestLastSystemAdministrator:
    """The system always has an administrator."""

    def test_two_requests_at_once_leave_one(self, app: Flask, system: FlaskClient) -> None:
        make_account(app, "second@pbx.example", system=True)

        def demote(email: str) -> Refusal | None:
            return members.set_system_administrator(account_with(email), False, by=None)

        with app.app_context():
            account_service.lock_access()
            with blocked_until_done(app, lambda: demote("second@pbx.example")) as other:
                assert demote(ROOT) is None
            assert other.result() is not None
            assert account_with("second@pbx.example").is_system_administrator

    @pytest.mark.parametrize("action", ["deactivate", "remove-system-administrator"])
    def test_whoever_asks(self, app: Flask, system: FlaskClient, action: str) -> None:
        page = f"/system/people/{id_of(app, ROOT)}"
        assert post(system, page, f"{page}/{action}").location == page
        with app.app_context():
            account: Account = account_with(ROOT)
            assert (account.active, account.is_system_administrator) == (True, True)

    def test_a_deactivated_one_does_not_count(self, app: Flask, system: FlaskClient) -> None:
        make_account(app, "second@pbx.example", system=True)
        with app.app_context():
            assert members.set_active(account_with("second@pbx.example"), False, by=None) is None
            assert members.set_system_administrator(account_with(ROOT), False, by=None) is not None
            assert members.set_active(account_with(ROOT), False, by=None) is not None

    def test_an_account_that_nobody_has_used_does_not_count(self, app: Flask, system: FlaskClient) -> None:
        invite(app, None, BOB, "system_administrator", ROOT)
        with app.app_context():
            assert members.set_system_administrator(account_with(BOB), True, by=None) is None
            assert members.set_system_administrator(account_with(ROOT), False, by=None) is not None
            assert members.set_active(account_with(ROOT), False, by=None) is not None

    @pytest.mark.parametrize("action", ["remove", "deactivate"])
    def test_two_administrators_of_a_tenant_cannot_end_each_other(
        self, app: Flask, admin: FlaskClient, acme: str, action: str
    ) -> None:
        make_account(app, BOB, administers=acme)

        def act(email: str, by: str) -> Refusal | None:
            account, author, tenant_id = account_with(email), account_with(by), tenant_with(acme).id
            if action == "remove":
                return members.remove(account, tenant_id, by=author)
            return members.set_active(account, False, by=author, tenant_id=tenant_id)

        with app.app_context():
            account_service.lock_access()
            with blocked_until_done(app, lambda: act(ADMIN, BOB)) as other:
                assert act(BOB, ADMIN) is None
            assert other.result() is not None
            assert account_with(ADMIN).active
        assert role_of(app, ADMIN, acme) == ADMINISTRATOR


def test_posts_without_a_token_change_nothing(app: Flask, admin: FlaskClient, acme: str) -> None:
    make_account(app, BOB, administers=acme)
    page = f"{PEOPLE}/{id_of(app, BOB)}"
    for path in (f"{PEOPLE}/invite", *(f"{page}/{action}" for action in (*CONTROLS, "role", "remove"))):
        assert admin.post(path, data={"email": "x@acme.example", "role": VIEWER}).status_code == 400
    assert role_of(app, BOB, acme) == ADMINISTRATOR
    assert not has_account(app, "x@acme.example")
