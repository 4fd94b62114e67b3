"""Attacks on the audit trail: erase or change what was done, read what others did, plant something in it."""

import csv
import json
from io import StringIO

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from portal import statements
from portal.audit.entries import note
from portal.audit.who import Actor, act_as
from portal.comma_separated import as_text, lines
from portal.database import ROLE, enter_scope, every_tenant
from portal.extensions import db
from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode
from portal.pbx import keys
from portal.tenants import directory
from portal.tenants.models import Tenant
from tests.conftest import SignIn
from tests.pages import HTMX, PASSWORD, post
from tests.ready import entered
from tests.sql import sql

SECRETS = ("an old mail password", "a new mail password", PASSWORD, "a guessed password", "a rather new password")


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, with an entry of its own beside one of the system."""
    tenant = directory.find(acme)
    assert tenant is not None
    keys.issue(None)
    return tenant


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'somebody else'",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "DROP TABLE audit_entries",
        "ALTER TABLE audit_entries DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant_in_scope ON audit_entries",
        "CREATE RULE hide AS ON INSERT TO audit_entries DO INSTEAD NOTHING",
        "CREATE TRIGGER hide BEFORE INSERT ON audit_entries EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "INSERT INTO audit_entries SELECT * FROM audit_entries ON CONFLICT (id) DO UPDATE SET actor = 'somebody else'",
        "MERGE INTO audit_entries USING tenants ON true WHEN MATCHED THEN DELETE",
        "SELECT * FROM audit_entries FOR UPDATE",
    ],
)
def test_the_application_cannot_take_back_what_it_wrote(tenant: Tenant, statement: str) -> None:
    before = sql("SELECT * FROM audit_entries ORDER BY id")
    with every_tenant(), pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        db.session.execute(text(statement))
    db.session.rollback()
    assert sql("SELECT * FROM audit_entries ORDER BY id") == before


def test_its_role_may_add_and_read_and_nothing_else(tenant: Tenant) -> None:
    with every_tenant():
        db.session.execute(text(f"GRANT ALL ON audit_entries TO {ROLE}, PUBLIC"))  # of which it has nothing to give
        db.session.commit()
    granted = "SELECT privilege_type FROM information_schema.role_table_grants WHERE table_name = 'audit_entries'"
    assert {each for (each,) in sql(f"{granted} AND grantee = :role", role=ROLE)} == {"SELECT", "INSERT"}
    assert sql(f"{granted} AND grantee = 'PUBLIC'") == []


def test_deleting_the_tenant_deletes_no_history(tenant: Tenant) -> None:
    before = sql("SELECT count(*) FROM audit_entries")
    with every_tenant():
        db.session.delete(tenant)
        db.session.commit()
    assert sql("SELECT count(*) - 1 FROM audit_entries") == before  # and is told itself
    enter_scope(tenant.id)
    db.session.execute(text("SELECT count(*) FROM audit_entries"))


@pytest.mark.parametrize("with_id", [True, False])
def test_in_a_tenants_scope_nobody_reads_or_forges_for_others(tenant: Tenant, globex: str, with_id: bool) -> None:
    other = directory.find(globex)
    assert other is not None
    count = text("SELECT count(*) FROM audit_entries")
    assert db.session.scalar(count) == 0
    enter_scope(other.id)
    assert db.session.scalar(count) == 1
    assert statements.run("SELECT count(*) AS seen FROM audit_entries", {}) == {"seen": 1}
    forged = text("""
        INSERT INTO audit_entries (id, at, tenant_id, actor, action, subject, changes)
        VALUES (gen_random_uuid(), now(), :tenant, 'root@pbx.example', 'tenant.suspended', '', '{}')
    """)
    with pytest.raises(ProgrammingError, match="row-level security"):
        db.session.execute(forged, {"tenant": tenant.id if with_id else None})


def test_a_tenants_administrator_sees_neither_another_tenants_nor_the_systems(
    app: Flask, admin: FlaskClient, acme: str, globex: str
) -> None:
    with app.app_context():
        keys.issue(directory.find(globex))
        settings.save(None, entered(587, host="mail.of.the.system"))
        act_as(lambda: Actor("root@pbx.example"))
        theirs = directory.find(globex)
        assert theirs is not None
        directory.suspend(theirs)
    for path in ("audit", "audit.csv", "audit?person=root%40pbx.example", "audit.csv?person=root%40pbx.example"):
        seen = admin.get(f"/tenants/{acme}/{path}").get_data(as_text=True).rpartition("</datalist>")[2]
        assert "?" in path or "added the tenant" in seen or "tenant.added" in seen
        for foreign in ("globex", "mail.of.the.system", "root@pbx.example", "suspended", "signed in", "signed_in"):
            assert foreign not in seen, path


def test_pages_of_others_do_not_exist(admin: FlaskClient, client: FlaskClient, globex: str) -> None:
    for path in (f"/tenants/{globex}/audit", f"/tenants/{globex}/audit.csv", "/system/audit", "/system/audit.csv"):
        for headers in ({}, HTMX):
            assert admin.get(path, headers=headers).status_code == 404
        assert client.get(path).status_code == 302


def test_a_key_of_another_tenants_entry_leads_to_nothing_of_it(app: Flask, admin: FlaskClient, globex: str) -> None:
    with app.app_context():
        ((theirs,),) = sql("SELECT id FROM audit_entries WHERE subject = :domain", domain=globex)
    assert globex not in admin.get(f"/tenants/acme.example/audit?before={theirs}").get_data(as_text=True)


def test_no_secret_is_ever_in_an_entry(app: Flask, sign_in: SignIn, acme: str, client: FlaskClient) -> None:
    admin = sign_in("admin@acme.example", administers=acme)
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        for password in SECRETS[:2]:
            settings.save(tenant.id, entered(587, auth_mode=AuthMode.AUTO, username="ann", password=password))
        settings.remove(tenant.id)
        issued = keys.issue(tenant).secret
    post(client, "/sign-in", email="admin@acme.example", password=SECRETS[3])
    post(client, "/sign-in", email=SECRETS[3], password="")
    new = {"new_password": SECRETS[4], "new_password_confirm": SECRETS[4]}
    assert post(admin, "/account/password", None, htmx=False, password=PASSWORD, **new).status_code == 302
    with app.app_context():
        everything = str(sql("SELECT * FROM audit_entries"))
        hashes = sql("SELECT password, fs_uniquifier FROM accounts")[0]
    assert "'password': 'changed'" in everything
    for secret in (*SECRETS, issued, *hashes, "$argon2"):
        assert secret not in everything


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\N{FULLWIDTH EQUALS SIGN}1", "\xa0@x"]
)
def test_no_cell_of_csv_is_a_formula(cell: str) -> None:
    ((read,),) = csv.reader(StringIO(lines([[cell]]), newline=""))
    assert read == f"'{cell}"


def test_what_is_no_formula_stays_as_it_is() -> None:
    for cell in (
        "ann@acme.example",
        "2026-11-23T10:00:00.000+00:00",
        "pbx_ab…",
        '{"host": [null, "=1"]}',
        "",
        "127.0.0.1",
    ):
        assert as_text(cell) == cell


def test_a_planted_value_breaks_out_of_neither_page_nor_csv(app: Flask, system: FlaskClient, acme: str) -> None:
    evil = '=HYPERLINK("https://evil.example")"><script>alert(1)</script>\u202e'
    with app.app_context():
        tenant = directory.find(acme)
        assert tenant is not None
        directory.edit(tenant, evil, acme, "UTC")
        act_as(lambda: Actor("=ann@acme.example"))
        note("tenant.suspended", evil, tenant_id=tenant.id)
        db.session.commit()
    page = system.get("/system/audit").get_data(as_text=True)
    assert "<script>alert" not in page
    assert "<bdi>=HYPERLINK" in page  # apart, so that the mark at its end turns nothing around
    (row, *_) = csv.DictReader(StringIO(system.get("/system/audit.csv").get_data(as_text=True), newline=""))
    assert (row["actor"], row["subject"]) == ("'=ann@acme.example", f"'{evil}")
    assert json.loads(row["changes"]) == {}


def test_control_characters_reach_no_entry(app: Flask, system: FlaskClient, acme: str) -> None:
    values = {"name": "Acme\r\nroot@pbx.example signed in", "domain": acme, "time_zone": "UTC"}
    assert post(system, f"/system/tenants/{acme}", None, htmx=False, **values).status_code == 422
    line = ["tenants", "add", "Acme\x1b[2J", "--domain", "acme.test"]
    assert app.test_cli_runner().invoke(args=line).exit_code == 1
    with app.app_context():
        assert sql("SELECT 1 FROM audit_entries WHERE concat(actor, subject, changes) ~ '[[:cntrl:]]'") == []


def test_the_address_is_the_connections_and_not_a_headers(app: Flask, client: FlaskClient) -> None:
    token = client.get("/sign-in").get_data(as_text=True).partition('name="csrf_token" type="hidden" value="')[2]
    data = {"email": "eve@acme.example", "password": "guessed", "csrf_token": token.partition('"')[0]}
    client.post("/sign-in", data=data, headers={"X-Forwarded-For": "192.0.2.66"})
    with app.app_context():
        assert [each for (each,) in sql("SELECT from_address FROM audit_entries")] == ["127.0.0.1"]


def test_the_actor_ends_with_the_request(app: Flask, admin: FlaskClient, acme: str) -> None:
    post(admin, f"/tenants/{acme}/keys", f"/tenants/{acme}/keys", name="Main PBX")
    with app.app_context():
        keys.issue(None)
        actors = sql("SELECT actor FROM audit_entries WHERE action = 'key.issued' ORDER BY id")
    assert [each for (each,) in actors] == ["admin@acme.example", "portal"]
