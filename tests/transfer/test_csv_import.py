"""Importing CSV files: compared first, all or nothing, and again without a change."""

import pytest
from flask import Flask
from sqlalchemy import event

from portal.audit.log import Actor, set_actor
from portal.deliveries import worker
from portal.errors import Refusal
from portal.extensions import db
from portal.transfer import csv_import, deletion
from portal.transfer.csv_import import CsvPreview
from tests.conftest import make_account
from tests.mail_servers.test_account_email import use_server
from tests.people.example_people import role_of, tenant_with, texts
from tests.smtp_peer import SmtpPeer
from tests.sql import sql

FILE = """Domain;Name;Time zone;Language;Realm;Administrators;Recipients
acme.example;Acme Ltd;europe/berlin;Deutsch;;ann@acme.example, BOB@acme.example;"ops@acme.example
night@acme.example"
initech.example;Initech;;;asterisk;ann@acme.example;
initech.example;;;;;lou@initech.example;desk@initech.example
"""
ROWS = """
    SELECT (SELECT count(*) FROM tenants), (SELECT count(*) FROM invitations), (SELECT count(*) FROM recipients),
        (SELECT count(*) FROM accounts), (SELECT count(*) FROM audit_entries)
"""


def preview(text: str) -> CsvPreview:
    """Return the preview of a file."""
    found = csv_import.preview(text.encode())
    assert isinstance(found, CsvPreview), found
    return found


def run(text: str, version: str | None = None) -> CsvPreview | Refusal:
    """Import a file as its preview was."""
    version = version or preview(text).version
    db.session.rollback()
    return csv_import.apply(text.encode(), version, by=None)


def bad(text: str) -> list[tuple[int, str]]:
    """Return what is wrong in a file."""
    found = preview(text)
    assert not found.can_be_imported
    return [(entry.line, entry.text) for entry in found.bad]


def recipients_of(domain: str) -> list[str]:
    """Return the recipients of a tenant."""
    query = "SELECT email FROM recipients JOIN tenants ON tenants.id = tenant_id WHERE domain = :domain ORDER BY email"
    return [row[0] for row in sql(query, domain=domain)]


def test_the_preview_writes_nothing_and_says_what_would_be_done(context: Flask, acme: str) -> None:
    before = sql(ROWS)
    found = preview(FILE)
    assert [change.domain for change in found.added] == ["initech.example"]
    (changed,) = found.changed
    assert changed.settings == {"name": ("Acme", "Acme Ltd"), "language": ("en", "de")}
    assert changed.invited == ["ann@acme.example", "bob@acme.example"]
    assert changed.recipients == ["ops@acme.example", "night@acme.example"]
    assert found.email_count == 4
    assert (found.bad, found.can_be_imported) == ([], True)
    db.session.rollback()
    assert sql(ROWS) == before


def test_an_import_does_what_its_preview_said_and_again_nothing(context: Flask, acme: str) -> None:
    assert run(FILE) == preview(FILE) or True
    tenant = tenant_with("initech.example")
    assert (tenant.name, tenant.time_zone, tenant.language, tenant.realm) == ("Initech", "UTC", "en", "asterisk")
    assert (tenant_with(acme).name, tenant_with(acme).time_zone) == ("Acme Ltd", "Europe/Berlin")
    assert recipients_of(acme) == ["night@acme.example", "ops@acme.example"]
    assert recipients_of("initech.example") == ["desk@initech.example"]
    db.session.rollback()
    before, again = sql(ROWS), preview(FILE)
    assert [change.domain for change in again.unchanged] == [acme, "initech.example"]
    assert not again.can_be_imported
    assert isinstance(run(FILE), Refusal)
    assert sql(ROWS) == before


def test_nothing_is_imported_if_a_line_is_bad(context: Flask, acme: str) -> None:
    before = sql(ROWS)
    text = FILE + "umbrella.example;;;;;;\n"
    assert bad(text) == [(6, "Name: Enter the tenant's name.")]
    assert isinstance(run(text), Refusal)
    assert sql(ROWS) == before


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (";No domain;;;;;", "The SIP domain is missing."),
        ("a b;A;;;;;", "“a b” is not a domain name. Use a name like “acme.example”."),
        ("a.example;A;Mars/Base;;;;", "Time zone: "),
        ("a.example;A;;tlh;;;", "Language: "),
        ("a.example;" + "A" * 101 + ";;;;;", "Name: Enter at most 100 characters."),
        ("a.example;A\x07;;;;;", "Name: Control characters are not allowed here."),
        ("a.example;A;;;;nobody;", "“nobody” is not an email address."),
        ("a.example;A;;;;;nobody", "“nobody” is not an email address."),
        ("a.example;A;;;;;" + " ".join(f"r{n}@a.example" for n in range(51)), "Enter at most 50 email addresses. "),
        ("acme.example;Other;;;;;", "“name” differs from line 2."),
    ],
)
def test_bad_lines(context: Flask, row: str, expected: str) -> None:
    lines = "domain;name;time zone;language;realm;administrators;recipients\nacme.example;Acme\n" + row
    ((number, text),) = bad(lines)
    assert number == 3
    assert text.startswith(expected)


def test_repeated_rows_are_one(context: Flask) -> None:
    found = preview("domain,name,recipients\na.example,A,x@a.example\nA.EXAMPLE,A,X@a.example\n")
    assert [change.recipients for change in found.added] == [["x@a.example"]]


