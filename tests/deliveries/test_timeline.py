"""The page of an event: what the PBX reported, and each mail's story, made of what really happened."""

import re
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database.scope import every_tenant
from portal.deliveries import digest as deliveries_digest
from portal.deliveries import lifecycle
from portal.deliveries.models import DeliveryAttempt
from portal.extensions import db
from tests.conftest import SignIn
from tests.deliveries.test_retry import Work, work
from tests.deliveries.test_views import DISCARD, LOG, SEND_AGAIN, SEND_NOW, decide, ids, visible_text
from tests.deliveries.test_welcome import USER
from tests.smtp_peer import Fault, SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post

__all__ = ["work"]

STEP = re.compile(r'<ol class="timeline">.*?</ol>', re.S)


def events(app: Flask) -> list[str]:
    with app.app_context():
        return [str(row[0]) for row in sql("SELECT id FROM events ORDER BY id")]


def page_of(browser: FlaskClient, event: str) -> str:
    answer = browser.get(f"{LOG}/{event}")
    assert answer.status_code == 200
    return unescape(answer.get_data(as_text=True))


def steps(page: str) -> list[str]:
    """Return what each timeline of the page tells, without its times."""
    shown_steps = [
        re.sub(r"<[^>]+>", " ", re.sub(r'<span class="meta">.*?</span>', " ", part, flags=re.S))
        for timeline in STEP.findall(page)
        for part in re.split(r"<li\b[^>]*>", timeline)[1:]
    ]
    return [re.sub(r"\s+", " ", each).strip() for each in shown_steps]


def kept(app: Flask) -> list[tuple[int, list[str]]]:
    with app.app_context(), every_tenant():
        rows = db.session.scalars(db.select(DeliveryAttempt).order_by(DeliveryAttempt.number))
        return [(row.number, [each["status"] for each in row.recipient_results]) for row in rows]


