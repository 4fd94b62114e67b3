"""Attacks on the audit trail: erasing or changing entries, reading those of others, injecting content."""

import csv
import json
from io import StringIO

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from portal.audit.log import Actor, record, set_actor
from portal.database import fast_sql
from portal.database.engine import ROLE
from portal.database.scope import enter_scope, every_tenant
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode
from portal.pbx import api_keys
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web.csv_export import as_text, lines
from tests.conftest import SignIn
from tests.pages import HTMX, PASSWORD, post
from tests.sql import sql
from tests.tenant_fixtures import entered

SECRETS = ("an old mail password", "a new mail password", PASSWORD, "a guessed password", "a rather new password")


@pytest.fixture
def tenant(context: Flask, acme: str) -> Tenant:
    """Acme, with an entry of its own and one of the system."""
    tenant = tenant_service.find(acme)
    assert tenant is not None
    api_keys.issue(None)
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
def test_the_application_cannot_change_or_delete_entries(tenant: Tenant, statement: str) -> None:
    before = sql("SELECT * FROM audit_entries ORDER BY id")
    with every_tenant(), pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        db.session.execute(text(statement))
    db.session.rollback()
    assert sql("SELECT * FROM audit_entries ORDER BY id") == before


def test_the_applications_role_may_only_insert_and_select(tenant: Tenant) -> None:
    with every_tenant():
        db.session.execute(text(f"GRANT ALL ON audit_entries TO {ROLE}, PUBLIC"))  # grants nothing
        db.session.commit()
    granted = "SELECT privilege_type FROM information_schema.role_table_grants WHERE table_name = 'audit_entries'"
    assert {each for (each,) in sql(f"{granted} AND grantee = :role", role=ROLE)} == {"SELECT", "INSERT"}
    assert sql(f"{granted} AND grantee = 'PUBLIC'") == []


def test_deleting_a_tenant_deletes_no_entries(tenant: Tenant) -> None:
    before = sql("SELECT count(*) FROM audit_entries")
    with every_tenant():
        db.session.delete(tenant)
        db.session.commit()
    assert sql("SELECT count(*) - 1 FROM audit_entries") == before  # the deletion itself is recorded
    enter_scope(tenant.id)
    db.session.execute(text("SELECT count(*) FROM audit_entries"))


@pytest.mark.parametrize("with_id", [True, False])
def test_the_scope_limits_reading_and_writing_of_entries(tenant: Tenant, globex: str, with_id: bool) -> None:
    other = tenant_service.find(globex)
    assert other is not None
    count = text("SELECT count(*) FROM audit_entries")
    assert db.session.scalar(count) == 0
    enter_scope(other.id)
    assert db.session.scalar(count) == 1
    assert fast_sql.run("SELECT count(*) AS seen FROM audit_entries", {}) == {"seen": 1}
    forged = text("""
        INSERT INTO audit_entries (id, created_at, tenant_id, actor, action, subject, changes)
        VALUES (gen_random_uuid(), now(), :tenant, 'root@pbx.example', 'tenant.suspended', '', '{}')
    """)
    with pytest.raises(ProgrammingError, match="row-level security"):
        db.session.execute(forged, {"tenant": tenant.id if with_id else None})


def test_tenant_administrators_see_neither_other_tenants_entries_nor_the_systems(
    app: Flask, admin: FlaskClient, acme: str, globex: str
) -> None:
    with app.app_context():
        api_keys.issue(tenant_service.find(globex))
        mail_server_service.save(None, entered(587, host="mail.of.the.system"))
        set_actor(lambda: Actor("root@pbx.example"))
        theirs = tenant_service.find(globex)
        assert theirs is not None
        tenant_service.suspend(theirs)
    for path in ("audit", "audit.csv", "audit?actor=root%40pbx.example", "audit.csv?actor=root%40pbx.example"):
        seen = admin.get(f"/tenants/{acme}/{path}").get_data(as_text=True).rpartition("</datalist>")[2]
        assert "?" in path or "added the tenant" in seen or "tenant.added" in seen
        for foreign in ("globex", "mail.of.the.system", "root@pbx.example", "suspended", "signed in", "signed_in"):
            assert foreign not in seen, path


def test_pages_of_other_tenants_do_not_exist(admin: FlaskClient, client: FlaskClient, globex: str) -> None:
    for path in (f"/tenants/{globex}/audit", f"/tenants/{globex}/audit.csv", "/system/audit", "/system/audit.csv"):
        for headers in ({}, HTMX):
            assert admin.get(path, headers=headers).status_code == 404
        assert client.get(path).status_code == 302


