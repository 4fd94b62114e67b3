"""Restarts of the web server under load, and signals at any time: no request is refused, none breaks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from flask import Flask

from portal.config import ROOT, Settings
from portal.pbx.api_keys import IssuedKey
from tests import web_server
from tests.processes import wait_for
from tests.signing import signed_key
from tests.smtp_peer import SlowReply, SmtpPeer
from tests.sql import sql
from tests.steady_load import SteadyLoad
from tests.tenant_fixtures import peer, working_tenant

__all__ = ["peer", "signed_key", "working_tenant"]

pytestmark = pytest.mark.operation

LIVEZ, NEW = '{"status":"ok"}', '{"status":"new"}'
# The beginning of a version that waits as it is imported, until it may start.
HANGING = """
import sys, time
from pathlib import Path
if {condition}:
    Path("hangs").touch()
    while not Path("may_start").exists():
        time.sleep(0.05)
"""
AS_IT_IS_TRIED, AS_IT_STARTS = (HANGING.format(condition=f"'--check' {word} sys.argv") for word in ("in", "not in"))
COUNT_EVENTS = "SELECT count(*), count(DISTINCT external_id) FROM events"
# A slow machine may defer an email, and says so in the response.
COUNT_LOST = "SELECT count(*) FROM deliveries WHERE status NOT IN ('sent', 'deferred') OR attempts <> 1"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a copy of the portal, as an upgrade changes it."""
    for folder in ("portal", "templates", "migrations", "static"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / "code" / folder, ignore=ignored, symlinks=True)
    return tmp_path / "code"


class Server:
    """The web server that runs the code in a folder."""

    def __init__(self, code: Path, settings: Settings, output: Path) -> None:
        self.code, self.settings, self.output = code, settings, output
        self.listening = socket.create_server((web_server.HOST, 0), backlog=1024)
        self.port: int = self.listening.getsockname()[1]

    def start(self) -> subprocess.Popen[bytes]:
        """Start it as systemd would, with an open socket."""
        # What systemd does: the socket is file 3, and the variables name the process that it is for.
        program = (
            f"import os, sys; os.dup2({self.listening.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        command = [sys.executable, "-c", program, "-m", *web_server.SERVER, "--processes", "2"]
        environment = {**os.environ, **web_server.variables(self.settings, self.port), "LISTEN_FDS": "1"}
        files = [self.listening.fileno()]
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.code,
                env=environment,
                pass_fds=files,
                stdout=output,
                stderr=output,
                start_new_session=True,  # without a terminal
            )

    def install(self, beginning: str = "", livez: str = NEW) -> None:
        """Install a version that begins with these statements and answers /livez with this text."""
        front = (ROOT / "portal/web/front.py").read_text().replace(LIVEZ, livez)
        (self.code / "portal/web/front.py").write_text(beginning + front)

    def hangs(self) -> bool:
        """Return whether the version with that beginning waits."""
        return (self.code / "hangs").exists()

    def let_start(self) -> None:
        """Let it start."""
        (self.code / "may_start").touch()

    def is_new(self) -> bool:
        """Return whether all processes that answer are those of the new version."""
        return {web_server.get_text(self.port, "/livez") for _ in range(20)} == {f"{NEW}\n"}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it during the block."""
        process = self.start()
        try:
            wait_for(lambda: process.poll() is not None or self.hangs() or web_server.answers(self.port))
            yield process
        finally:
            process.terminate()
            process.wait(100)


@pytest.fixture
def server(built_app: Flask, settings: Settings, code: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that has not been started, and its open socket."""
    server = Server(code, settings, tmp_path / "output")
    yield server
    server.listening.close()


def children(process: subprocess.Popen[bytes]) -> set[psutil.Process]:
    """Return the processes that answer requests, also those that are about to end."""
    return set(psutil.Process(process.pid).children())


def assert_nothing_was_lost(app: Flask, load: SteadyLoad) -> None:
    """Check that every request was answered with 200, and that no email was given up or tried twice."""
    print(load.results, f"longest: {max(outcome.seconds for outcome in load.outcomes):.2f} s")
    assert load.results == {200: len(load.outcomes)}
    with app.app_context():
        assert tuple(sql(COUNT_EVENTS)[0]) == (len(load.outcomes), len(load.outcomes))
        assert sql(COUNT_LOST)[0][0] == 0


def test_a_new_version_takes_over_without_a_gap(app: Flask, server: Server, signed_key: IssuedKey) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        load.wait_for(40)
        before = children(process)
        server.install()
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: before.isdisjoint(children(process)))
        load.wait_for(40)
        assert server.is_new()
    assert_nothing_was_lost(app, load)


