"""The pages of the audit trail: in words, narrowed, in pages by key, and as CSV."""

import csv
import re
from io import StringIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.audit import trail
from portal.audit.download import COLUMNS
from portal.audit.entries import note
from portal.audit.who import Actor, act_as
from portal.database import enter_scope
from portal.extensions import db
from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode
from portal.notifications import recipients
from portal.tenants import directory
from tests.pages import HTMX, post
from tests.ready import entered
from tests.sql import sql

SET_UP = (
    "ann@acme.example set up the mail server: Email Service Provider smtp; SMTP Server Address mail.old; "
    "SMTP Server Port 587; Encryption none; Authentication Mode auto; Username ann; Sender email pbx@acme.example; "
    "Password set"
)
TENANT, SYSTEM = "/tenants/acme.example/audit", "/system/audit"


def sentences(page: str) -> list[str]:
    """Return the entries of a page as people read them."""
    found = re.findall(r"<p><strong>.*?</p>", page, flags=re.S)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", each)).strip() for each in found]


def read(browser: FlaskClient, path: str, **arguments: Any) -> list[str]:
    return sentences(browser.get(path, query_string=arguments).get_data(as_text=True))


def download(browser: FlaskClient, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(browser.get(path).get_data(as_text=True))))


@pytest.fixture
def noted(app: Flask, acme: str) -> int:
    """Acme's id, with three things that were done there, by three."""
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        for number, name in enumerate(("ann@acme.example", "bob@acme.example", "command line (root)"), 1):
            act_as(lambda name=name: Actor(name, address="192.0.2.1"))  # type: ignore[misc]
            note("mail.discarded", f"{number} mails", tenant_id=tenant.id)
            db.session.commit()
        return tenant.id


def test_an_entry_is_read_in_the_readers_language_and_stored_in_english(
    app: Flask, admin: FlaskClient, acme: str
) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        act_as(lambda: Actor("ann@acme.example"))
        note("mail.sent_now", "2 mails", tenant_id=tenant.id, changes={"message_ids": [None, ["<1@a>", "<2@a>"]]})
        note("mail_server.changed", tenant_id=tenant.id, changes={"shared": [False, True], "password": "changed"})
        db.session.commit()
    assert read(admin, TENANT, person="ann@acme.example")[1].startswith("ann@acme.example had 2 mails sent now")
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    changed, sent = read(admin, TENANT, person="ann@acme.example")
    assert changed.startswith("ann@acme.example hat den Mailserver geändert: Einstellungen des Mailservers auf alle ")
    assert changed.endswith("anwenden aus → ein; Passwort geändert")
    assert sent.startswith("ann@acme.example hat 2 E-Mails jetzt senden lassen: Message-ID ")
    assert "Hat den Mailserver geändert" in admin.get(TENANT).get_data(as_text=True)
    assert {row["action"] for row in download(admin, f"{TENANT}.csv")} >= {"mail_server.changed", "mail.sent_now"}


def test_times_days_and_our_own_words_are_the_readers_too(app: Flask, admin: FlaskClient, acme: str) -> None:
    versions = {"version": ["default", "2026-03-01 23:30:00+00:00"]}
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        act_as(lambda: Actor("ann@acme.example"))
        note("template.used_version", "queue.call_lost", tenant_id=tenant.id, changes=versions)
        note("recipient.paused", "it@acme.example", tenant_id=tenant.id, changes={"until": [None, "2026-12-01"]})
        note("mail_server.tested", "the system administrator's mail server", tenant_id=tenant.id)
        db.session.commit()
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    tested, paused, used = read(admin, TENANT, person="ann@acme.example")
    assert tested.endswith("hat eine Test-E-Mail über den Mailserver der Systemadministration gesendet")
    assert paused.endswith("hat die E-Mails an it@acme.example pausiert: Bis 01.12.2026")
    assert used.endswith(" für queue.call_lost zurückgekehrt: Version Standard → 2. März 2026, 00:30")


