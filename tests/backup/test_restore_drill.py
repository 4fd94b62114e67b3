"""The restore drill: a portal is backed up on one machine, and goes on on another one."""

from pathlib import Path

import psycopg
import pytest

from portal.database.scope import enter_scope
from portal.doctor.database_checks import tenant_tables
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from tests.authenticator import give_password, is_signed_in
from tests.backup.conftest import (
    ACME,
    ADMIN,
    DATABASE,
    GLOBEX,
    MAIL_PASSWORD,
    PASSPHRASE,
    Machine,
    Used,
    post_event,
    statuses,
)
from tests.operator import opened, pbx_portal

pytestmark = pytest.mark.slow


def test_the_portal_works_on_another_machine(old: Machine, new: Machine, used: Used, file: Path) -> None:
    done = pbx_portal(old.settings, "backup", str(file), "--with-keys", PORTAL_PASSPHRASE=PASSPHRASE)
    assert done.exit_code == 0, done.output
    assert "tenants: 2, accounts: 1, events: 2" in done.output
    assert file.stat().st_mode & 0o777 == 0o600
    environment = file.with_name("portal.env")
    done = pbx_portal(
        new.settings,
        *("restore", str(file), "--settings-to", str(environment)),
        without=("SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL"),
        PORTAL_PASSPHRASE=PASSPHRASE,
    )
    assert done.exit_code == 0, done.output
    assert environment.stat().st_mode & 0o777 == 0o600
    urls = {"DATABASE_URL": new.settings.database_url, "MIGRATION_DATABASE_URL": new.settings.migration_database_url}
    done = pbx_portal(
        new.settings,
        *("restore", str(file)),
        without=("SECRET_KEY", "ENCRYPTION_KEYS", "SMTP_ALLOWED_NETWORKS", "PORTAL_URL"),
        **{name: str(url) for name, url in urls.items()},
        PORTAL_ENV_FILE=str(environment),
    )
    assert done.exit_code == 0, done.output
    assert "All stored secrets can be decrypted." in done.output
    assert_works(new, used)


def assert_works(new: Machine, used: Used) -> None:
    with opened(new.settings) as app:
        browser = app.test_client()
        assert give_password(browser, ADMIN).status_code == 302
        assert is_signed_in(browser)
        assert browser.get(f"/tenants/{ACME}/deliveries").status_code == 200
        assert browser.get(f"/tenants/{GLOBEX}/deliveries").status_code == 404
        before = len(used.peer.messages)
        assert post_event(app, used.keys[ACME], "second") == "sent"
        assert len(used.peer.messages) == before + 1
        assert set(statuses(app, ACME)) == {"first", "second"}
        assert set(statuses(app, GLOBEX)) == {"first"}
        with app.app_context():
            added = tenant_service.add("Initech", "initech.example", "UTC")  # its ID comes from the restored sequence
            tenant = tenant_service.find(ACME)
            assert tenant
            assert isinstance(added, Tenant)
            assert added.id > tenant.id
            enter_scope(tenant.id)
            (server,) = db.session.query(MailServer).all()
            assert server.password == MAIL_PASSWORD
        assert_tenants_are_separate(new)


def assert_tenants_are_separate(machine: Machine) -> None:
    """As Postgres alone sees it: the login of the application, in the scope of a tenant, of none, and of every one."""
    url = machine.cluster.url(DATABASE)
    counts: dict[str, list[int]] = {}
    (acme,) = machine.run(f"SELECT id FROM tenants WHERE domain = '{ACME}'")
    with psycopg.connect(url, options="-c role=pbx_portal") as connection:
        for scope in ("", str(acme[0]), "0"):
            connection.execute("SELECT set_config('portal.tenant', %s, false)", [scope])
            for table in tenant_tables():
                row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
                assert row
                counts.setdefault(table, []).append(row[0])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("ALTER TABLE events DISABLE ROW LEVEL SECURITY")
    assert all(of_none == 0 and of_acme <= of_every for of_none, of_acme, of_every in counts.values()), counts
    assert counts["events"] == [0, 2, 3]
    assert counts["mail_servers"] == [0, 1, 2]


def test_a_machine_without_the_applications_role_gets_it(old: Machine, new: Machine, used: Used, file: Path) -> None:
    """The owner creates it if it may; only the login has to be a member then."""
    assert pbx_portal(old.settings, "backup", str(file), "--without-keys").exit_code == 0
    new.cluster.run("DROP ROLE pbx_portal")
    done = pbx_portal(new.settings, "restore", str(file))
    assert (done.exit_code, 'GRANT pbx_portal TO "portal"' in done.output) == (1, True), done.output
    new.cluster.run('GRANT pbx_portal TO "portal"')
    done = pbx_portal(new.settings, "restore", str(file))
    assert done.exit_code == 0, done.output
    assert_works(new, used)
