"""Deleting a tenant: everything of it goes, nothing of others, and the audit trail says who did it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.accounts import service as account_service
from portal.audit.log import Actor, set_actor
from portal.database.scope import TenantOwned, enter_scope
from portal.deliveries import worker
from portal.deliveries.models import RecordedEvent
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import Base, db
from portal.mail_servers import service as mail_server_service
from portal.mail_templates import versions
from portal.mail_templates.source import TemplateFormat, TemplateSource
from portal.pbx import api_keys
from portal.people import invitations
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.transfer import deletion
from portal.transfer.deletion import Counts
from tests.concurrency import blocked_until_done
from tests.people.example_people import account_with, tenant_with
from tests.security.test_scope import ALERT, ATTEMPT, CONNECTION, STATS, USAGE, WELCOME
from tests.sql import sql
from tests.tenant_fixtures import CALL_LOST, Post, entered, key, peer, post, system_key, working_tenant

__all__ = ["key", "peer", "post", "system_key", "working_tenant"]

OWNED = sorted(
    str(mapper.local_table)
    for mapper in Base.registry.mappers
    if issubclass(mapper.class_, TenantOwned) and str(mapper.local_table) != "audit_entries"
)
STORM = """
    INSERT INTO storms SELECT id, 'queue.call_lost', '8000', now(), now() + interval '1 min', 1, 0 FROM tenants
    ON CONFLICT DO NOTHING
