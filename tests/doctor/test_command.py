"""The command: text or JSON, exit status 0, 1 or 2, also with settings with which the portal cannot start."""

import json
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from portal import create_app
from portal.__main__ import main
from portal.doctor.diagnoses import State
from tests.clusters import KEY
from tests.conftest import TEST_SECRET, close_connections
from tests.doctor.conftest import Portal
from tests.reverse_proxy import serving


@pytest.fixture
def environment(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of the healthy portal as an operator sets them."""
    apps: list[Flask] = []

    def create_and_note() -> Flask:
        apps.append(create_app())
        return apps[-1]

    monkeypatch.setattr("portal.__main__.create_app", create_and_note)
    settings = portal.settings
    values = {
        "PORTAL_ENV": "production",
        "PORTAL_URL": settings.portal_url,
        "SECRET_KEY": TEST_SECRET,
        "ENCRYPTION_KEYS": KEY,
        "DATABASE_URL": settings.database_url,
        "MIGRATION_DATABASE_URL": settings.migration_database_url,
        "TRUSTED_PROXIES": "1",
        "VAR_DIR": settings.var_dir,
        "DATABASE_DISK": settings.var_dir,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    yield
    for app in apps:
        close_connections(app)


def doctor(*options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["doctor", *options])


@pytest.mark.usefixtures("environment")
def test_a_healthy_portal_has_status_0(portal: Portal) -> None:
    served = portal.app()
    with serving(served) as port:
        portal.proxy.target = port
        result = doctor("--json", "--web-processes", "3")
        assert (result.exit_code, json.loads(result.stdout)["ok"]) == (0, True), result.output
        assert re.search(r"3 times \d+ for web processes", result.output)
        assert doctor("--workers", "9").exit_code == 1
    close_connections(served)


@pytest.mark.usefixtures("environment")
def test_a_failed_check_has_status_1(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor()
    assert result.exit_code == 1
    assert "FAILED   reverse proxy: " in result.output
    assert "\n         → Start web and proxy" in result.output
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("TRUSTED_PROXIES", "many")
    result = doctor("--json")
    (check,) = json.loads(result.stdout)["checks"]
    assert (result.exit_code, check["name"], check["state"]) == (1, "settings", State.FAILED)
    assert "TRUSTED_PROXIES" in check["seen"]


def test_a_wrong_option_has_status_2() -> None:
    assert doctor("--workers", "none").exit_code == 2
