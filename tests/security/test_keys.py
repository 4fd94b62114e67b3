"""Keys that are guessed, dead or somebody else's, and what a flood of rejected calls does: nothing."""

import base64
from datetime import date, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.crypto import hash_token
from portal.database import every_tenant
from portal.deliveries import endings
from portal.extensions import db
from portal.pbx import keys, rejections
from portal.pbx.keys import IssuedKey
from portal.pbx.models import RejectedCall
from portal.tenants import directory
from tests.conftest import SignIn
from tests.pages import post as submit
from tests.ready import Post, key, peer, post, ready, system_key
from tests.signed import call, signed
from tests.sql import sql

__all__ = ["key", "peer", "post", "ready", "signed", "system_key"]

PLANTED = "planted-s3cret"


def rejected() -> list[RejectedCall]:
    with every_tenant():
        return list(db.session.scalars(select(RejectedCall).order_by(RejectedCall.id)))


def page(browser: FlaskClient, path: str) -> str:
    return browser.get(path).get_data(as_text=True)


def test_guesses_are_refused(app: Flask, client: FlaskClient, key: str, ready: str) -> None:
    with app.app_context():
        ((row, _),) = keys.every_key()
    guesses = [key[:-1], key + "A", key[:-1] + "~", key.swapcase(), key.removeprefix("pbx_"), row.prefix]
    guesses += [
        hash_token(key).hex(),
        base64.b64encode(row.key_hash).decode(),
        "' OR true --",
        "%",
        "\\x00",
        "é",
        "x" * 9000,
    ]
    for guess in guesses:
        assert call(client, guess, {}).status_code == 401, guess


def test_unknown_expired_and_revoked_keys_are_told_the_same_whatever_the_body(
    app: Flask, client: FlaskClient, ready: str
) -> None:
    with app.app_context():
        tenant = directory.find(ready)
        expired, revoked = keys.issue(tenant), keys.issue(tenant)
        keys.revoke(revoked.row)
        sql("UPDATE pbx_keys SET expires_at = now() - interval '1 second' WHERE id = :id", id=expired.row.id)
    for content in ("", "x" * 70_000, '{"type": "queue.call_lost"}'):
        for media_type in ("application/json", "text/plain"):
            answers = [
                call(client, each, {"Content-Type": media_type}, content)
                for each in ("pbx_nobodys", expired.secret, revoked.secret)
            ]
            assert {answer.status_code for answer in answers} == {401}
            assert answers[0].json == answers[1].json == answers[2].json
            assert len({tuple(answer.headers) for answer in answers}) == 1


def test_a_key_lives_through_its_last_day(app: Flask, ready: str) -> None:
    with app.app_context():
        issued = keys.issue(directory.find(ready), last_day=date(2030, 7, 1))  # in Europe/Berlin, two hours before UTC
        ((end,),) = sql("SELECT expires_at AT TIME ZONE 'UTC' FROM pbx_keys WHERE id = :id", id=issued.row.id)
    assert end.isoformat(timespec="seconds") == "2030-07-01T21:59:59"


def test_rotation_leaves_no_gap_and_ends(app: Flask, client: FlaskClient, key: str, ready: str) -> None:
    with app.app_context():
        ((row, owner),) = keys.every_key()
        successor = keys.rotate(owner, row, timedelta(hours=24))
        assert isinstance(successor, IssuedKey)
        assert successor.row.name == row.name
    assert [call(client, each, {}).status_code for each in (key, successor.secret)] == [200, 200]
    with app.app_context():
        sql("UPDATE pbx_keys SET expires_at = expires_at - interval '24 hours'")
    assert [call(client, each, {}).status_code for each in (key, successor.secret)] == [401, 200]


