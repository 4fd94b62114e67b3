"""Programs that run during a block, their use of the machine, and Debian packages for missing ones."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, TypeAlias

import psutil

from bench.measurement import report

HOST: Final = "127.0.0.1"
START_TIMEOUT: Final = 60  # seconds
STOP_TIMEOUT: Final = 10  # seconds
MEGABYTE: Final = 1_000_000

Process: TypeAlias = "subprocess.Popen[bytes]"


# Programs of the bench that are no children of its process.
detached: Final[set[int]] = set()


class MissingProgram(Exception):
    """A program is missing and cannot be installed here. The text names it."""


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str] | None = None, output: IO[bytes] | int | None = None
) -> Iterator[Process]:
    """Run a program during the block. Its standard output goes to `output`, by default to ours."""
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=output, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of it
        process.wait()


def free_port() -> int:
    """Return a free port."""
    with socket.create_server((HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def wait_until_open(port: int, process: Process) -> None:
    """Wait until a program accepts connections.

    Raises:
        RuntimeError: it ended, or does not take any within a minute.
    """
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), 5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not start")


def require_program(program: str, package: str) -> str:
    """Return a program's path. If it is missing, root installs Debian's package without starting its service.

    Raises:
        Missing: it cannot be installed here.
    """
    if not shutil.which(program) and shutil.which("apt-get") and os.geteuid() == 0:
        report(f"Installing {package} …")
        _run_quietly("apt-get", "update")
        _run_quietly("apt-get", "install", "--yes", "--no-install-recommends", package)
        _run_quietly("systemctl", "disable", "--now", package)
    path = shutil.which(program)
    if path is None:
        raise MissingProgram(f"{program} is not installed (Debian: apt-get install {package})")
    return path


def _run_quietly(*command: str) -> None:
    with suppress(FileNotFoundError):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, env=environment, check=False, capture_output=True)


def cpu_seconds(pids: Iterable[int]) -> Sequence[float]:
    """Return the processor time that each program and all its children have used, also of children that ended."""
    return [_cpu_seconds(pid) for pid in pids]


def _cpu_seconds(pid: int) -> float:
    while True:
        family = _family([pid])
        with suppress(psutil.NoSuchProcess):
            used = sum(sum(process.cpu_times()[:4]) for process in family)
            # The time of a child that ends becomes its parent's. If one ended meanwhile, it may be in neither.
            if set(family) <= set(_family([pid])):
                return used


def resident(pids: Iterable[int]) -> float:
    """Return the resident memory of programs and all their children in megabytes; shared memory counts for each."""
    return sum(_of_each(pids, lambda process: process.memory_info().rss)) / MEGABYTE


def peak_resident(pids: Iterable[int]) -> float:
    """Return the peak memory of the largest of the programs and their children, in megabytes."""
    return max(_of_each(pids, _peak)) / MEGABYTE


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _of_each(pids: Iterable[int], read: Callable[[psutil.Process], int]) -> Iterator[int]:
    """Yield what is read of the programs and their children, without those that end meanwhile."""
    for process in _family(pids):
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            yield read(process)


def _family(pids: Iterable[int]) -> Sequence[psutil.Process]:
    parents = [psutil.Process(pid) for pid in pids]
    return [process for parent in parents for process in (parent, *parent.children(recursive=True))]