def test_an_entry_is_read_at_a_glance(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        act_as(lambda: Actor("ann@acme.example", 7, "192.0.2.1"))
        signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
        settings.save(tenant.id, entered(587, host="mail.old", **signing_in, password="first one"))
        settings.save(tenant.id, entered(587, host="mail.new", **signing_in, password="other one"))
        recipients.replace(tenant, ["a@acme.example", "b@acme.example"])
        recipients.replace(tenant, ["b@acme.example", "c@acme.example"])
        directory.suspend(tenant)
    page = admin.get(TENANT).get_data(as_text=True)
    assert sentences(page)[:5] == [
        "ann@acme.example suspended the tenant acme.example",
        "ann@acme.example changed the recipients: added c@acme.example; removed a@acme.example",
        "ann@acme.example changed the recipients: added a@acme.example, b@acme.example",
        "ann@acme.example changed the mail server: SMTP Server Address mail.old → mail.new; Password changed",
        SET_UP,
    ]
    assert "192.0.2.1" in page


def test_the_system_reads_all_and_whose_it_is(system: FlaskClient, noted: int, globex: str) -> None:
    page = system.get(SYSTEM).get_data(as_text=True)
    for owner in ("acme.example", "globex.example", "System"):
        assert f'<td data-label="Tenant">{owner}</td>' in page
    assert "root@pbx.example signed in" in sentences(page)


def test_what_was_done_to_a_tenant_outlives_it(app: Flask, system: FlaskClient, noted: int) -> None:
    with app.app_context():
        sql("DELETE FROM tenants")
    assert f"No. {noted}" in system.get(SYSTEM).get_data(as_text=True)
    assert {each["tenant"] for each in download(system, f"{SYSTEM}.csv")} == {str(noted), ""}


def test_times_are_in_the_tenants_zone(app: Flask, admin: FlaskClient, system: FlaskClient, noted: int) -> None:
    with app.app_context():
        sql("UPDATE audit_entries SET at = '2026-03-01 23:30Z'")
    assert "2 Mar 2026, 00:30" in admin.get(TENANT).get_data(as_text=True)
    assert "1 Mar 2026, 23:30" in system.get(SYSTEM).get_data(as_text=True)


def test_it_is_narrowed_by_who_and_what(admin: FlaskClient, noted: int) -> None:
    ann, bob = "ann@acme.example discarded 1 mails", "bob@acme.example discarded 2 mails"
    assert read(admin, TENANT, person="ann@acme.example") == [ann]
    assert bob in read(admin, TENANT, action="mail.discarded")
    assert read(admin, TENANT, action="mail.discarded", person=" bob@acme.example ") == [bob]
    assert read(admin, TENANT, action="mail.sent_now") == []
    assert "Nothing found" in admin.get(TENANT, query_string={"person": "eve"}).get_data(as_text=True)


MOVE = """
    UPDATE audit_entries SET id = overlay(replace(id::text, '-', '') PLACING lpad(to_hex(
        (extract(epoch FROM timestamptz '2026-03-01Z' + interval '1 hour' * left(subject, 1)::int) * 1000)::bigint
    ), 12, '0') FROM 1)::uuid
    WHERE action = 'mail.discarded'
"""


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        ("", "2026-12-31T00:00", "321"),
        ("2026-03-01T03:00", "2026-03-02T00:00", "32"),  # Berlin: 02:00 UTC
        ("2026-03-01T03:01", "2026-03-02T00:00", "3"),
        ("2026-01-01T00:00", "2026-03-01T03:00", "21"),
        ("2026-01-01T00:00", "2026-03-01T02:59", "1"),
        ("0001-01-01T00:00", "0001-01-02T00:00", ""),
        ("9999-12-31T23:59", "9999-12-31T23:59", ""),
    ],
)
def test_it_is_narrowed_by_time(app: Flask, admin: FlaskClient, noted: int, since: str, until: str, days: str) -> None:
    with app.app_context():
        sql(MOVE)
    found = read(admin, TENANT, action="mail.discarded", since=since, until=until)
    assert [each.split(" discarded ")[1][0] for each in found] == list(days)