def test_the_id_of_another_tenants_entry_reveals_nothing(app: Flask, admin: FlaskClient, globex: str) -> None:
    with app.app_context():
        ((theirs,),) = sql("SELECT id FROM audit_entries WHERE subject = :domain", domain=globex)
    assert globex not in admin.get(f"/tenants/acme.example/audit?before={theirs}").get_data(as_text=True)


def test_entries_contain_no_secrets(app: Flask, sign_in: SignIn, acme: str, client: FlaskClient) -> None:
    admin = sign_in("admin@acme.example", administers=acme)
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        enter_scope(tenant.id)
        for password in SECRETS[:2]:
            mail_server_service.save(
                tenant.id, entered(587, auth_mode=AuthMode.AUTO, username="ann", password=password)
            )
        mail_server_service.remove(tenant.id)
        issued = api_keys.issue(tenant).secret
    post(client, "/sign-in", email="admin@acme.example", password=SECRETS[3])
    post(client, "/sign-in", email=SECRETS[3], password="")
    new = {"new_password": SECRETS[4], "new_password_confirm": SECRETS[4]}
    assert post(admin, "/account/password", None, htmx=False, password=PASSWORD, **new).status_code == 302
    with app.app_context():
        stored = str(sql("SELECT * FROM audit_entries"))
        hashes = sql("SELECT password, fs_uniquifier FROM accounts")[0]
    assert "'password': 'changed'" in stored
    for secret in (*SECRETS, issued, *hashes, "$argon2"):
        assert secret not in stored


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\N{FULLWIDTH EQUALS SIGN}1", "\xa0@x"]
)
def test_no_csv_cell_is_a_formula(cell: str) -> None:
    ((read,),) = csv.reader(StringIO(lines([[cell]]), newline=""))
    assert read == f"'{cell}"


def test_other_csv_cells_are_unchanged() -> None:
    for cell in (
        "ann@acme.example",
        "2026-11-23T10:00:00.000+00:00",
        "pbx_ab…",
        '{"host": [null, "=1"]}',
        "",
        "127.0.0.1",
    ):
        assert as_text(cell) == cell


def test_values_cannot_inject_html_or_formulas(app: Flask, system: FlaskClient, acme: str) -> None:
    evil = '=HYPERLINK("https://evil.example")"><script>alert(1)</script>\u202e'
    with app.app_context():
        tenant = tenant_service.find(acme)
        assert tenant is not None
        tenant_service.edit(tenant, evil, acme, "UTC")
        set_actor(lambda: Actor("=ann@acme.example"))
        record("tenant.suspended", evil, tenant_id=tenant.id)
        db.session.commit()
    page = system.get("/system/audit").get_data(as_text=True)
    assert "<script>alert" not in page
    assert "<bdi>=HYPERLINK" in page  # isolated, so that the mark at its end does not reverse the rest
    (row, *_) = csv.DictReader(StringIO(system.get("/system/audit.csv").get_data(as_text=True), newline=""))
    assert (row["actor"], row["subject"]) == ("'=ann@acme.example", f"'{evil}")
    assert json.loads(row["changes"]) == {}


def test_entries_contain_no_control_characters(app: Flask, system: FlaskClient, acme: str) -> None:
    values = {"name": "Acme\r\nroot@pbx.example signed in", "domain": acme, "time_zone": "UTC"}
    assert post(system, f"/system/tenants/{acme}", None, htmx=False, **values).status_code == 422
    line = ["tenants", "add", "Acme\x1b[2J", "--domain", "acme.test"]
    assert app.test_cli_runner().invoke(args=line).exit_code == 1
    with app.app_context():
        assert sql("SELECT 1 FROM audit_entries WHERE concat(actor, subject, changes) ~ '[[:cntrl:]]'") == []


def test_the_ip_address_is_not_taken_from_a_header(app: Flask, client: FlaskClient) -> None:
    token = client.get("/sign-in").get_data(as_text=True).partition('name="csrf_token" type="hidden" value="')[2]
    data = {"email": "eve@acme.example", "password": "guessed", "csrf_token": token.partition('"')[0]}
    client.post("/sign-in", data=data, headers={"X-Forwarded-For": "192.0.2.66"})
    with app.app_context():
        assert [each for (each,) in sql("SELECT ip_address FROM audit_entries")] == ["127.0.0.1"]


def test_the_actor_is_forgotten_after_the_request(app: Flask, admin: FlaskClient, acme: str) -> None:
    post(admin, f"/tenants/{acme}/keys", f"/tenants/{acme}/keys", name="Main PBX")
    with app.app_context():
        api_keys.issue(None)
        actors = sql("SELECT actor FROM audit_entries WHERE action = 'key.issued' ORDER BY id")
    assert [each for (each,) in actors] == ["admin@acme.example", "portal"]
