"""The commands about many tenants, as an operator types them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from portal.tenants import service as tenant_service
from tests.conftest import make_sealing_cheap
from tests.people.example_people import tenant_with
from tests.sql import sql
from tests.transfer.test_csv_import import FILE

Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command. What it may ask is answered with `typed`."""
    monkeypatch.setenv("PORTAL_PASSPHRASE", "four words are enough")
    make_sealing_cheap(monkeypatch)

    def run(line: str, *, typed: str | None = None) -> Result:
        return app.test_cli_runner().invoke(args=["tenants", *line.split()], input=typed)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A CSV file in UTF-16, as Excel writes it."""
    path = tmp_path / "tenants.csv"
    path.write_bytes(FILE.replace(";", "\t").encode("utf-16"))
    return path


def test_the_list_is_a_table_json_or_csv(app: Flask, run: Run, acme: str, globex: str) -> None:
    with app.app_context():
        sql("UPDATE tenants SET name = '=cmd()' WHERE domain = :domain", domain=globex)
    table = run("list").output.splitlines()
    assert table[0].split() == ["name", "domain", "health", "mail_server", "held", "last_event_at"]
    assert [line.split()[:3] for line in table[1:]] == [["=cmd()", globex, "unused"], ["Acme", acme, "unused"]]
    assert [row["domain"] for row in json.loads(run("list --json").stdout)] == [globex, acme]
    assert f"\n{globex},'=cmd(),unused" in run("list --csv").output


def test_suspend_and_resume(app: Flask, run: Run, acme: str) -> None:
    assert run(f"suspend {acme}").output == "acme.example is suspended.\n"
    with app.app_context():
        assert tenant_with(acme).is_suspended
    assert run(f"resume {acme}").output == "acme.example is active.\n"
    with app.app_context():
        assert not tenant_with(acme).is_suspended
    unknown = run("suspend nobody.example")
    assert (unknown.exit_code, unknown.output) == (1, "Error: There is no tenant with the domain nobody.example.\n")


def test_a_csv_file_is_previewed_and_imported_once(app: Flask, run: Run, acme: str, file: Path) -> None:
    shown = run(f"import {file} --preview")
    assert shown.output.splitlines() == [
        (
            "add initech.example: name - -> Initech; time_zone - -> UTC; language - -> en; realm - -> asterisk; "
            "invite ann@acme.example lou@initech.example; recipients desk@initech.example"
        ),
        (
            "change acme.example: name Acme -> Acme Ltd; language en -> de; "
            "invite ann@acme.example bob@acme.example; recipients ops@acme.example night@acme.example"
        ),
        "1 new, 1 changed, 0 unchanged. 4 invitations by email.",
    ]
    asked = run(f"import {file}", typed="n\n")
    assert (asked.exit_code, "Nothing was imported." in asked.output) == (1, True)
    with app.app_context():
        assert tenant_service.find("initech.example") is None
    assert run(f"import {file} --yes").output.endswith("\nImported.\n")
    again = run(f"import {file} --yes")
    assert (again.exit_code, again.output) == (0, "0 new, 0 changed, 2 unchanged. 0 invitations by email.\n")
    with app.app_context():
        assert sql("SELECT invited_by FROM invitations LIMIT 1")[0][0] == "The system administrator"
        actors = {row[0] for row in sql("SELECT actor FROM audit_entries WHERE action = 'invitation.sent'")}
        assert all(actor.startswith("command line (") for actor in actors)


def test_bad_lines_are_printed_with_their_numbers(run: Run, acme: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("domain,name\nx.example,\ny.example,Y\n")
    result = run(f"import {path} --yes")
    assert result.exit_code == 1
    assert "line 2: Name: Enter the tenant's name." in result.output
    assert "Error: 1 line cannot be used. Nothing was imported." in result.output


def test_the_list_as_csv_can_be_imported_and_changes_nothing(run: Run, acme: str, globex: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(run("list --csv").output)
    assert "0 new, 0 changed, 2 unchanged." in run(f"import {path}").output


def test_a_tenant_is_exported_deleted_and_imported_again(app: Flask, run: Run, acme: str, tmp_path: Path) -> None:
    path = tmp_path / "acme.json"
    assert run(f"export {acme} --output {path}").output == f"acme.example was exported to {path}.\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert run(f"import {path} --yes").output == "Error: There is a tenant with the SIP domain acme.example already.\n"
    assert run(f"delete {acme}", typed="globex.example\n").exit_code == 1
    deleted = run(f"delete {acme}", typed="acme.example\n")
    assert deleted.stdout.splitlines() == [
        "Now: 0 events, 0 emails, 0 recipients, 0 keys, 0 people.",
        "Type acme.example to delete it: acme.example",
        "Left: 0 events, 0 emails, 0 recipients, 0 keys, 0 people.",
        "acme.example was deleted.",
    ]
    with app.app_context():
        assert tenant_service.find(acme) is None
    shown = run(f"import {path} --preview")
    assert (shown.exit_code, shown.output.endswith("\nAdministrators: -.\n")) == (0, True), shown.output
    assert run(f"import {path} --yes").output.endswith("acme.example was imported with 0 keys.\n")
    with app.app_context():
        assert tenant_with(acme).time_zone == "Europe/Berlin"


def test_an_export_replaces_a_file_that_others_may_read(run: Run, acme: str, tmp_path: Path) -> None:
    path = tmp_path / "acme.json"
    path.write_text("old")
    path.chmod(0o666)
    with path.open() as opened_before:
        assert run(f"export {acme} --output {path}").exit_code == 0
        assert opened_before.read() == "old"
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(path)
    for other in (link, tmp_path, Path("/dev/null")):
        refused = run(f"export {acme} --output {other}")
        assert (refused.exit_code, "is a link or no file" in refused.output) == (1, True), refused.output
    assert "cannot be written: No such file" in run(f"export {acme} --output {tmp_path}/missing/acme.json").output


def test_an_export_needs_a_passphrase_or_leaves_the_secrets_out(
    run: Run, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(run(f"export {acme} --without-secrets").stdout)["secrets"] is None
    assert json.loads(run(f"export {acme}").stdout)["secrets"]["kdf"] == "scrypt"
    monkeypatch.setenv("PORTAL_PASSPHRASE", "short")
    assert "at least 12 characters" in run(f"export {acme}").output
    monkeypatch.delenv("PORTAL_PASSPHRASE")
    assert run(f"export {acme}").output == "Error: Set PORTAL_PASSPHRASE, or use --without-secrets.\n"


def test_a_wrong_passphrase_imports_nothing(
    app: Flask, run: Run, acme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "acme.json"
    run(f"export {acme} --output {path}")
    run(f"delete {acme} --yes")
    monkeypatch.setenv("PORTAL_PASSPHRASE", "four other words")
    assert "The passphrase is wrong, or the file was changed" in run(f"import {path} --yes").output
    with app.app_context():
        assert tenant_service.find(acme) is None
