"""The command `pbx-portal`: it has every command, and loads the portal only for those that need it."""

import pytest
from click.testing import CliRunner, Result

from portal.__main__ import main
from portal.commands import COMMANDS


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, arguments, prog_name="pbx-portal")


def test_it_has_every_command() -> None:
    assert {"run", *(str(command.name) for command in COMMANDS)} <= main.commands.keys()
    assert run("--help").exit_code == 0


@pytest.mark.parametrize(("option", "expected"), [("--help", "--processes"), ("--port=x", "must be a number from 1")])
def test_the_options_of_run_are_those_of_the_web_server(
    option: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run("run", option)
    assert expected in result.output + "".join(capsys.readouterr())
    assert result.exit_code == (2 if "x" in option else 0)


def test_invalid_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_ENV", "production")
    monkeypatch.delenv("SECRET_KEY", raising=False)
    result = run("keys", "list")
    assert result.exit_code == 1
    assert "SECRET_KEY" in str(result.exception or result.output)
