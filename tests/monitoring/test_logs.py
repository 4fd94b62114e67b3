"""Log lines: text and JSON, levels, the request and the event in each line, repeated errors folded, no secrets."""

import http.client
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from portal.config import Settings
from portal.deliveries import retry
from portal.monitoring import logs
from portal.monitoring.logs import FoldingHandler
from tests import web_server
from tests.deliveries.test_backlog import run_worker
from tests.own_postgres import OwnPostgres, own_postgres, own_server
from tests.ports import free_port
from tests.processes import wait_for
from tests.smtp_peer import SmtpPeer
from tests.sql import sql
from tests.tenant_fixtures import Post, key, peer, post, working_tenant

__all__ = ["key", "own_postgres", "own_server", "peer", "post", "working_tenant"]

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z [A-Z]+ [\w.]+: .*")


@pytest.fixture(autouse=True)
def restored(settings: Settings) -> Iterator[None]:
    """Begin without a request, and set the log up as it was after each test."""
    logs._context.set(logs._NO_CONTEXT)
    yield
    logs.configure(settings)


def configure(settings: Settings, **changes: Any) -> None:
    logs.configure(settings.model_copy(update=changes))


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines written as JSON."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_of_text_has_time_level_logger_and_message(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(settings)
    logging.getLogger("portal.test").info("Deleted %d events.", 3)
    line = capsys.readouterr().err
    assert LINE.fullmatch(line.strip())
    assert line.endswith("Z INFO portal.test: Deleted 3 events.\n")


def test_a_line_of_json_has_the_same(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings, log_format="json")
    logging.getLogger("portal.test").warning("“Grüße”\n%s", "second line")
    (line,) = written(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "logger": "portal.test", "message": "“Grüße”\nsecond line"}


def test_nobody_can_forge_a_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings)
    logging.getLogger("portal.test").error("%s", "550 no\n2026-01-01T00:00:00.0Z INFO portal: forged\r\x1b[2J")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_nobody_can_forge_a_line_by_an_exception(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings)
    try:
        raise ValueError("no\n2026-01-01T00:00:00.0Z INFO portal: forged\r\x1b[2J")
    except ValueError:
        logging.getLogger("portal.test").exception("An error.")
    line, *traceback = capsys.readouterr().err.split("\n")[:-1]
    assert line.endswith("portal.test: An error.")
    assert traceback[0] == "  Traceback (most recent call last):"
    assert traceback[-1] == r"  2026-01-01T00:00:00.0Z INFO portal: forged\r\x1b[2J"
    assert all(below.startswith("  ") for below in traceback)


@pytest.mark.parametrize(
    ("level", "of_portal", "of_libraries"),
    [("debug", 10, 10), ("info", 20, 30), ("warning", 30, 30), ("error", 40, 40)],
)
def test_the_level_is_a_setting(settings: Settings, level: str, of_portal: int, of_libraries: int) -> None:
    configure(settings, log_level=level)
    assert logging.getLogger("portal.test").getEffectiveLevel() == of_portal
    assert logging.getLogger("procrastinate.worker").getEffectiveLevel() == of_libraries


def test_there_is_one_handler_however_often_it_is_set_up(settings: Settings) -> None:
    for _ in range(3):
        configure(settings)
    ours = [handler for handler in logging.getLogger().handlers if isinstance(handler, FoldingHandler)]
    assert len(ours) == 1
    assert not logging.getLogger("portal").handlers


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_shows_no_values(settings: Settings, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure(settings, log_format=log_format)

    def fail(password: str) -> None:
        assert password
        raise ValueError("It failed.")

    try:
        fail("secret-" + "canary")
    except ValueError:
        logging.getLogger("portal.test").exception("An error.")
    output = capsys.readouterr().err
    assert "ValueError: It failed." in output
    assert "in fail" in output
    assert "secret-canary" not in output


class Headers(dict[str, str]):
    """The headers of a request."""


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("0f3a-91.request_7", True),
        ("short", False),
        ("x" * 65, False),
        ("a b c d e f g", False),
        ("forged\nline-of-log", False),
        (None, False),
    ],
)
def test_the_id_of_a_request_is_the_clients_if_it_looks_like_one(
    settings: Settings, capsys: pytest.CaptureFixture[str], given: str | None, is_kept: bool
) -> None:
    configure(settings, log_format="json")
    logs.begin(Headers({"x-request-id": given} if given else {}))
    for message in ("One.", "Two."):
        logging.getLogger("portal.test").warning(message)
    one, two = written(capsys)
    assert one["request_id"] == two["request_id"]
    assert (one["request_id"] == given) is is_kept
    assert is_kept or re.fullmatch("[0-9a-f]{32}", one["request_id"])
    logs.begin(Headers())
    logging.getLogger("portal.test").warning("Three.")
    assert written(capsys)[0]["request_id"] != one["request_id"]


