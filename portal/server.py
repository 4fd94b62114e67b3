"""The web server: `pbx-portal run`. Granian in several processes, each with the portal behind its front."""

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
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, TypeVarTuple

from granian._granian import CallbackScheduler, SocketHolder
from granian._loops import loops
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import mp

from portal import config, create_app, handover, hangup
from portal.alerts import watch
from portal.commands import single_sign_on
from portal.database import pooler
from portal.handover import Handover
from portal.mail_servers.smtp import pool
from portal.monitoring import logs
from portal.monitoring.processes import Reporter
from portal.web.body_reader import IncompleteBody
from portal.web.front import Front

BACKLOG: Final = 1024  # connections that wait to be accepted
MAX_CONNECTIONS: Final = 4096  # of one process
HEADER_TIMEOUT: Final = 10_000  # milliseconds for a request's headers, and for the next request of a connection
UNREAD_TIMEOUT: Final = 60_000  # milliseconds after which a client that reads nothing is disconnected
STARTS: Final = 3  # of each process before the server gives up, if none gets as far as answering
STOP_TIMEOUT: Final = 80  # seconds: longer than an event takes
STOP: Final = ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 10))  # signals, and seconds until the next one
# First, connections are closed after their next response. After these seconds, idle ones have been closed anyway: no
# client loses a request that it sends as its connection is closed.
REPLACE: Final = ((signal.SIGHUP, HEADER_TIMEOUT / 1000), *STOP)
PID_BYTES: Final = 4
THREADS, FILES = "PORTAL_WEB_THREADS", "PORTAL_WEB_FILES"  # pass them to the processes


Part = TypeVarTuple("Part")


class PortalFront(Front):
    """The front that Granian runs in each process."""

    reporter: Reporter

    def __rsgi_init__(self, loop: "RequestLoop") -> None:
        """Say that this process answers requests, and end it with the one that started it, however that ends."""
        loop.front = self
        read_end, write_end, started, _listening = map(int, os.environ[FILES].split(","))
        os.write(started, os.getpid().to_bytes(PID_BYTES))
        os.close(write_end)  # so that the one that started it is the last to have it
        self.start()
        threading.Thread(target=_end_with_parent, args=[read_end], daemon=True).start()

    def __rsgi_del__(self, _loop: AbstractEventLoop) -> None:
        """End when the last request is answered."""
        self.stop()
        threading.Thread(target=self._report_end).start()

    def _report_end(self) -> None:
        self.wait()
        self.reporter.end()


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

    listening: socket.socket
    pipe: tuple[int, int]  # tells the processes to stop when its write end closes, also one that is starting
    started: int  # a pipe from which it reads the numbers of processes that get as far as answering requests
    answering: set[int | None]
    predecessors: set[int]  # processes of the previous version, which still answer requests
    stop_signals: Set[signal.Signals]
    failed_starts = 0  # processes that ended since one last got as far as answering requests

    def _serve_loop(self, *target: Any) -> None:
        """Replace processes that have ended, and all of them for SIGHUP, until a signal stops the server.

        SIGHUP waits until the previous replacement is over, so that there are never more than two generations.
        """
        replacement = self._end_predecessors()
        # A thread that started before the signals were blocked may receive one, which Granian's handler notes.
        while not (signal.sigpending() & self.stop_signals or self.interrupt_signal):
            if ended := [self.interrupt_children.pop() for _ in range(len(self.interrupt_children))]:
                self.failed_starts += len(ended)
                if self.failed_starts >= STARTS * self.workers:
                    print("The portal cannot start: its processes end before they answer requests.", file=sys.stderr)
                    self.interrupt_children = ended  # so that Granian ends with status 1
                    return
                self._respawn_workers(ended, *target)
            elif self._all_answer() and not next(replacement, False) and signal.SIGHUP in signal.sigpending():
                self._reload()
            time.sleep(handover.INTERVAL)

    def _all_answer(self) -> bool:
        with suppress(BlockingIOError):
            while process := os.read(self.started, PID_BYTES):
                self.answering.add(int.from_bytes(process))
                self.failed_starts = 0
        return self.answering.issuperset(worker.inner.pid for worker in self.wrks)

    def _end_predecessors(self) -> Iterator[bool]:
        if self.predecessors:
            yield from handover.end_processes(self.predecessors, *REPLACE)
            print("The processes of the web server have been replaced.", file=sys.stderr)

    def _reload(self, *_arguments: Any) -> None:
        """Become the version that is now installed, or go on if it cannot start."""
        signal.sigwait({signal.SIGHUP})
        can_start = handover.can_start()
        if signal.sigpending() & handover.SIGNALS:
            return
        if not can_start:
            print("The web server was not replaced: its new version does not start.", file=sys.stderr)
            return
        running = [worker.inner.pid for worker in self.wrks if worker.inner.is_alive()]
        handover.execute(Handover(self.listening.fileno(), self.pipe, [*self.predecessors, *running]))

    def _stop_workers(self) -> None:
        """Stop all processes, also the previous ones, which Granian does not know.

        A thread of Granian's waits for each process too. Until it has noted that one has ended, Granian takes that one
        for a process that refuses to stop, and kills it.
        """
        os.close(self.pipe[1])
        for worker in self.wrks:
            worker.terminate()  # type: ignore[no-untyped-call]
        stopping, ends = handover.end_processes(self.predecessors, *STOP), time.monotonic() + STOP_TIMEOUT
        while next(stopping, False) or (any(it.inner.is_alive() for it in self.wrks) and time.monotonic() < ends):
            time.sleep(handover.INTERVAL)
        self.workers_kill_timeout = 1  # second: they have had their time
        super()._stop_workers()  # type: ignore[no-untyped-call]

    def _init_shared_socket(self) -> None:
        # Granian's own sockets share the port with any other server (SO_REUSEPORT), and have no limit for clients that
        # do not read. Accepted connections inherit the limit (tcp(7)).
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT)
        self.listening.setblocking(False)
        self.listening.set_inheritable(True)
        self._ssp, self._sso, self._sfd = None, self.listening, self.listening.fileno()  # type: ignore[assignment]
        self._shd = SocketHolder(self._sfd, False, BACKLOG)  # type: ignore[assignment, call-arg]