def test_rotation_never_makes_a_key_live_longer(app: Flask, key: str, ready: str) -> None:
    with app.app_context():
        ((row, owner),) = keys.every_key()
        assert isinstance(keys.rotate(owner, row, timedelta(hours=1)), IssuedKey)
        soon = row.expires_at
        assert isinstance(keys.rotate(owner, row, timedelta(days=30)), IssuedKey)
        assert row.expires_at == soon
        keys.revoke(row)
        assert keys.rotate(owner, row, timedelta(hours=1)) is keys.NOT_LIVE
        assert keys.renew_secret(row, timedelta(hours=1)) is keys.NOT_LIVE


@pytest.mark.parametrize("action", ["rotate", "secret", "revoke"])
def test_nobody_touches_the_keys_of_others(
    app: Flask, admin: FlaskClient, system: FlaskClient, sign_in: SignIn, signed: IssuedKey, globex: str, action: str
) -> None:
    with app.app_context():
        of_system = keys.issue(None, "System", signed=True).row.id
        before = sql("SELECT * FROM pbx_keys ORDER BY id")
    other = sign_in("admin@globex.example", administers=globex)
    theirs, of_acme, systems = f"/tenants/{globex}/keys", "/tenants/acme.example/keys", "/system/keys"
    for browser, form, target in (
        (other, theirs, f"{theirs}/{signed.row.id}/{action}"),
        (other, theirs, f"{of_acme}/{signed.row.id}/{action}"),
        (other, theirs, f"{systems}/{of_system}/{action}"),
        (admin, of_acme, f"{of_acme}/{of_system}/{action}"),
        (admin, of_acme, f"{systems}/{of_system}/{action}"),
        (system, systems, f"{systems}/{signed.row.id}/{action}"),
        (system, systems, f"{systems}/{2**31}/{action}"),
    ):
        assert submit(browser, form, target, hours="24").status_code == 404, target
    assert admin.get(systems).status_code == 404
    with app.app_context():
        assert sql("SELECT * FROM pbx_keys ORDER BY id") == before


def test_the_database_holds_no_secret_in_clear_text(app: Flask, signed: IssuedKey, key: str) -> None:
    with app.app_context():
        dump = repr(sql("SELECT *, pbx_keys::text FROM pbx_keys")).encode()
    for secret in (key, signed.secret, signed.signing_secret):
        raw = base64.b64decode(signed.signing_secret.removeprefix("whsec_"))
        for form in (secret.encode(), secret.encode().hex().encode(), raw.hex().encode(), secret[12:].encode()):
            assert form not in dump


def test_of_a_rejected_call_nothing_secret_is_kept(
    app: Flask, client: FlaskClient, admin: FlaskClient, system: FlaskClient, key: str, signed: IssuedKey
) -> None:
    data = {"extension_number": PLANTED, "extension_password": [PLANTED], "email": PLANTED, "udp_port": PLANTED}
    bodies = [
        '{"type": "user.created", "data": ' + repr(data).replace("'", '"') + ', "id": "one", "time": "planted-s3cret"}',
        '{"type": "planted-s3cret", "data": {"planted-s3cret": 1}, "tenant": "planted-s3cret b"}',
        '{"planted-s3cret": 1, "planted-s3cret": 2}',
        "planted-s3cret",
        '{"type": "queue.call_lost", "tenant": "planted.example", "data": {"queue_number": "1", "caller_number": "1"}}',
    ]
    headers = {"webhook-id": PLANTED, "webhook-timestamp": "1", "webhook-signature": PLANTED, "User-Agent": PLANTED}
    for body in bodies:
        for secret in (key, signed.secret, f"pbx_{PLANTED}", PLANTED):
            assert call(client, secret, headers, body).status_code in {400, 401, 403, 422}
    ids = '{"type": "queue.call_lost", "id": "planted-s3cret", "data": {"queue_number": "%s", "caller_number": "1"}}'
    assert [call(client, key, {}, ids % each).status_code for each in (1, 2)] == [200, 409]
    with app.app_context():
        rows = repr(sql("SELECT rejected_calls::text FROM rejected_calls"))
    assert rows.count("conflict") == 1
    for shown in (rows, page(admin, "/tenants/acme.example/keys"), page(system, "/system/keys")):
        assert PLANTED not in shown
        assert "planted" not in shown
        assert key not in shown
        assert signed.secret not in shown