def test_new_connections_are_left_to_the_new_processes(
    server: Server,
) -> None:
    with server.running() as process, ExitStack() as opened:
        connections: list[socket.socket] = []
        before = children(process)
        process.send_signal(signal.SIGHUP)

        def is_replaced_as_clients_connect() -> bool:
            connections.append(opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
            return before.isdisjoint(children(process))

        wait_for(is_replaced_as_clients_connect)
        for connection in connections[-40:]:  # opened within the last two seconds
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_version_that_is_installed_as_another_one_is_tried_takes_over(
    app: Flask, server: Server, signed_key: IssuedKey
) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        server.install(AS_IT_IS_TRIED)
        process.send_signal(signal.SIGHUP)
        wait_for(server.hangs)
        server.install()
        process.send_signal(signal.SIGHUP)
        wait_for(server.is_new)
    assert_nothing_was_lost(app, load)


def test_a_version_that_is_installed_as_another_one_starts_takes_over(
    app: Flask, server: Server, signed_key: IssuedKey
) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        server.install(AS_IT_STARTS, livez=LIVEZ)
        process.send_signal(signal.SIGHUP)
        wait_for(server.hangs)
        server.install()
        process.send_signal(signal.SIGHUP)
        server.let_start()
        wait_for(server.is_new)
    assert_nothing_was_lost(app, load)


def test_a_version_that_is_installed_as_the_first_one_starts_takes_over(server: Server) -> None:
    server.install(AS_IT_STARTS, livez=LIVEZ)
    with server.running() as process:
        assert server.hangs()
        server.install()
        process.send_signal(signal.SIGHUP)
        server.let_start()
        wait_for(lambda: process.poll() is not None or server.is_new())
        assert process.poll() is None


def test_however_many_signals_arrive_there_are_never_more_than_two_generations(
    app: Flask, server: Server, signed_key: IssuedKey
) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        before, counts = children(process), set()
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(children(process)) == 4)

        def is_replaced_in_the_storm() -> bool:
            process.send_signal(signal.SIGHUP)
            counts.add(len(children(process)))
            return before.isdisjoint(children(process))

        wait_for(is_replaced_in_the_storm)
        assert max(counts) == 4
        server.install()
        process.send_signal(signal.SIGHUP)
        wait_for(server.is_new)
        wait_for(lambda: len(children(process)) == 2)
    assert_nothing_was_lost(app, load)


def test_a_server_that_is_stopped_as_a_version_is_tried_ends_at_once(server: Server) -> None:
    with server.running() as process:
        server.install(AS_IT_IS_TRIED)
        process.send_signal(signal.SIGHUP)
        wait_for(server.hangs)
        running = children(process)
        process.terminate()
        assert process.wait(20) == 0
        assert not any(each.is_running() for each in running), "nor does the trial go on"


def test_a_server_that_is_stopped_as_a_version_starts_answers_what_it_began(
    app: Flask, server: Server, signed_key: IssuedKey, peer: SmtpPeer
) -> None:
    with server.running() as process:
        server.install(AS_IT_STARTS)
        process.send_signal(signal.SIGHUP)
        wait_for(server.hangs)
        running = children(process)
        peer.script = {"dot": SlowReply("250 2.0.0 queued as 4711", seconds=0.2)}
        with SteadyLoad([server.port], signed_key, rate=10, clients=5) as load:
            wait_for(lambda: any(conversation.messages for conversation in peer.conversations))
            process.terminate()
            server.let_start()
        assert process.wait(40) == 0
        assert not any(each.is_running() for each in running)
    assert_nothing_was_lost(app, load)


def test_a_version_that_does_not_start_does_not_take_over(app: Flask, server: Server, signed_key: IssuedKey) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        before = children(process)
        server.install("raise SystemExit('broken')\n")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "was not replaced" in server.output.read_text())
        assert "broken" in server.output.read_text()
        load.wait_for(40)
        assert children(process) == before
    assert_nothing_was_lost(app, load)


def test_connections_wait_in_the_socket_while_no_server_runs(app: Flask, server: Server, signed_key: IssuedKey) -> None:
    with ExitStack() as servers:
        process = servers.enter_context(server.running())
        with SteadyLoad([server.port], signed_key, clients=200) as load:  # none waits for the response to another one
            load.wait_for(100)
            process.terminate()
            process.wait(100)
            servers.enter_context(server.running())
            load.wait_for(300)
    assert_nothing_was_lost(app, load)


def test_a_process_that_is_killed_is_no_outage(app: Flask, server: Server, signed_key: IssuedKey) -> None:
    with server.running() as process, SteadyLoad([server.port], signed_key) as load:
        load.wait_for(40)
        first, _ = children(process)
        first.kill()
        wait_for(lambda: len(children(process)) == 2 and first not in children(process))
        load.wait_for(80)
    print(load.results, f"longest: {max(outcome.seconds for outcome in load.outcomes):.2f} s")
    broken = [outcome for outcome in load.outcomes if outcome.result != 200]
    assert "refused" not in load.results
    assert len(broken) <= 10, "more than what the process was handling"