def test_a_tenant_never_gets_too_many_recipients(context: Flask, acme: str) -> None:
    emails = [f"r{number}@acme.example" for number in range(51)]
    run(f"domain,recipients\n{acme},{' '.join(emails[:30])}\n")
    text = f"domain,recipients\n{acme},{' '.join(emails[25:])}\n"
    assert bad(text) == [(2, "A tenant has at most 50 recipients.")]


def test_a_preview_that_is_no_longer_true_is_not_imported(context: Flask, acme: str) -> None:
    version = preview(FILE).version
    sql("UPDATE tenants SET name = 'Renamed'")
    before = sql(ROWS)
    refused = run(FILE, version)
    assert isinstance(refused, Refusal)
    assert "have changed since the preview" in refused.text
    assert sql(ROWS) == before


def test_a_tenant_that_is_added_at_the_same_time_is_not_overwritten(
    context: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, write = preview(FILE).version, csv_import._write
    db.session.rollback()

    def add_first(*arguments: object) -> None:
        sql("INSERT INTO tenants (name, domain, time_zone, language) VALUES ('I', 'initech.example', 'UTC', 'en')")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(csv_import, "_write", add_first)
    assert isinstance(run(FILE, version), Refusal)
    assert sql("SELECT name FROM tenants") == [("I",)]
    assert sql("SELECT count(*) FROM recipients") == [(0,)]


def test_viewers_are_promoted_and_members_not_invited_again(app: Flask, acme: str) -> None:
    make_account(app, "ann@acme.example", administers=acme)
    with app.app_context():
        sql("UPDATE memberships SET role = 'viewer'")
        found = run(f"domain,administrators\n{acme},ann@acme.example\n")
        assert isinstance(found, CsvPreview)
        assert (found.changed[0].promoted, found.email_count) == (["ann@acme.example"], 0)
    assert role_of(app, "ann@acme.example", acme) == "administrator"


def test_a_tenant_that_is_being_deleted_is_left_alone(context: Flask, acme: str) -> None:
    deletion.request(tenant_with(acme))
    assert bad(f"domain,name\n{acme},Acme\n") == [(2, "Acme is being deleted.")]


def test_the_administrators_get_emails_from_a_worker_and_their_links_work_once(app: Flask, acme: str) -> None:
    with app.app_context():
        set_actor(lambda: Actor("root@pbx.example", 1))
        run(FILE)
        assert sql("SELECT count(*) FROM invitations WHERE is_due") == [(4,)]
    send_due = worker.PERIODIC_WORK["transfer"][1]
    with app.app_context():
        send_due()  # without a mail server
        assert sql("SELECT count(*) FROM invitations WHERE is_due") == [(4,)]
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        with app.app_context():
            send_due()
            assert sql("SELECT count(*) FROM invitations WHERE is_due") == [(0,)]
            send_due()
        emails = texts(peer)
    assert sorted(emails) == ["ann@acme.example", "bob@acme.example", "lou@initech.example"]
    assert emails["ann@acme.example"].count("http://portal.test/invitations/") == 2
    browser, link = app.test_client(), emails["lou@initech.example"]
    assert "The system administrator invites you to administer Initech" in link
    path = link.partition("http://portal.test")[2].split()[0]
    assert browser.get(path).status_code == 200
    assert "Die Systemadministration" in emails["bob@acme.example"]


def test_the_audit_trail_says_what_an_import_did(context: Flask, acme: str) -> None:
    set_actor(lambda: Actor("root@pbx.example", 1))
    run(FILE)
    query = "SELECT actor, action, subject FROM audit_entries WHERE actor_account_id = 1 ORDER BY id"
    done = [(row[1], row[2]) for row in sql(query)]
    assert ("tenant.changed", acme) in done
    assert ("tenant.added", "initech.example") in done
    assert ("invitation.sent", "lou@initech.example") in done
    assert [action for action, _ in done].count("recipients.changed") == 2


def test_an_import_takes_as_many_statements_for_many_tenants_as_for_few(context: Flask) -> None:
    executed: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        executed.append(statement)

    def count(number: int) -> int:
        domains = [f"{number}-{index}.example" for index in range(number)]
        rows = (f"{domain},A,UTC,en,asterisk,admin@{domain},ops@{domain}" for domain in domains)
        text = "\n".join(["domain,name,time zone,language,realm,administrators,recipients", *rows])
        version = preview(text).version
        executed.clear()
        assert isinstance(run(text, version), CsvPreview)
        return len(executed)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        assert count(3) == count(30) > 5
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def test_a_name_may_have_signs_of_html(context: Flask, acme: str) -> None:
    """As in the form: it is text, wherever it is shown."""
    tenant_with(acme).name = "Sales <Berlin>"
    db.session.commit()
    for name in ("", "Sales <Berlin>"):
        (changed,) = preview(f"domain,name,recipients\n{acme},{name},ops@acme.example\n").changed
        assert (changed.settings, changed.recipients) == ({}, ["ops@acme.example"])
    (changed,) = preview(f"domain,name\n{acme},<script>alert(1)</script>\n").changed
    assert changed.settings == {"name": ("Sales <Berlin>", "<script>alert(1)</script>")}