@pytest.mark.parametrize(
    "bad", [{"since": "yesterday"}, {"until": "2026-13-01T00:00"}, {"action": "tenant.eaten"}, {"person": "a\x00b"}]
)
def test_what_cannot_be_looked_for_is_told_at_the_field(admin: FlaskClient, acme: str, bad: dict[str, str]) -> None:
    answer = admin.get(TENANT, query_string=bad)
    assert answer.status_code == 422
    assert 'class="error"' in answer.get_data(as_text=True)
    assert sentences(answer.get_data(as_text=True)) == []
    assert admin.get(f"{TENANT}.csv", query_string=bad).status_code == 400


def test_pages_by_key(admin: FlaskClient, app: Flask, noted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "PAGE", 2)
    first = admin.get(TENANT, query_string={"action": "mail.discarded"}).get_data(as_text=True)
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    second = admin.get(older[1].replace("&amp;", "&")).get_data(as_text=True)
    seen = sentences(first) + sentences(second)
    assert [each.split(" discarded ")[1] for each in seen] == ["3 mails", "2 mails", "1 mails"]
    assert 'rel="next"' not in second
    assert 'rel="prev"' in second


def test_htmx_gets_the_list_alone(admin: FlaskClient, noted: int) -> None:
    answer = admin.get(TENANT, query_string={"person": "ann@acme.example"}, headers=HTMX).get_data(as_text=True)
    assert answer.lstrip().startswith('<div id="audit">')
    assert len(sentences(answer)) == 1


def test_csv_has_all_columns_and_the_same_filter(
    app: Flask, admin: FlaskClient, noted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "BATCH", 2)
    answer = admin.get(f"{TENANT}.csv")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == "attachment; filename=audit-trail-acme.example.csv"
    assert answer.is_streamed
    answer.close()
    whole = download(admin, f"{TENANT}.csv")
    # The tenant, its administrator and three mails; signing in is the system's.
    assert [each["action"] for each in whole] == [
        "mail.discarded",
        "mail.discarded",
        "mail.discarded",
        "membership.added",
        "tenant.added",
    ]
    (ann,) = download(admin, f"{TENANT}.csv?person=ann%40acme.example")
    assert tuple(ann) == COLUMNS
    assert (ann["tenant"], ann["from_address"], ann["subject"]) == ("acme.example", "192.0.2.1", "1 mails")
    assert whole[-1]["changes"].startswith('{"name": [null, "Acme"]')


def test_csv_holds_no_connection_while_somebody_reads(
    app: Flask, admin: FlaskClient, noted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "BATCH", 1)
    with app.app_context():
        free = db.engine.pool.checkedout()  # type: ignore[attr-defined]
        answer = admin.get(f"{TENANT}.csv")
        parts = iter(answer.response)
        for _ in range(3):
            next(parts)
        assert db.engine.pool.checkedout() == free  # type: ignore[attr-defined]
        answer.close()


def test_the_trail_is_the_last_in_the_navigation(admin: FlaskClient, system: FlaskClient, acme: str) -> None:
    for browser, path in ((admin, TENANT), (system, SYSTEM)):
        page = browser.get(path).get_data(as_text=True)
        entries = re.findall(r'<nav class="entries".*?</nav>', page, flags=re.S)[0]
        assert re.findall(r'<a href="([^"]+)"', entries)[-1] == path


def test_a_change_made_in_a_page_stands_in_the_trail(admin: FlaskClient, acme: str) -> None:
    post(admin, f"/tenants/{acme}/notifications", f"/tenants/{acme}/notifications/queue.call_lost", enabled="y")
    assert read(admin, TENANT)[0] == "admin@acme.example changed the notification queue.call_lost: Switch off → on"
