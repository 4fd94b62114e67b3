"""Replaces a running web server by its new version. No connection is refused meanwhile, and none breaks.

The server executes itself again (execve(2)): it keeps its process ID, its socket, and the processes that answer
requests. Once the new processes answer, the previous ones are ended: see `end_processes`.

Its signals are blocked from its start on, also as it executes itself, and stay pending until its main loop sees them.
None is lost, and none ends it before it can end its processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

HANDOVER: Final = "PORTAL_WEB_HANDOVER"  # the variable that passes it on
SYSTEMD_SOCKET: Final = 3  # the first that systemd passes on: sd_listen_fds(3)
CHECK_TIMEOUT: Final = 60  # seconds
CHECK: Final = "--check"  # the option with which the web server only says whether it can start
STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS: Final = STOP_SIGNALS | {signal.SIGHUP}
INTERVAL: Final = 0.1  # seconds between two looks at signals and processes


class Handover(NamedTuple):
    """What the server before this one leaves to it: open files, and the processes that still answer requests."""

    socket: int
    pipe: tuple[int, int]
    processes: Sequence[int]


def receive() -> Handover | None:
    """Return what was left to this process, or None if it is the first one."""
    left = os.environ.pop(HANDOVER, None)
    if left is None:
        return None
    listening, (read_end, write_end), processes = json.loads(left)
    return Handover(listening, (read_end, write_end), processes)


def systemd_socket() -> int | None:
    """Return the socket that systemd opened for this process, or None."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    return SYSTEMD_SOCKET if pid == str(os.getpid()) and count not in {"", "0"} else None


def can_start() -> bool:
    """Return whether the version that is now installed starts with these settings. If not, it prints why.

    A signal breaks it off: the server is to stop, or a further version has been installed.
    """
    try:
        check = subprocess.Popen([*_command(), CHECK])  # noqa: S603
    except OSError as error:
        print(error, file=sys.stderr)
        return False
    with check:
        ends = time.monotonic() + CHECK_TIMEOUT
        while check.poll() is None and time.monotonic() < ends and not signal.sigpending() & SIGNALS:
            time.sleep(INTERVAL)
        check.kill()
    return check.returncode == 0


def execute(handover: Handover) -> NoReturn:
    """Become the version that is now installed."""
    for file in (handover.socket, *handover.pipe):
        os.set_inheritable(file, True)
    program, *arguments = _command()
    os.execve(program, [program, *arguments], {**os.environ, HANDOVER: json.dumps(handover)})  # noqa: S606


def end_processes(processes: set[int], *steps: tuple[signal.Signals, float]) -> Iterator[bool]:
    """Send these children one signal after the other, each with its seconds, and remove those that have ended.

    Yields True as long as there are any, without waiting.
    """
    for stop_signal, seconds in steps:
        processes -= _ended(processes)
        for process in processes:
            os.kill(process, stop_signal)
        ends = time.monotonic() + seconds
        while processes and time.monotonic() < ends:
            yield True
            processes -= _ended(processes)


def stop_accepting(listening: int) -> None:
    """Leave the connections that arrive at a socket to the other processes that have it.

    Granian goes on accepting until it ends, and then closes connections whose request has not arrived. So its files of
    the socket become files of one that nobody connects to.
    """
    socket_id = os.fstat(listening).st_ino
    with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as nobodys:
        nobodys.setblocking(False)
        for file in (int(path.name) for path in Path("/dev/fd").iterdir()):
            with suppress(OSError):
                if os.fstat(file).st_ino == socket_id:
                    os.dup2(nobodys.fileno(), file)


def _ended(processes: Collection[int]) -> set[int]:
    """Return those of our children that have ended. Until then their numbers belong to nobody else."""
    ended = set()
    for process in processes:
        try:
            if os.waitpid(process, os.WNOHANG)[0]:
                ended.add(process)
        except ChildProcessError:
            ended.add(process)
    return ended


def _command() -> Sequence[str]:
    """Return the command that started this process.

    A script is executed as a program: its first line names its Python, which is another one if a link now leads to the
    folder of another version.
    """
    arguments = sys.orig_argv[1:]
    return arguments if os.access(arguments[0], os.X_OK) else [sys.executable, *arguments]


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return the server's socket: a new one, unless systemd has opened one. Raise OSError if the port is in use."""
    if inherited := systemd_socket():
        return socket.socket(fileno=inherited)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)
