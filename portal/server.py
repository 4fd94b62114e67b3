"""The web server: `python -m portal.server`. Granian in several processes, each with the portal behind its front."""

import argparse
import gc
import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from asyncio import AbstractEventLoop, Handle, SelectorEventLoop, set_event_loop
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeVarTuple

from granian._granian import CallbackScheduler, SocketHolder
from granian._loops import loops
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import mp

from portal import config, create_app, sign_in_commands
from portal.alerts import watch
from portal.web.body_reader import IncompleteBody
from portal.web.front import Front

BACKLOG: Final = 1024  # connections that wait to be accepted
MAX_CONNECTIONS: Final = 4096  # of one process
HEADER_TIMEOUT: Final = 10_000  # milliseconds for a request's headers, and for the next request of a connection
UNREAD_TIMEOUT: Final = 60_000  # milliseconds after which a client that reads nothing is disconnected
STARTS: Final = 3  # of each process before the server gives up, if none gets as far as answering
STOP_TIMEOUT: Final = 80  # seconds: longer than an event takes
THREADS, PIPE = "PORTAL_WEB_THREADS", "PORTAL_WEB_PIPE"  # pass them to the processes


Part = TypeVarTuple("Part")


class PortalFront(Front):
    """The front that Granian runs in each process."""

    def __rsgi_init__(self, loop: "RequestLoop") -> None:
        """Say that this process answers requests, and end it with the one that started it, however that ends."""
        loop.front = self
        self.start()
        read_end, write_end, started = map(int, os.environ[PIPE].split(","))
        os.write(started, b".")
        os.close(write_end)  # so that the one that started it is the last to have it
        threading.Thread(target=_end_with_parent, args=[read_end], daemon=True).start()

    def __rsgi_del__(self, _loop: AbstractEventLoop) -> None:
        """End when the last request is answered."""
        self.stop()


class RequestLoop(SelectorEventLoop):
    """The event loop that Granian expects. Requests and their bodies pass it by.

    Granian has a request in one thread, wakes the event loop's thread for it, and that would wake the thread that runs
    the app. Each wake-up costs a tenth of a millisecond.
    """

    front: Front

    def accept(self, watcher: Any) -> None:
        """Take a request from Granian, in its thread."""
        try:
            self.front.accept(watcher.scope, watcher.proto)
        except Exception as error:  # noqa: BLE001 (whatever it is, Granian logs it and answers 500)
            watcher.err(error)

    def call_soon(self, callback: Callable[[*Part], object], *args: *Part, context: Context | None = None) -> Handle:
        """Call back. A body gets its part at once, in the thread that has it."""
        if isinstance(callback, IncompleteBody):
            return callback(*args)
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Part], object], *args: *Part, context: Context | None = None
    ) -> Handle:
        """Do the same from any thread."""
        if isinstance(callback, IncompleteBody):
            return callback(*args)
        return super().call_soon_threadsafe(callback, *args, context=context)


@loops.register("asyncio")
def _new_loop() -> RequestLoop:
    loop = RequestLoop()
    set_event_loop(loop)
    return loop


def _new_scheduler(loop: RequestLoop, callback: object, **_: object) -> CallbackScheduler:
    new: Any = CallbackScheduler  # its stub says nothing about it
    scheduler = new(loop, callback, None, None, None)
    scheduler._schedule_fn = loop.accept
    return scheduler  # type: ignore[no-any-return]


mp._new_cbscheduler = _new_scheduler  # type: ignore[attr-defined, assignment]


