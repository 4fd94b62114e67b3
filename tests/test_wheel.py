"""The wheel: installed in an empty folder, without a checkout, it is a whole portal."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen
from zipfile import ZipFile

import psycopg
import pytest
from sqlalchemy import make_url

from portal.config import ROOT
from tests import installed
from tests.conftest import TEST_KEY, TEST_SECRET
from tests.pages import PASSWORD
from tests.ports import free_port
from tests.processes import wait_for
from tests.web_server import HOST, answers

pytestmark = pytest.mark.slow

FOLDERS = ("templates", "static", "migrations", "docs/guides", "docs/reference")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the wheel."""
    return installed.build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """The URL of a database without tables."""
    server = make_url(database_url).set(drivername="postgresql")
    name = f"{server.database}_wheel"
    admin = server.render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    yield server.set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_it_contains_every_file_that_the_portal_reads(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        f"portal/{file.relative_to(ROOT)}"
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= names
    assert "portal/static/vendor/htmx.min.js" in names
    assert {f"portal/translations/{language}/LC_MESSAGES/messages.po" for language in ("de", "es", "fr", "zh")} <= names
    assert not {name for name in names if name.startswith("tests/") or "__pycache__" in name}


@pytest.mark.operation
def test_it_is_a_portal_without_a_checkout(wheel: Path, empty_database: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://{HOST}:{port}"
    environment = installed.environment(
        PORTAL_URL=url, SECRET_KEY=TEST_SECRET, ENCRYPTION_KEYS=TEST_KEY, DATABASE_URL=empty_database
    )
    command, elsewhere = installed.install(wheel, tmp_path / "venv"), tmp_path / "empty"
    elsewhere.mkdir()

    def run(line: str) -> str:
        return subprocess.run(
            [str(command), *line.split()],
            cwd=elsewhere,
            env={**environment, "PORTAL_PASSWORD": PASSWORD},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert run("--version").startswith("pbx-portal, version ")
    assert run("upgrade") == "The database schema is current.\n"
    run("tenants add Acme --domain acme.example")
    run("recipients set --tenant acme.example ops@acme.example")
    run("notifications on --tenant acme.example all")
    key = run("keys issue --tenant acme.example").strip()
    web = subprocess.Popen([str(command), "run", "--port", str(port)], cwd=elsewhere, env=environment)
    try:
        wait_for(lambda: web.poll() is not None or answers(port))
        with urlopen(f"{url}/sign-in") as page:
            assert "Sign in" in page.read().decode()
        with urlopen(Request(f"{url}/sign-in", headers={"Accept-Language": "de"})) as page:
            assert "Anmelden" in page.read().decode()
        with urlopen(f"{url}/static/vendor/htmx.min.js") as file:
            assert file.read() == (ROOT / "static/vendor/htmx.min.js").read_bytes()
        event = json.dumps({"type": "queue.call_lost", "data": {"queue_number": "8000"}}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with urlopen(Request(f"{url}/api/v1/events", event, headers)) as answer:
            assert (answer.status, json.load(answer)["reason"]) == (200, "no_mail_server")
    finally:
        web.terminate()
        assert web.wait(60) == 0
    assert list(elsewhere.iterdir()) == []
