"""Machines of their own for programs of a test: network namespaces on one bridge, and Postgres at an address there."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from portal.config import ROOT

NAME: Final = f"pbx{os.getpid() % 100_000}"  # of the bridge, and the beginning of the others' names
NETWORK: Final = f"10.213.{os.getpid() % 250}"


class Machine:
    """A machine: its IP address, and the programs that it runs."""

    def __init__(self, number: int) -> None:
        self.name, self.ip_address = f"{NAME}-{number}", f"{NETWORK}.{number}"
        self.programs: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, environment: Mapping[str, str], output: Path) -> None:
        """Run a Python module."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", *arguments]
        with output.open("ab") as file:
            given = {**os.environ, **environment}
            self.programs.append(subprocess.Popen(command, cwd=ROOT, env=given, stdout=file, stderr=file))

    def lose(self) -> None:
        """Lose the machine: nobody hears from it any more, not even that its connections are closed."""
        _ip("link", "set", self.name, "down")
        self.kill()

    def kill(self) -> None:
        """Kill all of its programs (SIGKILL)."""
        for program in self.programs:
            with suppress(psutil.NoSuchProcess):
                for process in [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]:
                    process.kill()
            program.wait()


@contextmanager
def running(count: int) -> Iterator[Sequence[Machine]]:
    """Have this many machines during the block. Skips the test where network namespaces are not allowed."""
    machines = [Machine(10 + number) for number in range(count)]
    with ExitStack() as undo:
        try:
            _ip("link", "add", NAME, "type", "bridge")
            undo.callback(_ip, "link", "delete", NAME)
            _ip("address", "add", f"{NETWORK}.1/24", "dev", NAME)
            _ip("link", "set", NAME, "up")
            for machine in machines:
                _ip("netns", "add", machine.name)
                undo.callback(_ip, "netns", "delete", machine.name)
                inside = ("-n", machine.name)
                _ip("link", "add", machine.name, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
                undo.callback(_ip, "link", "delete", machine.name)
                _ip("link", "set", machine.name, "master", NAME, "up")
                undo.callback(machine.kill)
                _ip(*inside, "address", "add", f"{machine.ip_address}/24", "dev", "eth0")
                _ip(*inside, "link", "set", "eth0", "up")
                _ip(*inside, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not possible here: {getattr(error, 'stderr', error)}")
        yield machines


@contextmanager
def forwarded(target: str) -> Iterator[int]:
    """Make a socket file reachable by all machines, and yield its port at this machine."""
    listener = socket.create_server((f"{NETWORK}.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(target)
                threading.Thread(target=_copy, args=[client, server], daemon=True).start()
                threading.Thread(target=_copy, args=[server, client], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()


def _ip(*arguments: str) -> None:
    subprocess.run([shutil.which("ip") or "ip", *arguments], check=True, capture_output=True, text=True)
