"""A terminal obeys control characters. What commands print has none, whoever wrote it."""

import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
from click import Command
from click.testing import CliRunner
from flask import Flask

from portal.backup import archive
from portal.backup.archive import Description
from portal.commands import output
from portal.config import PACKAGE
from tests.sql import sql

CLEAR = "\x1b[2J\x9b31m\r\x7f"  # clears the screen, and more
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028]")


def run(app: Flask, *arguments: str) -> str:
    """Run a command and return what it prints. That has no control character but line breaks and tabs."""
    done = app.test_cli_runner().invoke(args=arguments)
    printed = done.stdout.replace("\r\n", "\n") + done.stderr
    assert not CONTROL.search(printed), repr(printed)
    assert "2J" in printed
    return done.stdout


@pytest.mark.parametrize(
    "content",
    [
        f"domain,{CLEAR}x\nacme.example,1\n",
        f'domain,"forged\n{CLEAR}"\nacme.example,1\n',
        f"domain,name\nacme.example,{CLEAR}\n{CLEAR},Acme\n",
        f"domain,administrators\nacme.example,{CLEAR}@acme.example\n",
    ],
)
def test_an_imported_file(app: Flask, acme: str, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content.encode())
    assert "\nforged" not in run(app, "tenants", "import", str(file), "--preview")


@pytest.mark.parametrize("option", ["--csv", "--json", None])
def test_the_list_of_tenants(app: Flask, acme: str, option: str | None) -> None:
    with app.app_context():
        sql("UPDATE tenants SET name = :name WHERE domain = :domain", name=CLEAR, domain=acme)
    printed = run(app, "tenants", "list", *filter(None, [option]))
    if option == "--json":
        assert json.loads(printed)[0]["name"] == CLEAR


def test_the_keys(app: Flask, acme: str) -> None:
    assert app.test_cli_runner().invoke(args=["keys", "issue", "--tenant", acme]).exit_code == 0
    with app.app_context():
        sql("UPDATE api_keys SET name = :name", name=CLEAR)
    run(app, "keys", "list")


def test_a_backup(app: Flask, tmp_path: Path) -> None:
    rows = {"tenants": 0, "accounts": 0, "events": 0}
    with ZipFile(tmp_path / "backup", "w") as file:
        archive.write_description(file, Description(9, CLEAR, CLEAR, 15, CLEAR, "", {}, rows, ()))
    run(app, "restore", str(tmp_path / "backup"))


def test_no_command_prints_in_another_way() -> None:
    for module in (PACKAGE / "commands").glob("*.py"):
        if module.name != "output.py":
            assert not re.search(r"click\.(s?echo\w*|\w*Exception)\(|\bprint\(|stdout\.write", module.read_text()), (
                module
            )


def test_text_keeps_its_line_breaks_and_a_line_has_none() -> None:
    def command() -> None:
        output.echo_text("a\tb\r\nc\nd\re\n")
        output.echo("a\nb\x1b")

    printed = CliRunner().invoke(Command(None, callback=command)).stdout_bytes
    assert printed == b"a\tb\r\nc\nd\\u000de\na\\u000ab\\u001b\n"
