"""Planted secrets: whatever the portal does, none appears in a table, the log, a job, a page or a response."""

import asyncio
import base64
import logging
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import every_tenant
from portal.deliveries import lifecycle, worker
from portal.extensions import db
from portal.mail_servers.service import get_server
from portal.provisioning import linphone
from tests.conftest import TEST_KEY, TEST_SECRET, SignIn
from tests.mail_servers.test_account_email import wait_for
from tests.mail_servers.test_views import values
from tests.pages import PASSWORD, csrf_token
from tests.pages import post as fill_in
from tests.security import secret_canaries
from tests.security.secret_canaries import ACCOUNT, CHANGED, OWN_MAIL, PIN, SIP, SYSTEM_MAIL, USER
from tests.smtp_peer import Fault, Script, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

pytestmark = pytest.mark.slow

ADMIN = "admin@acme.example"
WELCOME = {
    "extension_number": "1001",
    "extension_password": SIP,
    "user_password": USER,
    "voicemail_pin": PIN,
    "email": "ana@acme.example",
    "sip_domain": "acme.example",
}
STATES = {"delivered", "deferred", "held", "expired"}


def texts(peer: SmtpPeer) -> str:
    """Return the text alternatives of all emails that the peer accepted or was offered."""
    found = []
    for conversation in peer.conversations:
        for mail in conversation.messages:
            body = message_from_bytes(mail.content, policy=policy.default).get_body(("plain",))
            found.append(body.get_content() if body else "")
    return "\n".join(found)


