"""An event goes to the recipients that want it now; where there are some and none does, it sends nothing."""

from datetime import date

import pytest
from flask import Flask

from portal.database.scope import enter_scope
from portal.deliveries import digest as deliveries_digest
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.notifications import recipients, settings
from portal.notifications.models import Recipient
from portal.notifications.settings import Audience
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.due_emails import send_due_emails
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "peer", "post", "working_tenant"]

LOST, NEW_USER = "queue.call_lost", "user.created"
WELCOME = {"extension_number": "101", "extension_password": "s3cret-Extension"}
NEVER = date(2999, 1, 1)
IGNORED = ("ignored", "no_recipient_wants_it")
DIGESTS = """
    SELECT count(*) FROM delivery_recipients JOIN deliveries AS mail ON mail.id = delivery_id
    JOIN events AS event ON event.id = mail.event_id WHERE event.type = 'queue.digest'
"""


def acme() -> Tenant:
    tenant = tenant_service.find("acme.example")
    assert tenant is not None
    enter_scope(tenant.id)
    return tenant


def exclude(app: Flask, event_type: str, *addresses: str) -> None:
    with app.app_context():
        tenant = acme()
        for each in recipients.list_recipients():
            if each.email in addresses:
                recipients.choose_events(tenant, each, [kind for kind in EVENT_TYPES if kind != event_type])


def pause_all(app: Flask) -> None:
    with app.app_context():
        tenant = acme()
        for each in recipients.list_recipients():
            recipients.pause(tenant, each, NEVER)


def post_result(post: Post, kind: str = LOST, data: dict[str, str] | None = None) -> tuple[str, str | None]:
    answer = post(kind, data).json
    return answer["status"], answer["reason"]


def test_who_does_without_an_event_is_left_out(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    exclude(app, LOST, "ops@acme.example")
    assert post_result(post) == ("sent", None)
    assert post_result(post, NEW_USER, WELCOME) == ("sent", None)
    assert [mail.recipients for mail in peer.messages] == [
        ["night@acme.example"],
        ["ops@acme.example", "night@acme.example"],
    ]


def test_where_nobody_wants_it_nothing_is_made(app: Flask, post: Post, working_tenant: str, peer: SmtpPeer) -> None:
    exclude(app, LOST, "ops@acme.example", "night@acme.example")
    answer = post(id="one").json
    assert (answer["status"], answer["reason"], answer["deliveries"]) == (*IGNORED, [])
    assert post(id="one").json["duplicate"] is True
    with app.app_context():
        assert sql("SELECT ignored_reason FROM events")[0][0] == "no_recipient_wants_it"
        assert sql("SELECT count(*) FROM storms")[0][0] == 0
    pause_all(app)
    assert post_result(post, NEW_USER, WELCOME) == IGNORED
    with app.app_context():
        assert sql("SELECT count(*) FROM events WHERE secrets_encrypted IS NOT NULL")[0][0] == 0
    assert not peer.conversations


def test_the_user_gets_the_welcome_mail_all_the_same(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    pause_all(app)
    assert post_result(post, NEW_USER, {**WELCOME, "email": "ann@acme.example"}) == ("sent", None)
    assert [mail.recipients for mail in peer.messages] == [["ann@acme.example"]]
    with app.app_context():
        settings.set_audience(acme(), NEW_USER, Audience.USER)
    assert post_result(post, NEW_USER, WELCOME) == ("held", "no_recipients")


def test_a_tenant_without_recipients_is_held_as_ever(app: Flask, post: Post, working_tenant: str) -> None:
    with app.app_context():
        sql("DELETE FROM recipients")
    assert post_result(post) == ("held", "no_recipients")


def test_held_mail_finds_those_late_recipients_that_want_it(
    app: Flask, post: Post, working_tenant: str, peer: SmtpPeer
) -> None:
    with app.app_context():
        sql("DELETE FROM recipients")
    assert post_result(post) == ("held", "no_recipients")
    with app.app_context():
        tenant = acme()
        db.session.add(Recipient(tenant_id=tenant.id, email="late@acme.example", excluded_event_types=[LOST]))
        db.session.commit()
        sql("UPDATE deliveries SET status = 'deferred', reason = NULL, next_attempt_at = now()")
    again(app)
    with app.app_context():
        assert tuple(sql("SELECT status, reason FROM deliveries")[0]) == ("held", "no_recipient_wants_it")
        tenant = acme()
        (late,) = recipients.list_recipients()
        recipients.choose_events(tenant, late, list(EVENT_TYPES))
    again(app)
    assert [mail.recipients for mail in peer.messages] == [["late@acme.example"]]


def again(app: Flask) -> None:
    with app.app_context():
        assert send_due_emails()


@pytest.mark.parametrize(
    ("without", "digest"), [((), 2), (("ops@acme.example",), 1), (("ops@acme.example", "night@acme.example"), 0)]
)
def test_a_digest_goes_to_those_who_get_what_it_is_about(
    app: Flask, post: Post, working_tenant: str, without: tuple[str, ...], digest: int
) -> None:
    with app.app_context():
        sql("UPDATE tenants SET storm_limit = 1")
    assert [post_result(post)[0] for _ in range(3)] == ["sent", "held", "held"]
    exclude(app, LOST, *without)
    with app.app_context():
        sql("UPDATE storms SET started_at = now() - interval '2 minutes', ends_at = now() - interval '1 minute'")
        for storm in deliveries_digest.ended_storms():
            assert deliveries_digest.write_digest(*storm) is bool(digest)
        assert sql(DIGESTS)[0][0] == digest
