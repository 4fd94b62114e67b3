"""Mail servers that accept and count everything: Postfix's `smtp-sink`, and a distant one."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import START_TIMEOUT, Process, free_port, require_program, running, wait_until_open

POLL_INTERVAL: Final = 0.001  # seconds
TIMEOUT: Final = 180.0  # seconds for the last mail: the portal tries again after a minute
BACKLOG: Final = "4096"
MAX_SESSIONS: Final = "4096"
PORT: Final = re.compile(rb"port=(\d+)\n")
COUNTED: Final = re.compile(rb"mesg=(\d+)")


@dataclass(frozen=True, slots=True)
class Sink:
    """A running `smtp-sink`: its port, and the file into which it keeps writing its counter."""

    port: int
    counter: int  # file descriptor

    def count(self) -> int:
        """Return how many emails it has accepted."""
        end = os.fstat(self.counter).st_size
        counted = COUNTED.findall(os.pread(self.counter, 256, max(0, end - 256)))
        return int(counted[-1]) if counted else 0

    def wait_for(self, count: int) -> None:
        """Wait until it has accepted that many emails.

        Raises:
            TimeoutError: some did not arrive.
        """
        ends = time.monotonic() + TIMEOUT
        while (counted := self.count()) < count:
            if time.monotonic() > ends:
                raise TimeoutError(f"{counted} emails arrived, not {count}")
            time.sleep(POLL_INTERVAL)


@contextmanager
def sink() -> Iterator[Sink]:
    """Run a mail server that counts."""
    port = free_port()
    program = require_program("smtp-sink", "postfix")
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program, "-c", "-m", MAX_SESSIONS, *user, f":{port}", BACKLOG]
    with _in_memory() as counter, running(command, output=counter) as process:
        wait_until_open(port, process)
        yield Sink(port, counter)


@contextmanager
def distant(certificate: Path) -> Iterator[Sink]:
    """Run the mail server of `bench.distant_mail_server` with this certificate."""
    with _in_memory() as counter, _distant(str(certificate), counter) as port:
        yield Sink(port, counter)


@contextmanager
def from_afar(near: Sink) -> Iterator[Sink]:
    """Yield a running mail server as it is seen from 20 ms away."""
    with _in_memory() as output, _distant(str(near.port), output) as port:
        yield Sink(port, near.counter)


@contextmanager
def _distant(near: str, output: int) -> Iterator[int]:
    with running([sys.executable, "-m", "bench.distant_mail_server", near], output=output) as process:
        yield _printed_port(output, process)


@contextmanager
def _in_memory() -> Iterator[int]:
    """Yield the descriptor of a file in memory."""
    descriptor = os.memfd_create("counter")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _printed_port(output: int, process: Process) -> int:
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends and process.poll() is None:
        if found := PORT.match(os.pread(output, 256, 0)):
            return int(found[1])
        time.sleep(POLL_INTERVAL)
    raise RuntimeError("the distant mail server did not start")
