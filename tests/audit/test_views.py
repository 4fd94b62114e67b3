"""The pages of the audit trail: sentences, filters, pagination and CSV."""

import csv
import re
from contextlib import ExitStack
from io import StringIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.audit.log import Actor, record, set_actor
from portal.audit.views import CSV_COLUMNS, _value_labels
from portal.database.scope import enter_scope
from portal.events.storm_digest import ALL_EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth.identity_providers import PROVIDERS_BY_KEY, GrantType
from portal.mail_servers.providers import PROVIDERS
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.mail_templates.source import TemplateFormat
from portal.notifications import recipients
from portal.notifications.settings import Audience
from portal.tenants import service as tenant_service
from portal.web import csv_export, pagination
from portal.web.i18n import LANGUAGES
from tests.pages import HTMX, post
from tests.sql import sql
from tests.tenant_fixtures import entered

SET_UP = (
    "ann@acme.example set up the mail server: Email Service Provider Generic SMTP; SMTP Server Address mail.old; "
    "SMTP Server Port 587; Encryption None; Authentication Mode Auto; Username ann; Sender email pbx@acme.example; "
    "Password set"
)
TENANT, SYSTEM = "/tenants/acme.example/audit", "/system/audit"


def sentences(page: str) -> list[str]:
    """Return the text of each entry on a page."""
    paragraphs = re.findall(r"<p><strong>.*?</p>", page, flags=re.S)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", paragraph)).strip() for paragraph in paragraphs]


def read(browser: FlaskClient, path: str, **arguments: Any) -> list[str]:
    return sentences(browser.get(path, query_string=arguments).get_data(as_text=True))


def download(browser: FlaskClient, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(browser.get(path).get_data(as_text=True))))


@pytest.fixture
def tenant_id(app: Flask, acme: str) -> int:
    """The id of Acme, where three people have each discarded emails."""
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        for number, name in enumerate(("ann@acme.example", "bob@acme.example", "command line (root)"), 1):
            set_actor(lambda name=name: Actor(name, ip_address="192.0.2.1"))  # type: ignore[misc]
            record("mail.discarded", f"{number} emails", tenant_id=tenant.id)
            db.session.commit()
        return tenant.id


def test_entries_are_shown_in_the_readers_language_and_stored_in_english(
    app: Flask, admin: FlaskClient, acme: str
) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        set_actor(lambda: Actor("ann@acme.example"))
        record("mail.sent_now", "2 emails", tenant_id=tenant.id, changes={"message_ids": [None, ["<1@a>", "<2@a>"]]})
        record("mail_server.changed", tenant_id=tenant.id, changes={"shared": [False, True], "password": "changed"})
        db.session.commit()
    assert read(admin, TENANT, actor="ann@acme.example")[1].startswith(
        "ann@acme.example released 2 emails to be sent now"
    )
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    changed, sent = read(admin, TENANT, actor="ann@acme.example")
    assert changed.startswith("ann@acme.example hat den Mailserver geändert: Einstellungen des Mailservers auf alle ")
    assert changed.endswith("anwenden aus → ein; Passwort geändert")
    assert sent.startswith("ann@acme.example hat das Senden von 2 E-Mails ausgelöst: Message-ID ")
    assert "Hat den Mailserver geändert" in admin.get(TENANT).get_data(as_text=True)
    assert {row["action"] for row in download(admin, f"{TENANT}.csv")} >= {"mail_server.changed", "mail.sent_now"}