def test_it_is_told_in_the_readers_language(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    post()
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "zh"
    page = page_of(admin, *events(app))
    assert steps(page) == ["已记录", "第 1 次尝试 ops@acme.example, night@acme.example 已发送 250 2.0.0 queued as 4711"]
    assert "<dt>队列号码</dt>" in page
    assert "<h1>队列来电流失</h1>" in page


def test_what_was_accepted_at_once_is_told_by_its_rows(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    post()
    assert kept(app) == []
    page = page_of(admin, *events(app))
    assert steps(page) == ["Recorded", "Attempt 1 ops@acme.example, night@acme.example Sent 250 2.0.0 queued as 4711"]
    assert f"through 127.0.0.1:{peer.port}" in page
    assert "at once" in page


def test_each_attempt_is_told_with_the_mail_servers_words_and_what_they_mean(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    peer.script = {"rcpt": ["550 5.1.1 no such user", "451 4.7.1 Greylisted"]}
    work()
    peer.script = {}
    work()
    assert kept(app) == [(1, ["deferred", "deferred"]), (2, ["failed", "deferred"]), (3, ["sent"])]
    page = page_of(admin, *events(app))
    recorded, first, second, third = steps(page)
    assert recorded == "Recorded"
    assert first.startswith("Attempt 1 ops@acme.example, night@acme.example Will try again 451 4.3.0 later")
    assert "while sending the message" in first
    assert "the portal will try again automatically" in first
    assert "550 5.1.1 no such user while naming the recipient" in second
    assert "this mailbox does not exist" in second
    assert "greylisting" in second
    assert third == "Attempt 3 night@acme.example Sent 250 2.0.0 queued as 4711"
    assert re.search(r'class="event-status".*?Partly sent.*?It did not reach everyone', page, re.S)


def test_the_next_try_is_told_and_why_then(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    (event,) = events(app)
    assert re.match(
        r"Next attempt in (1 minute|\d\d seconds) The portal waits longer", steps(page_of(admin, event))[-1]
    )
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute'")
    assert steps(page_of(admin, event))[-1].endswith(
        "The mail server did not respond. We are waiting a moment before trying again."
    )
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = expires_at")
    assert steps(page_of(admin, event))[-1] == "No further attempt The next attempt would be after the email expires."
    with app.app_context():
        sql("UPDATE deliveries SET expires_at = now(), next_attempt_at = now()")
        assert lifecycle.expire_deliveries() == 1
    *_, last, end = steps(page_of(admin, event))
    assert "automatically" not in last
    assert end == "Expired It could not be delivered in time."


def test_what_is_held_says_why_and_what_mends_it(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"mail": "550 5.7.1 not from here"}
    post()
    page = page_of(admin, *events(app))
    assert steps(page)[-1] == "Held The mail server rejects its settings. Check the settings"
    assert "It will be sent automatically once the problem is fixed." in page


def test_what_may_have_been_sent_waits_for_a_person(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": Fault.DROP}
    post("user.created", USER | {"email": None})
    page = page_of(admin, *events(app))
    assert "check the mailbox before you send it again" in page
    assert "It is held until someone decides." in page


def test_people_decide_on_the_page_and_are_told_there(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    (event,), here = events(app), f"{LOG}/{events(app)[0]}"
    answer = decide(admin, f"{SEND_NOW}?event_id={event}", *ids(app), page=here)
    assert (answer.status_code, answer.location) == (303, here)
    assert steps(page_of(admin, event))[-2:] == ["Sent now by admin@acme.example", "Sending shortly"]
    work()
    answer = decide(admin, f"{DISCARD}?event_id={event}", *ids(app), page=here, htmx=True)
    fragment = answer.get_data(as_text=True)
    assert fragment.lstrip().startswith('<div id="event-details"')
    assert "1 email was discarded." in fragment
    assert "autofocus" in fragment
    assert steps(unescape(fragment))[-1] == "Discarded by admin@acme.example"


def test_a_mail_that_was_asked_for_again_has_a_story_of_its_own(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    post()
    (event,) = events(app)
    decide(admin, f"{SEND_AGAIN}?event_id={event}", *ids(app), page=f"{LOG}/{event}")
    shown_steps = steps(page_of(admin, event))
    assert shown_steps[2:] == ["Sent again by admin@acme.example", "Requested again", "Sending shortly"]


def test_attempts_that_were_not_kept_are_not_made_up(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with app.app_context():
        sql("UPDATE deliveries SET attempts = 3")
        sql("DELETE FROM delivery_attempts")
    shown_steps = steps(page_of(admin, *events(app)))
    assert shown_steps[1] == "2 earlier attempts The mail server's reply was not recorded."
    assert shown_steps[2].startswith("Attempt 3 ops@acme.example, night@acme.example Will try again 451 4.3.0 later")


def test_attempts_go_with_their_mail(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with app.app_context():
        sql("DELETE FROM events")
    assert kept(app) == []


def test_the_digest_and_what_it_tells_of_lead_to_each_other(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str
) -> None:
    for number in range(11):
        post(data={"queue_number": "8000", "queue_name": "Support", "caller_number": f"7{number:03}"})
    held = events(app)[-1]
    assert "It is listed in a summary email" in steps(page_of(admin, held))[-1]
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        assert sum(deliveries_digest.write_digest(*each) for each in deliveries_digest.ended_storms()) == 1
    digest = events(app)[-1]
    assert f'<a href="{LOG}/{digest}">a summary email</a>' in page_of(admin, held)
    back = re.search(r'href="([^"]+)">The events that it lists', page_of(admin, digest))
    assert back
    assert admin.get(back[1]).get_data(as_text=True).count("<tbody id=") == 11


def test_it_tells_what_the_pbx_reported_in_words_and_no_secret(
    app: Flask, admin: FlaskClient, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post("user.created", USER | {"extension_password": "s3cr3t-of-ana", "voicemail_pin": "4711-pin"}, id="evt-1")
    lost = CALL_LOST | {"waited_seconds": 90, "reason": "hangup", "position": 3, "call_id": "<i>x"}
    post(data=lost)
    user, call = (page_of(admin, event) for event in events(app))
    assert "evt-1" in user
    assert "Passwords are not shown here." in user
    for secret in ("s3cr3t", "4711-pin"):
        assert secret not in user
    facts = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", call, re.S)
    shown_steps = {label: re.sub(r"<[^>]+>", "", value).strip() for label, value in facts}
    assert (shown_steps["Waited"], shown_steps["Reason"], shown_steps["Position"]) == (
        "1 minute 30 seconds",
        "the caller hung up",
        "3",
    )
    assert "<i>x" not in admin.get(f"{LOG}/{events(app)[1]}").get_data(as_text=True)


def test_an_event_that_is_ignored_has_a_page(app: Flask, admin: FlaskClient, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("DELETE FROM notification_settings")
    post()
    page = page_of(admin, *events(app))
    assert "This event was switched off, so no email was sent." in page
    assert steps(page) == []


def test_an_event_of_another_tenant_does_not_exist(
    app: Flask, sign_in: SignIn, post: Post, working_tenant: str, globex: str
) -> None:
    post()
    (event,) = events(app)
    stranger = sign_in("admin@globex.example", administers=globex)
    for domain in (working_tenant, globex):
        for path in (f"deliveries/{event}", f"deliveries/updates?event_id={event}&watched={event}.x"):
            answer = stranger.get(f"/tenants/{domain}/{path}")
            assert answer.status_code in {404, 204}
            assert "7946" not in visible_text(answer)


@pytest.mark.parametrize("event", ["1", "00000000-0000-0000-0000-000000000000"])
def test_what_never_happened_has_none(admin: FlaskClient, acme: str, event: str) -> None:
    assert admin.get(f"{LOG}/{event}").status_code == 404