class PortalServer(mp.MPServer):
    """Granian on a socket that all its processes share, and nobody else."""

    write_end: int | None = None  # of a pipe whose closing tells the processes to stop, also one that is starting
    failed_starts = 0  # processes that ended since one last got as far as answering requests

    def note_starts(self, started: int) -> None:
        """Read from a pipe that processes get as far as answering requests."""
        while os.read(started, 1):
            self.failed_starts = 0

    def _reload(self, *arguments: Any) -> None:
        self.failed_starts = 0
        super()._reload(*arguments)  # type: ignore[no-untyped-call]

    def _respawn_workers(self, workers: list[int], *arguments: Any, **options: Any) -> None:
        """Replace processes that have ended, or give up if none can start."""
        self.failed_starts += len(workers)
        if self.failed_starts >= STARTS * self.workers:
            print("The portal cannot start: its processes end before they answer requests.", file=sys.stderr)
            self.interrupt_children = workers  # so that Granian ends with status 1
            self.signal_handler_interrupt()
            return
        super()._respawn_workers(workers, *arguments, **options)
        self.respawned_wrks.clear()  # Granian would end when a process dies twice within seconds, even if it was killed

    def signal_handler_interrupt(self, *arguments: Any, **options: Any) -> None:
        """Stop."""
        if self.write_end is not None:
            os.close(self.write_end)
            self.write_end = None
        super().signal_handler_interrupt(*arguments, **options)  # type: ignore[no-untyped-call]

    def _init_shared_socket(self) -> None:
        family = socket.AF_INET6 if ":" in self.bind_addr else socket.AF_INET
        # Granian's own sockets share the port with any other server (SO_REUSEPORT), and have no limit for clients that
        # do not read. Accepted connections inherit the limit (tcp(7)).
        bound = socket.create_server((self.bind_addr, self.bind_port), family=family, backlog=BACKLOG)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT)
        bound.setblocking(False)
        bound.set_inheritable(True)
        self._ssp, self._sso, self._sfd = None, bound, bound.fileno()  # type: ignore[assignment]
        self._shd = SocketHolder(self._sfd, False, BACKLOG)  # type: ignore[assignment, call-arg]


def create_front() -> Front:
    """Return the portal of a web process."""
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, signal.SIG_DFL)  # until Granian handles them: those of its parent would be lost
    app = create_app()
    front = PortalFront(app, int(os.environ[THREADS]))
    config.remove_secrets_from_environment()  # the one that starts the processes keeps them for the next one
    # Objects that exist now are kept until the end: the garbage collector need not check them again and again.
    gc.collect()
    gc.freeze()
    threading.Thread(target=sign_in_commands.report_problems, args=[app], daemon=True).start()
    watch.start(app)
    return front


def main() -> int:
    """Serve until a signal arrives. Return 1 if the port is in use; end with 1 if the portal cannot start."""
    parser = argparse.ArgumentParser("python -m portal.server", description="Serve the portal.")
    parser.add_argument("--host", default="127.0.0.1", help="IP address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_number_up_to(65_535), default=8000, help="port to listen on (8000)")
    parser.add_argument("--processes", type=_number_up_to(256), default=2, help="number of processes (2)")
    parser.add_argument(
        "--threads", type=_number_up_to(1000), default=16, help="requests that one process handles at a time (16)"
    )
    options = parser.parse_args()
    config.load()  # reports invalid settings once, and not in each process
    multiprocessing.set_start_method("fork", force=True)  # Python 3.14's default would not pass the pipe on
    (read_end, write_end), (starts, started) = os.pipe(), os.pipe()
    os.environ |= {THREADS: str(options.threads), PIPE: f"{read_end},{write_end},{started}"}
    _raise_file_limit()
    server = PortalServer(
        "portal.server:create_front",
        factory=True,
        address=options.host,
        port=options.port,
        interface=Interfaces.RSGI,
        loop=Loops.asyncio,
        workers=options.processes,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT,
        log_level=LogLevels.warning,
    )
    server.write_end = write_end
    threading.Thread(target=server.note_starts, args=[starts], daemon=True).start()
    try:
        server.serve()
    except OSError as error:
        print(f"The web server cannot listen on {options.host}:{options.port}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def _number_up_to(highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"must be a number from 1 to {highest}")
        return int(text)

    return parse


def _raise_file_limit() -> None:
    """Allow a file for each connection: the usual limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _end_with_parent(read_end: int) -> None:
    os.read(read_end, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