def test_times_days_and_stored_texts_are_translated(app: Flask, admin: FlaskClient, acme: str) -> None:
    versions = {"version": ["default", "2026-03-01 23:30:00+00:00"]}
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        set_actor(lambda: Actor("ann@acme.example"))
        record("template.used_version", "queue.call_lost", tenant_id=tenant.id, changes=versions)
        record("recipient.paused", "it@acme.example", tenant_id=tenant.id, changes={"until": [None, "2026-12-01"]})
        record("mail_server.tested", "the system administrator's mail server", tenant_id=tenant.id)
        db.session.commit()
    admin.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    tested, paused, used = read(admin, TENANT, actor="ann@acme.example")
    assert tested.endswith("hat eine Test-E-Mail über den Mailserver der Systemadministration angefordert")
    assert paused.endswith("hat die E-Mails an it@acme.example pausiert: Bis 01.12.2026")
    template = "für „Ein Anruf in einer Warteschlange ging verloren“ wiederhergestellt"
    assert used.endswith(f" {template}: Version Standard → 2. März 2026, 00:30")


def test_entries_are_sentences(app: Flask, admin: FlaskClient, acme: str) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        set_actor(lambda: Actor("ann@acme.example", 7, "192.0.2.1"))
        signing_in = {"auth_mode": AuthMode.AUTO, "username": "ann"}
        mail_server_service.save(tenant.id, entered(587, host="mail.old", **signing_in, password="first one"))
        mail_server_service.save(tenant.id, entered(587, host="mail.new", **signing_in, password="other one"))
        recipients.replace(tenant, ["a@acme.example", "b@acme.example"])
        recipients.replace(tenant, ["b@acme.example", "c@acme.example"])
        tenant_service.suspend(tenant)
    page = admin.get(TENANT).get_data(as_text=True)
    assert sentences(page)[:5] == [
        "ann@acme.example suspended the tenant acme.example",
        "ann@acme.example changed the recipients: added c@acme.example; removed a@acme.example",
        "ann@acme.example changed the recipients: added a@acme.example, b@acme.example",
        "ann@acme.example changed the mail server: SMTP Server Address mail.old → mail.new; Password changed",
        SET_UP,
    ]
    assert "192.0.2.1" in page


def test_system_administrators_see_all_entries(system: FlaskClient, tenant_id: int, globex: str) -> None:
    page = system.get(SYSTEM).get_data(as_text=True)
    for owner in ("acme.example", "globex.example", "System"):
        assert f'<td data-label="Tenant">{owner}</td>' in page
    assert "root@pbx.example signed in" in sentences(page)


def test_entries_about_a_tenant_outlive_it(app: Flask, system: FlaskClient, tenant_id: int) -> None:
    with app.app_context():
        sql("DELETE FROM tenants")
    assert f"No. {tenant_id}" in system.get(SYSTEM).get_data(as_text=True)
    assert {each["tenant"] for each in download(system, f"{SYSTEM}.csv")} == {str(tenant_id), ""}


def test_times_are_in_the_time_zone(app: Flask, admin: FlaskClient, system: FlaskClient, tenant_id: int) -> None:
    with app.app_context():
        sql("UPDATE audit_entries SET created_at = '2026-03-01 23:30Z'")
    assert "2 Mar 2026, 00:30" in admin.get(TENANT).get_data(as_text=True)
    assert "1 Mar 2026, 23:30" in system.get(SYSTEM).get_data(as_text=True)


def test_filter_by_actor_and_action(admin: FlaskClient, tenant_id: int) -> None:
    ann, bob = "ann@acme.example discarded 1 emails", "bob@acme.example discarded 2 emails"
    assert read(admin, TENANT, actor="ann@acme.example") == [ann]
    assert bob in read(admin, TENANT, action="mail.discarded")
    assert read(admin, TENANT, action="mail.discarded", actor=" bob@acme.example ") == [bob]
    assert read(admin, TENANT, action="mail.sent_now") == []
    assert "Nothing found" in admin.get(TENANT, query_string={"actor": "eve"}).get_data(as_text=True)


