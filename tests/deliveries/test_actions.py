"""Held email: released, sent by hand, discarded, sent again."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from croniter import croniter
from flask import Flask
from sqlalchemy import select

from portal.database.scope import enter_scope, every_tenant
from portal.deliveries import actions, release, worker
from portal.deliveries.lifecycle import end_deliveries
from portal.deliveries.models import Delivery, RecordedEvent
from portal.deliveries.status import HoldReason, Status
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers import service as mail_server_settings
from portal.notifications import recipients, settings
from portal.signals import settings_changed
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.concurrency import blocked_until_done
from tests.deliveries.test_welcome import USER
from tests.due_emails import send_due_emails
from tests.smtp_peer import Fault, SmtpPeer, closed_port
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post, entered


@pytest.fixture
def tenant(app: Flask, working_tenant: str) -> Iterator[Tenant]:
    """Acme, in its scope."""
    with app.app_context():
        tenant = tenant_service.find(working_tenant)
        assert tenant is not None
        enter_scope(tenant.id)
        yield tenant
        db.session.remove()


def statuses() -> list[str]:
    with every_tenant():
        return list(db.session.scalars(select(Delivery.status).order_by(Delivery.id)))


def ids() -> list[UUID]:
    return list(db.session.scalars(select(Delivery.id).order_by(Delivery.id)))


def no_server(tenant: Tenant, peer: SmtpPeer) -> Callable[[], object]:
    mail_server_settings.remove(tenant.id)
    return lambda: mail_server_settings.save(tenant.id, entered(peer.port))


def no_shared_server(tenant: Tenant, peer: SmtpPeer) -> Callable[[], object]:
    mail_server_settings.remove(tenant.id)
    mail_server_settings.save(None, entered(peer.port))
    return lambda: mail_server_settings.share(True)


def no_recipients(tenant: Tenant, peer: SmtpPeer) -> Callable[[], object]:
    recipients.replace(tenant, [])
    return lambda: recipients.replace(tenant, PEOPLE)


def rejected(tenant: Tenant, peer: SmtpPeer) -> Callable[[], object]:
    peer.script = {"mail": "550 5.7.1 not from here"}

    def mend() -> None:
        peer.script = {}
        mail_server_settings.save(tenant.id, entered(peer.port))

    return mend


@pytest.mark.parametrize("hinder", [no_server, no_shared_server, no_recipients, rejected])
def test_held_mail_goes_out_when_what_held_it_is_mended(
    tenant: Tenant, app: Flask, post: Post, peer: SmtpPeer, hinder: Callable[[Tenant, SmtpPeer], Callable[[], object]]
) -> None:
    mend = hinder(tenant, peer)
    assert post().json["status"] == "held"
    enter_scope(tenant.id)
    send_due_emails()
    assert statuses() == ["held"]
    mend()
    assert send_due_emails() == 1
    assert statuses() == ["sent"]
    assert [mail.recipients for mail in peer.messages] == [PEOPLE]


@pytest.mark.parametrize(
    ("hinder", "mend"),
    [
        (tenant_service.suspend, tenant_service.resume),
        (
            lambda tenant: settings.set_enabled(tenant, ["queue.call_lost"], on=False),
            lambda tenant: settings.set_enabled(tenant, ["queue.call_lost"], on=True),
        ),
    ],
)
def test_a_retry_that_was_held_goes_on_when_the_tenant_wants_it_again(
    tenant: Tenant, post: Post, peer: SmtpPeer, hinder: Callable[[Tenant], None], mend: Callable[[Tenant], None]
) -> None:
    peer.script = {"dot": "451 later"}
    post()
    peer.script = {}
    hinder(tenant)
    enter_scope(tenant.id)
    actions.send_now(ids())
    send_due_emails()
    assert statuses() == ["held"]
    mend(tenant)
    send_due_emails()
    assert statuses() == ["sent"]


def test_held_emails_are_sent_oldest_first(
    tenant: Tenant, post: Post, peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "BATCH_SIZE", 2)
    mend = no_server(tenant, peer)
    for number in range(5):
        post(data={"queue_number": "8000", "caller_number": f"700{number}"})
    enter_scope(tenant.id)
    mend()
    assert statuses() == ["held"] * 5, "the request that saves only asks for it"
    assert send_due_emails() == 5
    assert [b"700%d" % number in mail.content for number, mail in enumerate(peer.messages)] == [True] * 5


def test_a_paused_server_is_tried_again_on_a_persons_word(tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"greeting": "421 4.3.2 closing"}
    assert post().json["status"] == "deferred"
    peer.script = {}
    enter_scope(tenant.id)
    assert send_due_emails() == 0
    mail_server_service.end_pause(tenant.id)
    assert send_due_emails() == 1
    assert statuses() == ["sent"]


def test_saving_settings_ends_the_pause_and_the_waiting(tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    with closed_port() as port:
        mail_server_settings.save(tenant.id, entered(port))
        assert post().json["status"] == "deferred"
    enter_scope(tenant.id)
    mail_server_settings.save(tenant.id, entered(peer.port))
    assert send_due_emails() == 1
    assert statuses() == ["sent"]


def test_send_now_and_discard_work_on_a_selection(tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"dot": "451 later"}
    for _ in range(3):
        post()
    peer.script = {}
    enter_scope(tenant.id)
    first, second, _ = ids()
    assert actions.send_now([first]) == 1
    assert actions.discard([second]) == 1
    assert send_due_emails() == 1
    assert statuses() == ["sent", "discarded", "deferred"]
    assert actions.discard([first, second]) == 0, "what has ended stays as it is"
    assert actions.send_now([second]) == 0


def send_all_now(ids: list[UUID]) -> int:
    enter_scope(1)
    return actions.send_now(ids)


def test_a_mail_that_a_worker_takes_meanwhile_is_not_sent_a_second_time(
    app: Flask, tenant: Tenant, post: Post, peer: SmtpPeer
) -> None:
    peer.script = {"mail": "451 4.3.0 later"}
    post()
    (mail,) = db.session.scalars(select(Delivery))
    mail.status, mail.next_attempt_at = "pending", None
    mail.lease_until = datetime.now(UTC) + timedelta(minutes=1)
    db.session.flush()
    with blocked_until_done(app, partial(send_all_now, [mail.id])) as sent_now:
        db.session.commit()
        assert sent_now.result() == 0
    assert mail.next_attempt_at is None, "another worker would take it"


def test_a_mail_that_is_discarded_meanwhile_is_not_sent_and_stops_nobody(
    app: Flask, tenant: Tenant, post: Post
) -> None:
    mail_server_settings.remove(tenant.id)
    post()
    chosen = ids()
    db.session.execute(select(Delivery.id).with_for_update())
    with blocked_until_done(app, partial(send_all_now, chosen)) as sent_now:
        assert actions.discard(chosen) == 1
        assert sent_now.result() == 0
    assert statuses() == ["discarded"]


def test_what_may_have_been_sent_waits_for_a_person(tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    peer.script = {"dot": Fault.DROP}
    post("user.created", USER | {"email": None})
    peer.script = {}
    enter_scope(tenant.id)
    mail_server_settings.save(tenant.id, entered(peer.port))
    assert send_due_emails() == 0
    reason = db.session.scalars(select(Delivery.reason)).one()
    assert reason == HoldReason.MAY_HAVE_BEEN_SENT
    assert actions.send_now(ids()) == 1
    assert send_due_emails() == 1
    assert statuses() == ["sent"]


def test_a_sent_mail_is_sent_again_with_a_message_id_of_its_own(tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    post()
    enter_scope(tenant.id)
    once_more = actions.send_again(ids()[0])
    assert not isinstance(once_more, Refusal)
    send_due_emails()
    assert statuses() == ["sent", "sent"]
    first, second = (mail.content for mail in peer.messages)
    assert once_more.message_id.encode() in second
    assert once_more.message_id.encode() not in first


def test_a_button_that_is_pressed_twice_sends_one_mail(app: Flask, tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    post()
    (first,) = ids()

    def press() -> Delivery | Refusal:
        enter_scope(1)
        return actions.send_again(first)

    db.session.execute(select(Delivery.id).with_for_update())
    with blocked_until_done(app, press) as second:
        assert isinstance(actions.send_again(first), Delivery)
        refused = second.result()
    assert refused == Refusal("delivery", "This email is already being sent again.")
    send_due_emails()
    assert len(peer.messages) == 2
    assert isinstance(actions.send_again(first), Delivery), "it has arrived, so it may be sent once more"


def secrets_are_kept() -> bool:
    return bool(sql("SELECT secrets_encrypted IS NOT NULL FROM events")[0][0])


def discard(mail: UUID) -> int:
    enter_scope(1)
    return actions.discard([mail])


def test_secrets_go_with_the_last_of_two_mails_that_end_at_the_same_time(
    app: Flask, tenant: Tenant, post: Post, peer: SmtpPeer
) -> None:
    peer.script = {"mail": "451 4.3.0 later"}
    post("user.created", USER)
    one, other = db.session.scalars(select(Delivery).order_by(Delivery.id))
    end_deliveries([one], Status.DISCARDED)
    with blocked_until_done(app, partial(discard, other.id)) as discarded:
        db.session.commit()
        assert discarded.result() == 1
    assert statuses() == ["discarded", "discarded"]
    assert not secrets_are_kept()


def test_a_mail_whose_secrets_go_meanwhile_is_not_sent_again(
    app: Flask, tenant: Tenant, post: Post, peer: SmtpPeer
) -> None:
    peer.script = {"mail": "451 4.3.0 later"}
    post("user.created", USER)
    sql("UPDATE delivery_recipients SET status = 'failed' WHERE email = :address", address=USER["email"])
    sql("UPDATE deliveries SET status = 'failed', next_attempt_at = NULL WHERE audience = 'user'")
    failed, waiting = sorted(db.session.scalars(select(Delivery)), key=lambda each: each.audience != "user")

    def press() -> Delivery | Refusal:
        enter_scope(1)
        return actions.send_again(failed_id)

    failed_id = failed.id
    end_deliveries([waiting], Status.DISCARDED)
    with blocked_until_done(app, press) as pressed:
        db.session.commit()
        refused = pressed.result()
    assert isinstance(refused, Refusal)
    assert "erased" in refused.text


def test_of_one_mail_and_its_copy_one_is_sent_again(app: Flask, tenant: Tenant, post: Post, peer: SmtpPeer) -> None:
    post()
    (original,) = ids()
    actions.send_again(original)
    send_due_emails()
    copy = ids()[-1]

    def press() -> Delivery | Refusal:
        enter_scope(1)
        return actions.send_again(copy)

    db.session.execute(select(RecordedEvent.id).with_for_update(key_share=True))
    with blocked_until_done(app, press) as second:
        assert isinstance(actions.send_again(original), Delivery)
        assert isinstance(second.result(), Refusal)


def test_a_welcome_mail_is_not_sent_again_without_its_secrets(tenant: Tenant, post: Post) -> None:
    post("user.created", USER)
    enter_scope(tenant.id)
    assert isinstance(actions.send_again(ids()[0]), Refusal)


def test_a_mail_of_another_tenant_cannot_be_reached(tenant: Tenant, post: Post, peer: SmtpPeer, globex: str) -> None:
    peer.script = {"dot": "451 later"}
    post()
    enter_scope(tenant.id)
    theirs = ids()
    other = tenant_service.find(globex)
    assert other is not None
    enter_scope(other.id)
    assert actions.send_now(theirs) == 0
    assert actions.discard(theirs) == 0
    assert isinstance(actions.send_again(theirs[0]), Refusal)
    assert statuses() == ["deferred"]


def test_mending_one_tenant_leaves_the_others_as_they_are(
    tenant: Tenant, post: Post, peer: SmtpPeer, globex: str
) -> None:
    no_server(tenant, peer)
    post()
    other = tenant_service.find(globex)
    assert other is not None
    mail_server_settings.save(other.id, entered(peer.port))
    enter_scope(tenant.id)
    assert statuses() == ["held"]


def test_the_portal_itself_listens_for_what_was_mended(app: Flask) -> None:
    assert list(settings_changed.receivers_for(None)), "create_app connects it, not this test"


def test_workers_look_every_five_seconds() -> None:
    start = datetime(2026, 11, 23, 7, 1, 10, tzinfo=UTC)
    times = croniter(worker.EVERY_5_SECONDS, start)
    assert [times.get_next(datetime) - start for _ in range(2)] == [timedelta(seconds=5), timedelta(seconds=10)]