"""
RELEASE = "INSERT INTO release_requests (tenant_id, server_changed) SELECT id, true FROM tenants"
DISMISSAL = "INSERT INTO reminder_dismissals SELECT tenant_id, account_id FROM memberships"
NOTHING = Counts(0, 0, 0, 0, 0)


def rows(tenant_id: int) -> dict[str, int]:
    """Return how many rows each table has of a tenant."""
    tables = [*OWNED, "memberships", "settings_revisions"]
    return {table: sql(f"SELECT count(*) FROM {table} WHERE tenant_id = :id", id=tenant_id)[0][0] for table in tables}


@pytest.fixture
def full(app: Flask, admin: FlaskClient, system: FlaskClient, post: Post, working_tenant: str) -> int:
    """The id of Acme, with a row in every table that belongs to tenants."""
    assert post("user.created", {**WELCOME, "email": "ann@acme.example"}).status_code == 200
    for number in range(3):
        assert post(id=f"lost-{number}").json["status"] == "sent"
    assert post("queue.call_lost", {}).status_code == 422
    with app.app_context():
        for statement in (ATTEMPT, USAGE, CONNECTION, ALERT, STATS, STORM, RELEASE, DISMISSAL):
            sql(statement)
        tenant = tenant_with(working_tenant)
        enter_scope(tenant.id)
        source = TemplateSource(TemplateFormat.MARKDOWN, "Lost", "A call")
        assert not isinstance(versions.save_version(tenant, EVENT_TYPES["queue.call_lost"], source, None), Refusal)
        invited = invitations.invite(tenant, "bob@acme.example", "viewer", by=account_with("root@pbx.example"))
        assert not isinstance(invited, Refusal)
        return tenant.id


def audit_entries(action: str) -> list[tuple[str, str]]:
    """Return who did this, and to what."""
    query = "SELECT actor, subject FROM audit_entries WHERE action = :action ORDER BY id"
    return [(row[0], row[1]) for row in sql(query, action=action)]


def test_everything_of_a_tenant_is_deleted_and_nothing_of_another(app: Flask, full: int, globex: str) -> None:
    with app.app_context():
        before = rows(full)
        assert {table for table, number in before.items() if not number} == set(), "the test is about every table"
        other = tenant_with(globex)
        mail_server_service.save(other.id, entered(2525))
        others = rows(other.id)
        counts = deletion.request(tenant_service.get(full))
        assert counts == Counts(event_count=4, email_count=5, recipient_count=2, key_count=1, person_count=2)
        assert deletion.finish(full)
        assert not any(rows(full).values())
        assert deletion.count(full) == NOTHING
        assert tenant_service.find("acme.example") is None
        assert rows(other.id) == others


def test_a_request_ends_email_and_access_at_once_and_a_worker_does_the_rest(
    app: Flask, full: int, admin: FlaskClient, post: Post
) -> None:
    with app.app_context():
        deletion.request(tenant_service.get(full))
        tenant = tenant_service.get(full)
        assert tenant.is_suspended
        assert isinstance(tenant_service.resume(tenant), Refusal)
        assert account_with("admin@acme.example").memberships == []
        assert account_service.find("bob@acme.example") is None, "was made only for the invitation"
    assert post().status_code == 401
    assert admin.get("/tenants/acme.example/overview").status_code == 404
    with app.app_context():
        assert deletion.count(full).event_count == 4
        worker.PERIODIC_WORK["transfer"][1]()
    with app.app_context():
        assert not any(rows(full).values())


def test_the_audit_trail_is_kept_and_says_who_did_it(app: Flask, full: int) -> None:
    with app.app_context():
        before = sql("SELECT count(*) FROM audit_entries WHERE tenant_id = :id", id=full)[0][0]
        set_actor(lambda: Actor("root@pbx.example", 1))
        deletion.request(tenant_service.get(full))
    with app.app_context():
        deletion.continue_all()
        assert audit_entries("tenant.deletion_requested") == [("root@pbx.example", "acme.example")]
        assert audit_entries("tenant.removed") == [("portal", "acme.example")]
        assert ("root@pbx.example", "admin@acme.example") in audit_entries("membership.removed")
        assert ("root@pbx.example", "bob@acme.example") in audit_entries("invitation.withdrawn")
        changes = sql("SELECT changes FROM audit_entries WHERE action = 'tenant.deletion_requested'")[0][0]
        assert changes["email_count"] == [5, 0]
        assert sql("SELECT count(*) FROM audit_entries WHERE tenant_id = :id", id=full)[0][0] > before


def test_it_works_in_portions_and_continues_after_a_crash(
    app: Flask, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "PORTION", 1)
    left: list[int] = []

    def crash() -> bool:
        left.append(sql("SELECT count(*) FROM events")[0][0])  # as others see it: each portion is committed
        if len(left) == 2:
            raise RuntimeError("crash")
        return True

    with app.app_context():
        deletion.request(tenant_service.get(full))
        with pytest.raises(RuntimeError, match="crash"):
            deletion.finish(full, crash)
        assert left == [3, 2]
    with app.app_context():
        assert not deletion.finish(full, lambda: False), "one portion, then it is asked to stop"
        assert sql("SELECT count(*) FROM events")[0][0] == 1
        deletion.continue_all()
        assert not any(rows(full).values())


def test_a_tenant_that_nobody_wants_to_delete_stays(app: Flask, full: int) -> None:
    with app.app_context():
        before = rows(full)
        deletion.continue_all()
        assert rows(full) == before


def test_a_repeated_request_changes_nothing(app: Flask, full: int) -> None:
    with app.app_context():
        deletion.request(tenant_service.get(full))
        deletion.request(tenant_service.get(full))
        assert len(audit_entries("tenant.deletion_requested")) == 1


def test_two_workers_at_once_delete_a_tenant_once(
    app: Flask, full: int, globex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "PORTION", 1)
    with app.app_context():
        deletion.request(tenant_service.get(full))

    def run() -> None:
        with app.app_context():
            deletion.continue_all()

    with ThreadPoolExecutor(2) as workers:
        for future in [workers.submit(run), workers.submit(run)]:
            future.result()
    with app.app_context():
        assert not any(rows(full).values())
        assert tenant_service.find(globex)
        assert len(audit_entries("tenant.removed")) == 1


def test_a_portion_blocks_no_event_of_another_tenant(app: Flask, full: int, globex: str) -> None:
    with app.app_context():
        other = api_keys.issue(tenant_with(globex)).secret
        deletion.request(tenant_service.get(full))
        enter_scope(full)
        deletion._delete_portion(RecordedEvent, full, None)  # not committed yet
        client, body = app.test_client(), {"type": "queue.call_lost", "data": CALL_LOST}
        answer = client.post("/api/v1/events", json=body, headers={"Authorization": f"Bearer {other}"})
        assert answer.status_code in (200, 202), answer.text
        db.session.commit()


def test_an_event_of_a_system_key_during_the_deletion_is_recorded_and_deleted_or_rejected(
    app: Flask, full: int, system_key: str
) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST, "tenant": "acme.example"}
    headers = {"Authorization": f"Bearer {system_key}"}
    with app.app_context():
        deletion.request(tenant_service.get(full))
    answer = app.test_client().post("/api/v1/events", json=body, headers=headers)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "ignored"), answer.text
    with app.app_context():
        deletion.continue_all()
        assert not any(rows(full).values())
    assert app.test_client().post("/api/v1/events", json=body, headers=headers).status_code == 422


def test_an_event_that_arrives_while_the_tenant_goes_finds_no_tenant(app: Flask, full: int, system_key: str) -> None:
    body = {"type": "queue.call_lost", "data": CALL_LOST, "tenant": "acme.example"}
    headers = {"Authorization": f"Bearer {system_key}"}

    def post_event() -> int:
        return app.test_client().post("/api/v1/events", json=body, headers=headers).status_code

    with app.app_context():
        deletion.request(tenant_service.get(full))
        sql("DELETE FROM events")
        enter_scope(full)
        db.session.delete(db.session.get_one(Tenant, full, with_for_update=True))
        db.session.flush()
        with blocked_until_done(app, post_event) as status:
            db.session.commit()
            assert status.result() == 422
        assert not any(rows(full).values())
