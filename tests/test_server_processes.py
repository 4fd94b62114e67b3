"""The processes of the web server: those that die, do not start, are stopped, or lose their terminal."""

import os
import signal
import sys
from itertools import chain, repeat
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
from flask import Flask
from granian.server.mp import WorkerProcess

from portal import handover
from portal.config import Settings
from portal.server import PortalServer
from tests import web_server
from tests.ports import free_port
from tests.processes import wait, wait_for
from tests.web_server import answers

pytestmark = pytest.mark.slow


def web_processes(server: ForkServerProcess) -> list[psutil.Process]:
    """Return the processes that answer requests."""
    return list(psutil.Process(server.pid).children())


def test_a_process_that_dies_is_replaced(settings: Settings, built_app: Flask) -> None:
    with web_server.started(settings, "--processes", "2") as (port, server):
        first, second = web_processes(server)
        first.send_signal(signal.SIGKILL)
        wait_for(lambda: len(web_processes(server)) == 2 and first not in web_processes(server))
        assert second.is_running()
        assert answers(port)
        assert server.is_alive()


def test_a_process_that_dies_again_and_again_is_replaced(settings: Settings, built_app: Flask) -> None:
    with web_server.started(settings, "--processes", "1") as (port, server):
        for _ in range(3):
            (process,) = web_processes(server)
            process.kill()
            wait_for(lambda dead=process: dead not in web_processes(server) and answers(port))  # type: ignore[misc]
        assert server.is_alive()


def test_a_process_whose_end_is_noted_late_is_not_killed() -> None:
    worker = Mock(spec=WorkerProcess, inner=Mock(), idx=0)
    worker.is_alive = worker.inner.is_alive
    worker.is_alive.side_effect = chain([True, True], repeat(False))  # until Granian's own thread has noted the end
    server = PortalServer.__new__(PortalServer)
    server.wrks, server.predecessors, server.pipe, server.workers_kill_timeout = [worker], set(), os.pipe(), 80
    server._stop_workers()
    assert worker.terminate.called
    assert not worker.kill.called
    os.close(server.pipe[0])


CANNOT_START = """
import portal, sys
def create_app():
    raise RuntimeError("broken")
portal.create_app = create_app
from portal.server import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("processes", ["1", "3"])
def test_a_portal_that_cannot_start_ends_with_an_error(
    settings: Settings, built_app: Flask, tmp_path: Path, processes: str
) -> None:
    output = tmp_path / "output"
    options = ("--processes", processes)
    server = web_server.start(settings, free_port(), *options, program=("-c", CANNOT_START), output=output)
    assert wait(server, 60) == 1
    assert "The portal cannot start" in output.read_text()


STOPPED_AS_IT_STARTS = """
import os, signal, sys, time
from granian.server import mp
def stop(*_):
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1)
mp.configure_logging = stop  # the first that a process calls after it was forked
from portal.server import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_server_that_is_stopped_as_its_processes_start_ends_at_once(settings: Settings, built_app: Flask) -> None:
    program = ("-c", STOPPED_AS_IT_STARTS)
    server = web_server.start(settings, free_port(), "--processes", "2", program=program)
    assert wait(server, 40) == 0


def test_the_processes_end_with_the_one_that_started_them(settings: Settings, built_app: Flask) -> None:
    with web_server.started(settings, "--processes", "2") as (_port, server):
        started = web_processes(server)
        server.kill()
        server.join(10)
        _gone, alive = psutil.wait_procs(started, timeout=20)
        assert not alive


IN_TERMINAL = """
import os, sys
os.setsid()
terminal = os.open(sys.argv.pop(), os.O_RDWR)  # which becomes the terminal of the session
for stream in (0, 1, 2):
    os.dup2(terminal, stream)
from portal.server import main
sys.exit(main(sys.argv[2:]))
"""


def test_it_ends_with_its_terminal(settings: Settings, built_app: Flask) -> None:
    ours, its = os.openpty()
    options = ("--processes", "1", os.ttyname(its))
    with web_server.started(settings, *options, program=("-c", IN_TERMINAL)) as (_port, server):
        os.close(its)
        processes = web_processes(server)
        os.close(ours)
        assert wait(server, 40) == 0
        assert not any(process.is_running() for process in processes)


def test_a_version_whose_program_is_gone_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "gone"])
    monkeypatch.setattr(sys, "executable", "gone")
    assert not handover.can_start()


PYTHON_3_14 = """
import multiprocessing, os, sys
multiprocessing.set_start_method("forkserver", force=True)
for _ in range(50):
    os.open(os.devnull, 0)  # so that files have other numbers than in a new process
from portal.server import main
sys.exit(main(sys.argv[2:]))
"""


def test_processes_start_where_python_would_not_pass_files_on(settings: Settings, built_app: Flask) -> None:
    with web_server.started(settings, "--processes", "1", program=("-c", PYTHON_3_14)) as (_port, server):
        processes = web_processes(server)
        server.kill()
        server.join(10)
        assert not psutil.wait_procs(processes, timeout=20)[1]
