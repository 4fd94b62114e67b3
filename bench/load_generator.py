"""A load generator: a number of requests at a time, each on its own connection, from a separate process.

The requests are made beforehand and the process does nothing but move bytes, so that it costs all contenders the same.
"""

import gc
import multiprocessing
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final

from bench.processes import HOST

SILENT_FOR: Final = 60.0  # seconds without any answer at all
OK: Final = b" 200 "


class NoResponse(Exception):
    """A contender has stopped responding."""


@dataclass(frozen=True, slots=True)
class LoadResponse:
    """The duration of a request in seconds, and the first bytes of the response; empty if the connection broke."""

    seconds: float
    head: bytes

    @property
    def is_ok(self) -> bool:
        """Whether the status is 200."""
        return OK in self.head[:16]


@dataclass(frozen=True, slots=True)
class Load:
    """The start of the first request, by `time.monotonic`, and all responses."""

    began: float
    answers: Sequence[LoadResponse]

    @property
    def failures(self) -> Sequence[LoadResponse]:
        """The responses other than 200."""
        return [answer for answer in self.answers if not answer.is_ok]


@dataclass(slots=True)
class _PendingRequest:
    sock: socket.socket
    began: float
    head: bytes = b""

    def read(self) -> LoadResponse | None:
        """Return the response when the connection ends."""
        try:
            chunk = self.sock.recv(65_536)
        except OSError:
            self.head, chunk = b"", b""
        if chunk:
            self.head = self.head or chunk
            return None
        self.sock.close()
        return LoadResponse(time.monotonic() - self.began, self.head)


def request(path: str, body: bytes, key: str = "") -> bytes:
    """Return a POST request of JSON that closes its connection."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Posting:
    """Requests in progress."""

    port: int
    process: SpawnProcess
    receiver: Connection

    def answered(self) -> Load:
        """Wait until all are answered.

        Raises:
            NoAnswer: none came for a minute.
        """
        try:
            load: Load = self.receiver.recv()
        except EOFError:
            raise NoResponse(f"nothing came from port {self.port}") from None
        finally:
            self.process.kill()  # it has ended, unless somebody ends us
            self.process.join()
        return load


def begin(port: int, requests: Sequence[bytes], at_once: int) -> Posting:
    """Send the requests from a separate process, `at_once` of them at any time."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, port, requests, at_once), daemon=True)
    process.start()
    sender.close()
    return Posting(port, process, receiver)


def post(port: int, requests: Sequence[bytes], at_once: int) -> Load:
    """Send the requests and wait until all are answered."""
    return begin(port, requests, at_once).answered()


def _run(sender: Connection, port: int, requests: Sequence[bytes], at_once: int) -> None:
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that waits for this one
    began = time.monotonic()
    sender.send(Load(began, list(_drive(port, requests, at_once))))


def _drive(port: int, requests: Sequence[bytes], at_once: int) -> Iterator[LoadResponse]:
    left, calls = iter(requests), {}
    with select.epoll() as ready:

        def begin_next() -> None:
            for content in islice(left, 1):
                call = _PendingRequest(socket.socket(), time.monotonic())
                calls[call.sock.fileno()] = call
                call.sock.connect((HOST, port))  # at once on loopback, unless the backlog is full
                call.sock.sendall(content)
                ready.register(call.sock.fileno(), select.EPOLLIN)

        for _ in range(at_once):
            begin_next()
        while calls:
            events = ready.poll(SILENT_FOR)
            if not events:
                raise SystemExit(1)
            for descriptor, _ in events:
                if answer := calls[descriptor].read():
                    del calls[descriptor]
                    begin_next()
                    yield answer