MOVE_TO_MARCH = """
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
def test_filter_by_time(app: Flask, admin: FlaskClient, tenant_id: int, since: str, until: str, days: str) -> None:
    with app.app_context():
        sql(MOVE_TO_MARCH)
    entries = read(admin, TENANT, action="mail.discarded", since=since, until=until)
    assert [entry.split(" discarded ")[1][0] for entry in entries] == list(days)


@pytest.mark.parametrize(
    "filters", [{"since": "yesterday"}, {"until": "2026-13-01T00:00"}, {"action": "tenant.eaten"}, {"actor": "a\x00b"}]
)
def test_invalid_filters_are_marked(admin: FlaskClient, acme: str, filters: dict[str, str]) -> None:
    answer = admin.get(TENANT, query_string=filters)
    assert answer.status_code == 422
    assert 'class="error"' in answer.get_data(as_text=True)
    assert sentences(answer.get_data(as_text=True)) == []
    assert admin.get(f"{TENANT}.csv", query_string=filters).status_code == 400


def test_pagination(admin: FlaskClient, app: Flask, tenant_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 2)
    first = admin.get(TENANT, query_string={"action": "mail.discarded"}).get_data(as_text=True)
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    second = admin.get(older[1].replace("&amp;", "&")).get_data(as_text=True)
    seen = sentences(first) + sentences(second)
    assert [each.split(" discarded ")[1] for each in seen] == ["3 emails", "2 emails", "1 emails"]
    assert 'rel="next"' not in second
    assert 'rel="prev"' in second


def test_htmx_gets_only_the_list(admin: FlaskClient, tenant_id: int) -> None:
    answer = admin.get(TENANT, query_string={"actor": "ann@acme.example"}, headers=HTMX).get_data(as_text=True)
    assert answer.lstrip().startswith('<div id="audit">')
    assert len(sentences(answer)) == 1


def test_csv_has_all_columns_and_uses_the_same_filters(
    app: Flask, admin: FlaskClient, tenant_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_export, "BATCH_SIZE", 2)
    answer = admin.get(f"{TENANT}.csv")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == "attachment; filename=audit-trail-acme.example.csv"
    assert answer.content_length == len(answer.data)
    answer.close()
    rows = download(admin, f"{TENANT}.csv")
    # The tenant, its administrator and three discarded emails. The sign-in belongs to the system.
    assert [each["action"] for each in rows] == [
        "mail.discarded",
        "mail.discarded",
        "mail.discarded",
        "membership.added",
        "tenant.added",
    ]
    (ann,) = download(admin, f"{TENANT}.csv?actor=ann%40acme.example")
    assert tuple(ann) == CSV_COLUMNS
    assert (ann["tenant"], ann["ip_address"], ann["subject"]) == ("acme.example", "192.0.2.1", "1 emails")
    assert (ann["what"], rows[-2]["what"]) == (
        "ann@acme.example discarded 1 emails",
        "portal gave admin@acme.example access to the tenant: Role Administrator",
    )
    assert rows[-1]["changes"].startswith('{"name": [null, "Acme"]')


def test_csv_is_complete_before_it_is_sent(app: Flask, admin: FlaskClient, tenant_id: int) -> None:
    with app.app_context():
        before = db.engine.pool.checkedout()  # type: ignore[attr-defined]
        answer = admin.get(f"{TENANT}.csv")
        assert db.engine.pool.checkedout() == before  # type: ignore[attr-defined]
        sql("DELETE FROM audit_entries")
        assert answer.text.count("\n") == 6
        answer.close()


@pytest.mark.parametrize(("others", "status"), [({1}, 429), ({2, 3}, 200), ({2, 3, 4}, 429)])
def test_few_files_are_made_at_a_time(
    app: Flask, admin: FlaskClient, tenant_id: int, others: set[int], status: int
) -> None:
    with ExitStack() as held:
        with app.app_context():
            for other in others:
                held.enter_context(csv_export.DOWNLOADS.hold(other))
        for _ in range(2):
            answer = admin.get(f"{TENANT}.csv")
            assert answer.status_code == status
            assert ("Other files are being prepared." in answer.text) == (status == 429)


@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 100), ("MIN_FREE_BYTES", 1 << 60)])
def test_a_file_that_would_be_too_large_or_fill_the_disk_is_refused(
    admin: FlaskClient, tenant_id: int, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(csv_export, limit, value)
    answer = admin.get(f"{TENANT}.csv")
    assert answer.status_code == 413
    assert "The file would be too large" in answer.text
    assert "choose a shorter time span" in answer.text


def test_the_audit_trail_is_last_in_the_navigation(admin: FlaskClient, system: FlaskClient, acme: str) -> None:
    for browser, path in ((admin, TENANT), (system, SYSTEM)):
        page = browser.get(path).get_data(as_text=True)
        entries = re.findall(r'<nav class="entries".*?</nav>', page, flags=re.S)[0]
        assert re.findall(r'<a href="([^"]+)"', entries)[-1] == path


def test_a_change_made_on_a_page_is_recorded(admin: FlaskClient, acme: str) -> None:
    post(admin, f"/tenants/{acme}/notifications", f"/tenants/{acme}/notifications/queue.call_lost", enabled="y")
    assert read(admin, TENANT)[0] == (
        "admin@acme.example changed the notification “When a queue call is lost”: Enabled off → on"
    )


def test_a_system_administrator_filters_by_tenant(system: FlaskClient, tenant_id: int, globex: str, acme: str) -> None:
    assert len(read(system, SYSTEM, tenant="Acme.example", action="mail.discarded")) == 3
    assert read(system, SYSTEM, tenant=globex, action="mail.discarded") == []
    assert {row["tenant"] for row in download(system, f"/system/audit.csv?tenant={acme}")} == {acme}
    answer = system.get(SYSTEM, query_string={"tenant": "nobody.example"})
    assert answer.status_code == 422
    assert "There is no tenant with this SIP domain." in answer.get_data(as_text=True)
    assert system.get("/system/audit.csv?tenant=nobody.example").status_code == 400


def test_a_tenants_own_trail_has_no_such_filter(admin: FlaskClient, tenant_id: int, globex: str) -> None:
    page = admin.get(TENANT, query_string={"tenant": globex, "action": "mail.discarded"}).get_data(as_text=True)
    assert len(sentences(page)) == 3
    assert 'name="tenant"' not in page


def test_a_list_shows_what_was_added_and_removed_in_the_words_of_the_pages(
    app: Flask, admin: FlaskClient, acme: str
) -> None:
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        set_actor(lambda: Actor("ann@acme.example"))
        events = [["queue.call_lost", "user.created"], ["queue.call_lost", "queue.callback_failed"]]
        record("recipient.events_chosen", "it@acme.example", tenant_id=tenant.id, changes={"events": events})
        many = [f"{number}@acme.example" for number in range(12)]
        record("recipients.changed", tenant_id=tenant.id, changes={"recipients": [["0@acme.example"], many]})
        record("notification.changed", "user.created", tenant_id=tenant.id, changes={"audience": ["both", "user"]})
        db.session.commit()
    notification, changed, chosen = read(admin, TENANT, actor="ann@acme.example")
    assert chosen == (
        "ann@acme.example chose which events it@acme.example gets: added When the queue callback is unsuccessful; "
        "removed A new user was created"
    )
    assert changed.endswith("added 1@acme.example, " + ", ".join(many[2:11]) + " and 1 more")
    assert notification.endswith("“A new user was created”: Send it to The recipients and the new user → The new user")


def test_each_value_of_a_choice_has_the_label_of_its_page(app: Flask) -> None:
    with app.test_request_context():
        labels = _value_labels()
    for field, values in {
        "provider": [*PROVIDERS, *PROVIDERS_BY_KEY],
        "encryption": [*Encryption],
        "auth_mode": [*AuthMode],
        "audience": [*Audience],
        "format": [*TemplateFormat],
        "grant_type": [*GrantType],
        "language": [*LANGUAGES],
        "event_type": [*ALL_EVENT_TYPES],
    }.items():
        assert set(values) <= set(labels[field]), field
