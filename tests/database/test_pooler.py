"""PgBouncer, for real: the portal sees it and refuses to start."""

import os
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from portal.config import Settings
from portal.database import pooler
from tests import pgbouncer, processes, web_server

pytestmark = pytest.mark.slow

WITHOUT_OPTIONS = "ignore_startup_parameters = options"


@pytest.fixture
def direct_url(built_app: Flask, settings: Settings) -> str:
    """The URL of the database. Skips the test where PgBouncer is missing."""
    if not pgbouncer.is_installed():
        assert os.environ.get("CI") != "true", "PgBouncer is not installed"
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    assert settings.database_url
    return settings.database_url


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("options", ["", WITHOUT_OPTIONS])
def test_it_is_seen(direct_url: str, tmp_path: Path, mode: str, options: str) -> None:
    with pgbouncer.running(direct_url, tmp_path, options, mode) as url:
        assert pooler.is_refused(url)


def test_postgres_itself_is_not_taken_for_it(built_app: Flask, settings: Settings) -> None:
    assert settings.database_url
    assert not pooler.is_refused(settings.database_url)


def test_a_database_that_does_not_answer_is_not_taken_for_it() -> None:
    assert not pooler.is_refused("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_a_tenant_scope_would_be_another_processs(direct_url: str, tmp_path: Path) -> None:
    """Why it is refused."""
    with pgbouncer.running(direct_url, tmp_path) as through:
        url = through.replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
            one.execute("SELECT set_config('portal.tenant', '1', false)")
            assert other.execute("SELECT current_setting('portal.tenant', true)").fetchone() == ("1",)


@pytest.mark.parametrize("command", [("portal", "run"), ("portal", "worker")])
def test_the_portal_does_not_start_through_it(
    direct_url: str, settings: Settings, tmp_path: Path, command: tuple[str, ...]
) -> None:
    output = tmp_path / "output"
    with pgbouncer.running(direct_url, tmp_path, WITHOUT_OPTIONS) as url:
        environment = {**os.environ, **web_server.variables(settings, 80), "DATABASE_URL": url}
        assert processes.wait(processes.start(*command, environment=environment, output=output), 60) == 1
    assert "PgBouncer" in output.read_text()