class Run:
    """A full run of all features. `said` is what people, PBXs and commands were answered on the way."""

    def __init__(self, app: Flask, post: Post, admin: FlaskClient, system: FlaskClient, domain: str) -> None:
        self.app, self.post, self.admin, self.system, self.domain = app, post, admin, system, domain
        self.said: list[str] = []
        self.secrets: list[str] = list(secret_canaries.NAMED)

    def say(self, answer: Any) -> str:
        """Note an answer and return its text."""
        text = answer.text if hasattr(answer, "text") else str(getattr(answer, "json", None) or answer.output)
        self.said.append(text)
        return text

    def settings(self, own: SmtpPeer, shared: SmtpPeer) -> None:
        """Both mail servers, in a browser and by a command, with test emails that succeed and fail."""
        page = f"/tenants/{self.domain}/mail-server"
        for browser, at, server, password in (
            (self.admin, page, own, OWN_MAIL),
            (self.system, "/system/mail-server", shared, SYSTEM_MAIL),
        ):
            entered = values(server.port, password=password)
            for action in (f"{at}/test", at, f"{at}/test"):
                self.say(fill_in(browser, at, action, **entered))
            self.say(fill_in(browser, at, f"{at}/test", **values(server.port, password="wrong one")))
            self.say(fill_in(browser, at, **values(70000, password=password)))
        with self.app.app_context():
            assert get_server(None) is not None

    def events(self, peer: SmtpPeer) -> None:
        """A welcome event in each of its states, and repeats of it."""
        said = {}
        for state, script in (
            ("delivered", {}),
            ("deferred", {"dot": "451 4.3.0 later"}),
            ("expired", {"dot": "451 4.3.0 later"}),
            ("held", {"mail": "550 5.7.1 no"}),
        ):
            peer.script = script
            for _ in range(2):
                self.say(answer := self.post("user.created", WELCOME, id=state))
                said[state] = answer.json["status"]
            if state == "expired":
                with self.app.app_context():
                    sql(
                        "UPDATE deliveries SET next_attempt_at = now(), expires_at = now() "
                        "FROM events WHERE events.id = deliveries.event_id AND events.external_id = 'expired'"
                    )
                    assert lifecycle.expire_deliveries() == 2
        assert said == {"delivered": "sent", "deferred": "deferred", "expired": "deferred", "held": "held"}
        self.say(self.post("user.created", WELCOME | {"voicemail_pin": PIN + "1"}, id="held"))
        self.say(self.post("user.created", WELCOME | {"extension_password": SIP * 300, "email": "no"}, id="repaired"))
        self.say(self.post("user.created", WELCOME | {"extension_number": None}, id="wrong"))
        peer.script = {}

    def storm(self) -> None:
        """More lost calls than a queue may have, and their digest."""
        for _ in range(12):
            self.say(self.post("queue.call_lost", CALL_LOST))
        with self.app.app_context():
            sql("UPDATE storms SET started_at = now() - interval '9 minutes', ends_at = now()")

    def softphones(self, peer: SmtpPeer) -> None:
        """One token is spent, the others are looked at."""
        tokens = re.findall(r"/provision/([\w-]{20,})", texts(peer))
        assert len(tokens) >= 2
        self.secrets += tokens
        stranger = self.app.test_client()
        for token in tokens:
            stranger.get(f"/provision/{token}")
        spent = stranger.get(f"/provision/{tokens[0]}", headers={linphone.REQUEST_HEADER: "1"})
        assert SIP not in spent.text
        self.secrets += re.findall(r'name="ha1"[^>]*>(\w{32,})<', spent.text)
        self.say(stranger.get(f"/provision/{tokens[0]}", headers={linphone.REQUEST_HEADER: "1"}))

    def passwords(self, sign_in: SignIn, shared: SmtpPeer) -> None:
        """A password is guessed, forgotten, reset and changed."""
        stranger = self.app.test_client()
        self.say(fill_in(stranger, "/sign-in", email=ADMIN, password=ACCOUNT))
        fill_in(stranger, "/forgotten-password", email=ADMIN)
        wait_for(lambda: "/forgotten-password/" in texts(shared))
        (token,) = re.findall(r"/forgotten-password/([\w.-]+)", texts(shared))
        self.secrets.append(token)
        assert (
            fill_in(stranger, f"/forgotten-password/{token}", password=ACCOUNT, password_confirm=ACCOUNT).status_code
            == 302
        )
        again = self.app.test_client()
        assert fill_in(again, "/sign-in", email=ADMIN, password=ACCOUNT).status_code == 302
        changed: dict[str, Any] = {"password": ACCOUNT, "new_password": CHANGED, "new_password_confirm": CHANGED}
        assert fill_in(again, "/account/password", **changed).status_code == 302
        self.admin = again

    def commands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The operator's commands."""
        monkeypatch.setenv("PORTAL_PASSWORD", ACCOUNT)
        monkeypatch.setenv("PORTAL_MAIL_PASSWORD", SYSTEM_MAIL)
        run = self.app.test_cli_runner().invoke
        self.secrets.append(run(args=["keys", "issue", "--system"]).output.strip())
        server = (
            "--system --host 192.0.2.1 --port 99999 --encryption none --auth auto --username me --sender a@b.example"
        )
        for line in (
            "accounts add other@acme.example --tenant acme.example",
            "accounts add other@acme.example --tenant acme.example",
            f"mail-server set {server}",
            "keys list",
            "keys revoke 2",
            "secrets rotate",
        ):
            self.say(run(args=line.split()))
        token = csrf_token(self.admin.get(f"/tenants/{self.domain}/keys").text)
        issued = self.admin.post(f"/tenants/{self.domain}/keys", data={"csrf_token": token}).text
        self.secrets += re.findall(r'id="new-key">(\S+)</code>', issued)

    def failures(self, peer: SmtpPeer) -> None:
        """A mail server that breaks off in the middle, and a database that refuses the event."""
        said = base64.b64encode(f"\0mailer\0{OWN_MAIL}".encode()).decode()
        scripts: tuple[Script, ...] = (
            {"dot": Fault.DROP},
            {"auth": Fault.GARBAGE},
            {"greeting": Fault.RESET},
            {"auth": "454 4.7.0 not now"},
            {"auth": f"454 4.7.0 not with {OWN_MAIL} {said}"},
        )
        for number, script in enumerate(scripts):
            peer.script = script
            self.say(self.post("user.created", WELCOME, id=f"broken {number}"))
        peer.script = {}
        with self.app.app_context():
            sql("ALTER TABLE events ADD CONSTRAINT refuses CHECK (external_id <> 'refused')")
        try:
            assert self.post("user.created", WELCOME, id="refused").status_code == 500
        finally:
            with self.app.app_context():
                sql("ALTER TABLE events DROP CONSTRAINT refuses")

    def work(self) -> str:
        """Have the worker do all that is due, and return what the tables held before."""

        async def defer() -> None:
            with worker.job_queue.replace_connector(worker.job_connector(self.app)):
                async with worker.job_queue.open_async():
                    await worker.send_due.defer_async(after=0)

        with self.app.app_context():
            sql("UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
            asyncio.run(defer())
            waiting = secret_canaries.tables()
        assert ":send_due" in waiting
        worker.run(self.app, concurrency=2, wait=False)
        return waiting


@pytest.fixture
def peers() -> Iterator[tuple[SmtpPeer, SmtpPeer]]:
    """The tenant's mail server and the system's: each knows one account."""
    with SmtpPeer(accounts={"mailer": OWN_MAIL}) as own, SmtpPeer(accounts={"mailer": SYSTEM_MAIL}) as shared:
        yield own, shared


def test_no_planted_secret_is_found_anywhere(
    app: Flask,
    admin: FlaskClient,
    system: FlaskClient,
    sign_in: SignIn,
    post: Post,
    key: str,
    working_tenant: str,
    peers: tuple[SmtpPeer, SmtpPeer],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.NOTSET)
    own, shared = peers
    run = Run(app, post, admin, system, working_tenant)
    run.secrets += [key, PASSWORD, TEST_SECRET, TEST_KEY.partition(":")[2]]
    run.settings(own, shared)
    run.events(own)
    run.say(fill_in(run.admin, f"/tenants/{working_tenant}/mail-server", **values(own.port, password=OWN_MAIL)))
    run.storm()
    run.softphones(own)
    run.passwords(sign_in, shared)
    run.failures(own)
    jobs_held = run.work()
    run.commands(monkeypatch)
    with app.app_context():
        tables = secret_canaries.tables()
    pages = secret_canaries.pages(app, (app.test_client(), run.admin, run.system), working_tenant)
    printed = "".join(capfd.readouterr())

    assert len(run.secrets) >= 16
    for name, where in {
        "tables": tables,
        "jobs": jobs_held,
        "log": caplog.text,
        "output": printed,
        "pages": pages,
        "answers": "\n".join(run.said),
    }.items():
        assert not secret_canaries.lines(where, run.secrets), name
    assert "deferred" in tables
    assert "digest" in tables
    assert "IntegrityError" in caplog.text or "CheckViolation" in caplog.text, "the log tells what failed"


def test_a_search_finds_what_is_there(app: Flask, post: Post, working_tenant: str) -> None:
    """The test above can fail."""
    post("queue.call_lost", CALL_LOST | {"caller_name": SIP})
    with app.app_context():
        assert secret_canaries.found(secret_canaries.tables(), [SIP, USER]) == [SIP]
        sql("UPDATE events SET secrets_encrypted = :secret", secret=USER.encode())
        assert secret_canaries.found(secret_canaries.tables(), [USER]) == [USER]


@pytest.mark.parametrize("state", sorted(STATES - {"deferred"}))
def test_what_is_over_has_no_secrets_left_at_all(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer, state: str
) -> None:
    """Not even encrypted ones: neither a later thief of the key nor the operator gets them."""
    peer.script = {} if state == "delivered" else {"dot": "451 later"} if state == "expired" else {"dot": "550 no"}
    post("user.created", WELCOME)
    with app.app_context(), every_tenant():
        sql("UPDATE deliveries SET next_attempt_at = now(), expires_at = now() WHERE next_attempt_at IS NOT NULL")
        lifecycle.expire_deliveries()
        db.session.remove()
        assert sql("SELECT count(*) FROM events WHERE secrets_encrypted IS NOT NULL") == [(0,)]
