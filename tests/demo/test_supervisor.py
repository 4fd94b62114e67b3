"""The demo as a newcomer meets it, with every process that it has."""

import json
import os
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

from tests.demo.running import processes_of, running, start


def test_from_the_start_to_a_read_mail_and_a_second_time(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        assert json.loads(demo.post(demo.event))["status"] == "sent"
        with urlopen(f"{demo.url}/demo/mail") as page:
            assert "Call lost in queue Support: +442079460123" in page.read().decode()
        assert any("postgres" in command for command in processes_of(tmp_path).values())
        assert demo.stop(signal.SIGINT) == 0
    assert processes_of(tmp_path) == {}

    with running(tmp_path, DEMO_PASSWORD="another password") as again:
        assert again.curl[-1] == demo.curl[-1]
        assert again.curl[-3] == demo.curl[-3], "the key is another one"
        assert again.password("admin@acme.example") == "another password" != demo.password("admin@acme.example")
        with urlopen(f"{again.url}/demo/mail") as page:
            assert "Call lost in queue Support" in page.read().decode(), "the mail was not kept"
        assert json.loads(again.post(demo.event))["status"] == "sent", "the mail server is still the first run's"
        portal = next(pid for pid, command in processes_of(tmp_path).items() if "granian" in command)
        os.kill(portal, signal.SIGKILL)
        assert again.process.wait(30) == 1, "it goes on without its portal"
    assert processes_of(tmp_path) == {}


def test_it_does_not_go_on_without_its_database(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        os.kill(int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert demo.process.wait(30) == 1
    assert processes_of(tmp_path) == {}


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with start(tmp_path, PORT=str(port)) as process:
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.splitlines() == [
        f"The demo cannot run: port {port}: address already in use. Choose another one: PORT={port + 1} make run"
    ]


def test_a_wrong_port_is_one_clear_line(tmp_path: Path) -> None:
    with start(tmp_path, PORT="70000") as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (
        1,
        "The demo cannot run: PORT must be a port number between 1 and 65535, not '70000'.\n",
    )