def test_rejected_calls_are_shown_to_the_keys_owner_alone(
    client: FlaskClient,
    admin: FlaskClient,
    system: FlaskClient,
    sign_in: SignIn,
    key: str,
    system_key: str,
    globex: str,
    ready: str,
) -> None:
    other = sign_in("admin@globex.example", administers=globex)
    call(client, key, {}, '{"type": "queue.call_lost", "tenant": "globex.example", "data": {}}')
    call(client, key, {"Content-Type": "text/plain"})
    call(client, system_key, {})
    call(client, "pbx_nobodys", {})
    own, theirs, systems = (
        page(admin, f"/tenants/{ready}/keys"),
        page(other, f"/tenants/{globex}/keys"),
        page(system, "/system/keys"),
    )
    assert ("Wrong media type" in own, "Wrong media type" in theirs, "Wrong media type" in systems) == (
        True,
        False,
        False,
    )
    assert ("Unknown key" in own, "Unknown key" in theirs, "Unknown key" in systems) == (False, False, True)
    assert "None in the last 7 days" in theirs
    assert "A system key must name the tenant" in systems
    assert "A system key must name the tenant" not in own


def test_a_flood_is_counted_and_hardly_written(
    app: Flask, client: FlaskClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "_tally", rejections.Tally("3 per hour", "5 per hour"))
    for number in range(20):
        call(client, f"pbx_{number}", {}, "x")
        call(client, key, {}, "x")
    with app.app_context():
        assert sum(each.count for each in rejected()) == 5
    monkeypatch.setattr(rejections, "_tally", rejections.Tally("3 per hour", "5 per hour"))
    for number in range(20):
        call(client, f"pbx_{number}", {}, "x")
    with app.app_context():
        assert sum(each.count for each in rejected()) == 5 + 3, "unknown keys are nobody's, and share what is one key's"


def test_what_a_flood_left_out_is_counted_with_the_next_one() -> None:
    tally, fold = rejections.Tally("2 per second", "100 per second"), rejections.Fold(1, 1, "invalid", None)
    counts: list[int] = []
    while sum(counts) < 10 or not counts[-1]:
        counts.append(tally.due(fold))
    assert sum(counts) == len(counts)
    assert 0 in counts


def test_who_sends_ever_new_faults_fills_no_disk(app: Flask, client: FlaskClient, key: str) -> None:
    for number in range(40):
        call(client, key, {}, '{"type": "queue.call_lost", "data": {}, "id": "%s"}' % ("x" * (200 + number)))
        call(client, key, {}, " " * number + "x")
        call(client, f"pbx_{number}", {"webhook-id": str(number)}, "x")
    with app.app_context():
        assert [(each.reason, each.count) for each in rejected()] == [
            ("invalid", 40),
            ("malformed", 40),
            ("unknown_key", 40),
        ]
        assert all(len(each.detail or "") <= rejections.LONGEST_DETAIL for each in rejected())


def test_they_are_gone_after_a_week(
    app: Flask, client: FlaskClient, admin: FlaskClient, post: Post, ready: str
) -> None:
    post("queue.call_lost", {})
    with app.app_context():
        sql("UPDATE rejected_calls SET hour = hour - interval '6 days 22 hours'")
        endings.purge()
        assert len(rejected()) == 1
        sql("UPDATE rejected_calls SET hour = hour - interval '3 hours', last_at = last_at - interval '8 days'")
        assert "Wrong fields" not in page(admin, f"/tenants/{ready}/keys")
        endings.purge()
        assert not rejected()


def test_a_new_key_is_not_kept_by_the_browser(admin: FlaskClient, acme: str) -> None:
    answer = submit(admin, f"/tenants/{acme}/keys", name="Main PBX", signed="y")
    assert "whsec_" in answer.get_data(as_text=True)
    assert answer.cache_control.no_store
    again = page(admin, f"/tenants/{acme}/keys")
    assert "whsec_" not in again
