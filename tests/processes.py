"""Modules run as `python -m` does, in processes forked from one that has imported the portal: 3 s less for each."""

import atexit
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from portal.config import ROOT

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(
    ["portal.demo.supervisor", "granian.server.mp", "flask.cli", "werkzeug.serving", "tests.processes"]
)


def start(*command: str, environment: Mapping[str, str], output: Path = Path(os.devnull)) -> ForkServerProcess:
    """Start a module with these arguments, or `-c` and a program; what it prints is in the file `output`."""
    process = FORK_SERVER.Process(target=_run, args=(command, dict(environment), output))
    process.start()
    return process


def wait(process: ForkServerProcess, seconds: float) -> int:
    """Return the exit status of a process that ends within this time; negative is the signal that ended it."""
    process.join(seconds)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is the case."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


def _run(command: tuple[str, ...], environment: dict[str, str], output: Path) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    multiprocessing.set_start_method(None, force=True)  # the one that Python prefers, as in any other process
    sys.argv = list(command)
    try:
        if command[0] == "-c":
            exec(command[1], {"__name__": "__main__"})
        else:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
