"""The commands: a script can set up a portal, and every error is one line and exit status 1."""

from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient

from portal import create_app
from portal.config import Settings
from portal.database.scope import enter_scope
from portal.events.types import EVENT_TYPES
from portal.mail_servers.service import effective_server, get_server
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.pbx import api_keys
from portal.pbx.rejection_reasons import RejectionReason
from portal.tenants import service as tenant_service
from tests.mail_servers.test_account_email import use_server, wait_for
from tests.pages import PASSWORD
from tests.people.example_people import role_of
from tests.smtp_peer import SmtpPeer

Run = Callable[..., Result]
SERVER = (
    "--host smtp.acme.example --port 587 --encryption starttls --auth auto --sender pbx@acme.example --username pbx"
)


@pytest.fixture
def run(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command as `pbx-portal` does."""
    monkeypatch.setenv("PORTAL_PASSWORD", PASSWORD)
    monkeypatch.setenv("PORTAL_MAIL_PASSWORD", "a mail password")

    def run(line: str, *arguments: str) -> Result:
        return app.test_cli_runner().invoke(args=[*line.split(), *arguments])

    return run


def test_a_script_can_set_up_a_portal(app: Flask, run: Run) -> None:
    for line in (
        "tenants add Acme --domain acme.example --time-zone Europe/Berlin",
        "accounts add root@pbx.example --system-admin",
        "accounts add admin@acme.example --tenant acme.example",
        f"mail-server set --system {SERVER}",
        f"mail-server set --tenant acme.example {SERVER}",
        "mail-server share on",
        "recipients set --tenant acme.example ops@acme.example night@acme.example",
        "notifications on --tenant acme.example all",
        "notifications off --tenant acme.example user.created",
    ):
        result = run(line)
        assert result.exit_code == 0, f"{line}: {result.output}"
    with app.app_context():
        tenant = tenant_service.find("acme.example")
        assert tenant is not None
        assert tenant.time_zone == "Europe/Berlin"
        enter_scope(tenant.id)
        assert recipients.list_emails() == ["ops@acme.example", "night@acme.example"]
        on = [name for name, switch in notifications_settings.settings_by_type(EVENT_TYPES).items() if switch.enabled]
        assert on == [name for name in EVENT_TYPES if name != "user.created"]
        own, system = effective_server(tenant.id), get_server(None)
        assert own is not None
        assert system is not None
        assert (own.tenant_id, own.password) == (tenant.id, "a mail password")
        assert system.shared


def test_an_issued_key_is_the_only_output_and_works_until_it_is_revoked(app: Flask, run: Run, acme: str) -> None:
    secret = run("keys issue --tenant acme.example").output
    assert secret.endswith("\n")
    with app.app_context():
        client = api_keys.authenticate(secret.strip())
        assert client
        assert client.rejected_for is None
    listed = run("keys list").output
    assert "acme.example" in listed
    assert secret.strip() not in listed
    assert run("keys revoke 1").exit_code == 0
    with app.app_context():
        client = api_keys.authenticate(secret.strip())
        assert client
        assert client.rejected_for is RejectionReason.REVOKED_KEY
    assert "revoked" in run("keys list").output


def test_a_key_has_a_name_a_signing_secret_and_an_expiry_date(app: Flask, run: Run, acme: str) -> None:
    line = "keys issue --tenant acme.example --expires 2090-01-31 --signed --name"
    key, secret = run(line, "Main PBX").output.split()
    assert (key[:4], secret[:6]) == ("pbx_", "whsec_")
    assert "acme.example\tMain PBX\tunused 2090-01-31\tnever used" in run("keys list").output
    successor = run("keys rotate 1 --hours 1 --expires 2091-01-31").output.strip()
    renewed = run("keys renew-secret 2").output.strip()
    listed = run("keys list").output
    assert listed.count("Main PBX") == 2
    assert "expiring" in listed
    assert not {key, secret, successor, renewed} & set(listed.split())
    with app.app_context():
        found = api_keys.authenticate(successor)
        assert found
        assert (found.signing_secrets, found.rejected_for) == ((renewed, secret), None)
        first = api_keys.authenticate(key)
        assert first
        assert first.rejected_for is None


def test_a_system_key_belongs_to_the_system(run: Run) -> None:
    assert run("keys issue --system").exit_code == 0
    assert "\tsystem\t" in run("keys list").output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tenants add Acme --domain acme.example --time-zone Mars/Base", "Time zone"),
        ("tenants add Acme --domain b!d", "SIP domain"),
        ("tenants add Again --domain acme.example", "Another tenant"),
        ("tenants add Acme", "--domain"),
        ("accounts add root@pbx.example", "--system-admin"),
        ("accounts add root@pbx.example --tenant nobody.example", "no tenant"),
        ("accounts add nonsense --system-admin", "not an email address"),
        ("keys issue", "--system"),
        ("keys issue --system --tenant acme.example", "--system"),
        ("keys issue --system --expires yesterday", "2027-01-31"),
        ("keys issue --system --expires 2020-01-01", "is over"),
        ("keys rotate 7", "no key"),
        ("keys rotate 7 --hours 5", "24"),
        ("keys renew-secret 7", "no key"),
        ("keys revoke 7", "no key"),
        ("keys revoke seven", "seven"),
        (f"mail-server set --system {SERVER.replace('587', '70000')}", "65535"),
        (f"mail-server set --system {SERVER.replace('587', '0')}", "65535"),
        (f"mail-server set --system {SERVER.replace('starttls', 'rot13')}", "rot13"),
        (f"mail-server set --tenant nobody.example {SERVER}", "no tenant"),
        ("mail-server share on", "first"),
        ("recipients set --tenant acme.example nonsense", "not an email address"),
        ("recipients set --tenant acme.example " + " ".join(f"a{n}@acme.example" for n in range(51)), "at most 50"),
        ("notifications on --tenant acme.example queue.exploded", "queue.exploded"),
        ("tenants explode", "explode"),
        ("accounts unlock \udcff@acme.example", "There is no account"),  # not UTF-8
    ],
)
def test_an_error_is_one_line_and_status_1(run: Run, acme: str, line: str, expected: str) -> None:
    result = run(line)
    assert result.exit_code == 1
    assert expected in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_password_is_asked_for_if_the_environment_has_none(
    app: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTAL_PASSWORD")
    typed = f"{PASSWORD}\n{PASSWORD}\n"
    result = app.test_cli_runner().invoke(args=["accounts", "add", "root@pbx.example", "--system-admin"], input=typed)
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output


def test_an_unreachable_database_is_reported_in_one_line(settings: Settings) -> None:
    unreachable = settings.model_copy(
        update={"database_url": "postgresql+psycopg://127.0.0.1:1/portal?connect_timeout=1"}
    )
    for line in ("keys list", "keys issue --system", "tenants add Acme --domain acme.example"):
        result = create_app(unreachable).test_cli_runner().invoke(args=line.split())
        assert result.exit_code == 1
        assert result.output.strip() == "Error: The database does not respond."


def test_roles_can_be_removed(run: Run, system: FlaskClient, admin: FlaskClient, acme: str) -> None:
    assert run(f"accounts remove-role admin@acme.example --tenant {acme}").exit_code == 0
    assert admin.get(f"/tenants/{acme}/deliveries").status_code == 404
    last = run("accounts remove-role root@pbx.example --system-admin")
    assert (last.exit_code, "last active system administrator" in last.output) == (1, True)
    assert run("accounts deactivate root@pbx.example").exit_code == 1
    assert run("accounts add second@pbx.example --system-admin").exit_code == 0
    assert run("accounts remove-role root@pbx.example --system-admin").exit_code == 0
    assert system.get("/system/tenants").status_code == 404
    assert run("accounts remove-role nobody@acme.example --system-admin").exit_code == 1


def test_a_password_changed_by_command_follows_the_rules(
    run: Run, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAL_PASSWORD", "short")
    result = run("accounts change-password admin@acme.example")
    assert (result.exit_code, result.output) == (1, "Error: A password needs at least 10 characters.\n")


def test_a_viewer_is_added_and_a_changed_password_is_emailed(app: Flask, run: Run, acme: str) -> None:
    assert run(f"accounts add bob@acme.example --tenant {acme} --viewer").output == f"bob@acme.example views {acme}.\n"
    again = run(f"accounts add bob@acme.example --tenant {acme}")
    assert again.output == f"bob@acme.example administers {acme}.\n"
    assert role_of(app, "bob@acme.example", acme) == "administrator"
    with SmtpPeer() as peer:
        use_server(app, peer.port)
        assert run("accounts change-password bob@acme.example").exit_code == 0
        assert run("accounts reset-two-factor bob@acme.example").exit_code == 0
        wait_for(lambda: len(peer.messages) == 2)
        assert b"http://portal.test/forgotten-password" in peer.messages[0].content


def test_a_deactivated_account_is_signed_out_and_blocked(run: Run, admin: FlaskClient, acme: str) -> None:
    page = f"/tenants/{acme}/overview"
    assert admin.get(page).status_code == 200
    assert run("accounts deactivate admin@acme.example").exit_code == 0
    assert admin.get(page).status_code == 302
    assert run("accounts activate admin@acme.example").exit_code == 0
    assert admin.get(page).status_code == 302, "its sessions stay ended"
    assert run("accounts deactivate nobody@acme.example").output == "Error: There is no account nobody@acme.example.\n"


def test_accounts_are_managed_by_one_group_of_commands(app: Flask) -> None:
    assert {"accounts", "users", "roles"} & set(app.cli.commands) == {"accounts"}
