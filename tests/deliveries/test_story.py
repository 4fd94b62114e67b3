"""The page of an event: what the PBX reported, and each mail's story, made of what really happened."""

import re
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import every_tenant
from portal.deliveries import endings, storms
from portal.deliveries.models import DeliveryAttempt
from portal.extensions import db
from tests.conftest import SignIn
from tests.deliveries.test_retry import Work, work
from tests.deliveries.test_views import DISCARD, LOG, SEND_AGAIN, SEND_NOW, decide, ids, words
from tests.deliveries.test_welcome import USER
from tests.ready import CALL_LOST, Post
from tests.smtp_peer import Act, SmtpPeer
from tests.sql import sql

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
    told = [
        re.sub(r"<[^>]+>", " ", re.sub(r'<span class="meta">.*?</span>', " ", part, flags=re.S))
        for timeline in STEP.findall(page)
        for part in re.split(r"<li\b[^>]*>", timeline)[1:]
    ]
    return [re.sub(r"\s+", " ", each).strip() for each in told]


def kept(app: Flask) -> list[tuple[int, list[str]]]:
    with app.app_context(), every_tenant():
        rows = db.session.scalars(db.select(DeliveryAttempt).order_by(DeliveryAttempt.number))
        return [(row.number, [each["status"] for each in row.replies]) for row in rows]


