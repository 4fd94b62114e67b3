"""The demo with all its processes."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from portal.demo.supervisor import MIN_LIFETIME
from tests.demo.running import RunningDemo, processes_of, run, running
from tests.processes import wait_for

pytestmark = pytest.mark.slow


def is_sent(demo: RunningDemo) -> bool:
    """Return whether an event is sent at the moment."""
    with suppress(OSError):
        return bool(json.loads(demo.post(demo.event))["status"] == "sent")
    return False


def postgres_of(var_dir: Path) -> int:
    """Return the process of the folder's Postgres."""
    return int((var_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def test_a_first_start_a_second_start_and_one_after_a_kill(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with running(before) as demo:
        assert json.loads(demo.post(demo.event))["status"] == "sent"
        with urlopen(f"{demo.url}/demo/mail") as page:
            assert "Call lost in queue Support: +442079460123" in page.read().decode()
        second = run(before)
        assert second == (1, f"The demo cannot run: it is already running in this folder, at {demo.url}\n")
        assert json.loads(demo.post(demo.event))["status"] == "sent", "the second one changed the mail server"
        assert any("postgres" in command for command in processes_of(before).values())
        assert demo.stop(signal.SIGINT) == 0
    assert processes_of(before) == {}

    with running(before, DEMO_PASSWORD="another password") as again:
        assert again.curl[-1] == demo.curl[-1]
        assert again.curl[-3] == demo.curl[-3], "the key is another one"
        assert again.password("admin@acme.example") == "another password" != demo.password("admin@acme.example")
        with urlopen(f"{again.url}/demo/mail") as page:
            assert "Call lost in queue Support" in page.read().decode(), "the mail was not kept"
        assert json.loads(again.post(demo.event))["status"] == "sent", "the mail server is still the first run's"
        portal = psutil.Process(next(pid for pid, line in processes_of(before).items() if "portal run" in line))
        time.sleep(max(0, portal.create_time() + MIN_LIFETIME + 1 - time.time()))
        portal.kill()
        wait_for(lambda: is_sent(again))
        os.kill(postgres_of(before), signal.SIGKILL)
        wait_for(lambda: is_sent(again))
        again.process.kill()
        again.process.wait()
        wait_for(lambda: all("postgres" in command for command in processes_of(before).values()))
        assert postgres_of(before) in processes_of(before)

    before.rename(after)
    with running(after) as moved:  # Postgres outlived the killed demo: this one finds it, and leaves nothing behind
        assert is_sent(moved)
        assert moved.stop(signal.SIGTERM) == 0
    assert processes_of(before) == processes_of(after) == {}


def test_a_port_in_use_prints_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        status, output = run(tmp_path, PORT=str(port))
    assert status == 1
    assert output.splitlines() == [
        f"The demo cannot run: port {port}: address already in use. Choose another one: PORT={port + 1} make run"
    ]


def test_an_invalid_port_prints_one_line(tmp_path: Path) -> None:
    assert run(tmp_path, PORT="70000") == (
        1,
        "The demo cannot run: PORT must be a port number between 1 and 65535, not '70000'.\n",
    )
