"""An SMTP server that keeps every message and forwards none."""

import asyncio
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from portal.demo.mailbox import Mailbox

HOST = "127.0.0.1"


class _Handler:
    """Stores each message that aiosmtpd receives."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.mailbox.add(envelope.original_content or b"")
        return "250 2.0.0 Captured"


class _BoundController(Controller):
    """A controller on a socket that is already bound, so that a port in use is noticed at once."""

    def __init__(self, mailbox: Mailbox, bound: socket.socket) -> None:
        host, port = bound.getsockname()
        super().__init__(_Handler(mailbox), hostname=host, port=port, enable_SMTPUTF8=True, ident="mail catcher")
        self.bound = bound

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self.bound)


@contextmanager
def run_catcher(mailbox: Mailbox, port: int) -> Iterator[int]:
    """Catch email during the block and yield the port: the requested one, or a free one if that is in use."""
    try:
        bound = socket.create_server((HOST, port))
    except OSError:
        bound = socket.create_server((HOST, 0))
    controller = _BoundController(mailbox, bound)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()