def test_a_repeated_error_is_one_line_and_then_a_count(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FoldingHandler.__init__, "__defaults__", (1.0,))
    configure(settings, log_format="json")
    logger = logging.getLogger("portal.test")
    lines: list[dict[str, Any]] = []

    def outages() -> int:
        """Return how many errors the lines stand for."""
        lines.extend(written(capsys))
        return sum(line.get("repeated", 1) for line in lines if "respond" in line["message"])

    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, FoldingHandler))
    assert handler.lock
    with handler.lock:  # so that no interval ends meanwhile
        for number in range(100):
            logger.error("The database does not respond: %s", number)
        logger.error("Another error.")
        logger.info("Not an error.")
        assert outages() < 100
    wait_for(lambda: outages() == 100)
    assert lines[0]["message"] == "The database does not respond: 0"
    assert lines[-1]["message"] == "The database does not respond: 99"
    assert {"Another error.", "Not an error."} < {line["message"] for line in lines}
    for _ in range(10):
        logger.error("The database does not respond: %s", "still")
    wait_for(lambda: outages() == 110)
    assert len(lines) <= 8, "while it lasts, there is one line in each interval"
    time.sleep(1.5)
    logger.error("The database does not respond: %s", "again")
    assert outages() == 111, "after an interval without it, it is written at once"


def test_different_errors_are_not_folded(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings, log_format="json")
    for text in ("1", "[]", "{"):
        try:
            int(json.loads(text))
        except (ValueError, TypeError):
            logging.getLogger("portal.test").exception("An error.")
    assert len(written(capsys)) == 2


def test_what_is_only_counted_is_written_at_the_end(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings, log_format="json")
    logs.begin(Headers({"x-request-id": "request-1"}))
    for _ in range(3):
        logging.getLogger("portal.test").error("It fails.")
    configure(settings, log_format="json")
    assert [line.get("repeated") for line in written(capsys)] == [None, 2]


def test_threads_may_write_at_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure(settings, log_format="json")

    def write() -> None:
        for _ in range(200):
            logging.getLogger("portal.test").error("It fails.")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    configure(settings)
    lines = written(capsys)
    assert sum(line.get("repeated", 1) for line in lines) == 8 * 200
    assert len(lines) < 20, "they are folded, once in an interval"


def test_the_lines_of_an_event_have_its_id_in_a_worker_too(
    app: Flask,
    settings: Settings,
    post: Post,
    working_tenant: str,
    peer: SmtpPeer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer.script = {"dot": "451 4.3.0 later"}
    assert post().json["status"] == "deferred"
    with app.app_context():
        ((event_id,),) = sql("SELECT id FROM events")
        sql("UPDATE deliveries SET next_attempt_at = now()")

    def fail(*_: object) -> None:
        raise TypeError

    monkeypatch.setattr(retry, "build_message", fail)
    capsys.readouterr()
    configure(settings, log_format="json")
    run_worker(app)
    lines = [line for line in written(capsys) if line["level"] == "error"]
    assert lines
    assert {line.get("event_id") for line in lines} == {str(event_id)}
    assert "This was email" in lines[0]["exception"]


@pytest.mark.slow
def test_an_outage_is_a_few_lines_with_the_ids_of_requests(own_postgres: OwnPostgres, tmp_path: Path) -> None:
    app, server = own_postgres
    output, port = tmp_path / "log", free_port()
    environment = {"LOG_FORMAT": "json"}
    process = web_server.start(
        app.extensions["settings"], port, "--processes", "1", output=output, environment=environment
    )
    try:
        wait_for(lambda: web_server.answers(port))
        server.stop()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            for number in range(40):
                headers = {"Authorization": "Bearer pbx_x", "X-Request-ID": f"outage-{number}"}
                connection.request("POST", "/api/v1/events", "{}", headers | {"Content-Type": "application/json"})
                response = connection.getresponse()
                assert (response.status, response.read() != b"") == (503, True)
        server.ensure_postgres_running()
    finally:
        process.terminate()
        process.join(100)
    with app.app_context():
        counted = sql("SELECT value FROM metric_values WHERE name = 'pbx_portal_events' AND labels = 'error'")
        assert counted == [(40,)], "what was counted meanwhile is stored later"
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    outage = [line for line in lines if "does not respond" in line["message"]]
    assert 1 <= len(outage) < 6
    assert outage[0]["request_id"] == "outage-0"
    assert {"timestamp", "level", "logger", "message"} <= set.intersection(*map(set, lines))