def create_front() -> Front:
    """Return the portal of a web process."""
    for stop_signal in handover.STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_DFL)  # until Granian handles them
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.STOP_SIGNALS)
    app = create_app()
    front = PortalFront(app, int(os.environ[THREADS]))
    signal.signal(signal.SIGHUP, lambda *_: _retire(front))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    config.remove_secrets_from_environment()  # the one that starts the processes keeps them for the next one
    # Objects that exist now are kept until the end: the garbage collector need not check them again and again.
    gc.collect()
    gc.freeze()
    threading.Thread(target=single_sign_on.report_problems, args=[app], daemon=True).start()
    watch.start(app)
    front.reporter = Reporter(app, "web", pool.slots_in_use)
    front.reporter.start()
    return front


def _retire(front: Front) -> None:
    """Leave new connections to the next version, and close the others after their next response."""
    handover.stop_accepting(int(os.environ[FILES].split(",")[-1]))
    front.close_connections()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives. Return 1 if the port is in use; end with 1 if the portal cannot start."""
    parser = argparse.ArgumentParser("pbx-portal run", description="Serve the portal.")
    parser.add_argument("--host", default="127.0.0.1", help="IP address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_number_up_to(65_535), default=8000, help="port to listen on (8000)")
    parser.add_argument("--processes", type=_number_up_to(256), default=2, help="number of processes (2)")
    parser.add_argument(
        "--threads", type=_number_up_to(1000), default=16, help="requests that one process handles at a time (16)"
    )
    parser.add_argument(handover.CHECK, action="store_true", help="only say whether the server can start")
    options = parser.parse_args(arguments)
    settings = config.load()  # reports invalid settings once, and not in each process
    logs.configure(settings)
    if settings.database_url and pooler.is_refused(settings.database_url):
        print(f"The portal cannot start: {pooler.REFUSAL}", file=sys.stderr)
        return 1
    if options.check:
        create_app(settings)
        return 0
    multiprocessing.set_start_method("fork", force=True)  # Python 3.14's default would not pass the pipe on
    left = handover.receive()
    stop_signals = handover.SIGNALS if not left and hangup.ends_process() else handover.STOP_SIGNALS
    signal.pthread_sigmask(signal.SIG_BLOCK, handover.SIGNALS)  # in all threads
    pipe, (starts, started) = left.pipe if left else os.pipe(), os.pipe()
    _raise_file_limit()
    try:
        listening = socket.socket(fileno=left.socket) if left else handover.listen(options.host, options.port, BACKLOG)
    except OSError as error:
        print(f"The web server cannot listen on {options.host}:{options.port}: {error.strerror}.", file=sys.stderr)
        return 1
    files = (*pipe, started, listening.fileno())
    os.environ |= {THREADS: str(options.threads), FILES: ",".join(map(str, files))}
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
        log_dictconfig=logs.GRANIAN,
    )
    os.set_blocking(starts, False)
    server.pipe, server.started, server.listening = pipe, starts, listening
    server.answering, server.predecessors = set(), set(left.processes if left else ())
    server.stop_signals = stop_signals
    server.serve()
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