def test_it_is_told_in_the_readers_language(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    post()
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "zh"
    page = page_of(admin, *events(app))
    assert steps(page) == ["已记录", "第 1 次尝试 ops@acme.example, night@acme.example 已发送 250 2.0.0 queued as 4711"]
    assert "<dt>队列号码</dt>" in page
    assert "<h1>来电流失</h1>" in page


def test_what_was_accepted_at_once_is_told_by_its_rows(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    post()
    assert kept(app) == []
    page = page_of(admin, *events(app))
    assert steps(page) == ["Recorded", "Try 1 ops@acme.example, night@acme.example Sent 250 2.0.0 queued as 4711"]
    assert f"through 127.0.0.1:{peer.port}" in page
    assert "at once" in page


def test_each_attempt_is_told_with_the_mail_servers_words_and_what_they_mean(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer, work: Work
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
    assert first.startswith("Try 1 ops@acme.example, night@acme.example Will try again 451 4.3.0 later")
    assert "while handing the mail over" in first
    assert "the portal tries again by itself" in first
    assert "550 5.1.1 no such user while naming the recipient" in second
    assert "there is no such mailbox" in second
    assert "greylisting" in second
    assert third == "Try 3 night@acme.example Sent 250 2.0.0 queued as 4711"
    assert re.search(r'class="verdict".*?Partly sent.*?It did not reach everybody', page, re.S)


def test_the_next_try_is_told_and_why_then(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    (event,) = events(app)
    assert re.match(r"Next try in (1 minute|\d\d seconds) The portal waits longer", steps(page_of(admin, event))[-1])
    with app.app_context():
        sql("UPDATE mail_servers SET paused_until = now() + interval '1 minute'")
    assert steps(page_of(admin, event))[-1].endswith(
        "The mail server is paused, so that it is left alone for a moment."
    )
    with app.app_context():
        sql("UPDATE deliveries SET next_attempt_at = expires_at")
    assert steps(page_of(admin, event))[-1] == "No further try The next one would come too late."
    with app.app_context():
        sql("UPDATE deliveries SET expires_at = now(), next_attempt_at = now()")
        assert endings.expire() == 1
    *_, last, end = steps(page_of(admin, event))
    assert "by itself" not in last
    assert end == "Given up It could not be delivered in time."


def test_what_is_held_says_why_and_what_mends_it(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    peer.script = {"mail": "550 5.7.1 not from here"}
    post()
    page = page_of(admin, *events(app))
    assert steps(page)[-1] == "Held The mail server does not work with its settings. Check them"
    assert "It goes on by itself when what is in its way is mended." in page


def test_what_may_have_been_sent_waits_for_a_person(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": Act.DROP}
    post("user.created", USER | {"email": None})
    page = page_of(admin, *events(app))
    assert "look into the mailbox before you send it again" in page
    assert "It waits for somebody to decide." in page


def test_people_decide_on_the_page_and_are_told_there(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer, work: Work
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    (event,), here = events(app), f"{LOG}/{events(app)[0]}"
    answer = decide(admin, f"{SEND_NOW}?on={event}", *ids(app), page=here)
    assert (answer.status_code, answer.location) == (303, here)
    assert steps(page_of(admin, event))[-2:] == ["Sent now by admin@acme.example", "Goes out in a moment"]
    work()
    answer = decide(admin, f"{DISCARD}?on={event}", *ids(app), page=here, htmx=True)
    fragment = answer.get_data(as_text=True)
    assert fragment.lstrip().startswith('<div id="story"')
    assert "1 mail is discarded." in fragment
    assert "autofocus" in fragment
    assert steps(unescape(fragment))[-1] == "Discarded by admin@acme.example"


def test_a_mail_that_was_asked_for_again_has_a_story_of_its_own(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    post()
    (event,) = events(app)
    decide(admin, f"{SEND_AGAIN}?on={event}", *ids(app), page=f"{LOG}/{event}")
    told = steps(page_of(admin, event))
    assert told[2:] == ["Sent again by admin@acme.example", "Asked for again", "Goes out in a moment"]


def test_attempts_that_were_not_kept_are_not_made_up(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with app.app_context():
        sql("UPDATE deliveries SET attempts = 3")
        sql("DELETE FROM delivery_attempts")
    told = steps(page_of(admin, *events(app)))
    assert told[1] == "2 earlier tries What the mail server said then was not kept."
    assert told[2].startswith("Try 3 ops@acme.example, night@acme.example Will try again 451 4.3.0 later")


def test_attempts_go_with_their_mail(app: Flask, post: Post, ready: str, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post()
    with app.app_context():
        sql("DELETE FROM events")
    assert kept(app) == []


def test_the_digest_and_what_it_tells_of_lead_to_each_other(
    app: Flask, admin: FlaskClient, post: Post, ready: str
) -> None:
    for number in range(11):
        post(data={"queue_number": "8000", "queue_name": "Support", "caller_number": f"7{number:03}"})
    held = events(app)[-1]
    assert "a digest tells of it" in steps(page_of(admin, held))[-1]
    with app.app_context():
        sql("UPDATE storms SET started_at = started_at - interval '5 minutes', ends_at = now()")
        assert sum(storms.write_digest(*each) for each in storms.over()) == 1
    digest = events(app)[-1]
    assert f'<a href="{LOG}/{digest}">a digest</a>' in page_of(admin, held)
    back = re.search(r'href="([^"]+)">The events that it tells of', page_of(admin, digest))
    assert back
    assert admin.get(back[1]).get_data(as_text=True).count("<tbody") == 11


def test_it_tells_what_the_pbx_reported_in_words_and_no_secret(
    app: Flask, admin: FlaskClient, post: Post, ready: str, peer: SmtpPeer
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    post("user.created", USER | {"extension_password": "s3cr3t-of-ana", "voicemail_pin": "4711-pin"}, id="evt-1")
    lost = CALL_LOST | {"waited_seconds": 90, "reason": "hangup", "position": 3, "call_id": "<i>x"}
    post(data=lost)
    user, call = (page_of(admin, event) for event in events(app))
    assert "evt-1" in user
    assert "Passwords are not kept here." in user
    for secret in ("s3cr3t", "4711-pin"):
        assert secret not in user
    facts = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", call, re.S)
    told = {label: re.sub(r"<[^>]+>", "", value).strip() for label, value in facts}
    assert (told["Waited"], told["Reason"], told["Position"]) == ("1 minute 30 seconds", "the caller hung up", "3")
    assert "<i>x" not in admin.get(f"{LOG}/{events(app)[1]}").get_data(as_text=True)


def test_an_event_that_is_ignored_has_a_page(app: Flask, admin: FlaskClient, post: Post, ready: str) -> None:
    with app.app_context():
        sql("DELETE FROM notification_switches")
    post()
    page = page_of(admin, *events(app))
    assert "This event was switched off: no mail was written." in page
    assert steps(page) == []


def test_an_event_of_another_tenant_does_not_exist(
    app: Flask, sign_in: SignIn, post: Post, ready: str, globex: str
) -> None:
    post()
    (event,) = events(app)
    stranger = sign_in("admin@globex.example", administers=globex)
    for domain in (ready, globex):
        for path in (f"deliveries/{event}", f"deliveries/news?on={event}&seen={event}.x"):
            answer = stranger.get(f"/tenants/{domain}/{path}")
            assert answer.status_code in {404, 204}
            assert "7946" not in words(answer)


@pytest.mark.parametrize("event", ["1", "00000000-0000-0000-0000-000000000000"])
def test_what_never_happened_has_none(admin: FlaskClient, acme: str, event: str) -> None:
    assert admin.get(f"{LOG}/{event}").status_code == 404
