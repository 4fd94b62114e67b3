"""A mail server that keeps what it is given and sends nothing on."""

import asyncio
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from portal.demo.mailbox import Mailbox

HOST = "127.0.0.1"


class _Keeper:
    """What aiosmtpd asks about each message."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.mailbox.add(envelope.original_content or b"")
        return "250 2.0.0 Caught"


class _Listener(Controller):
    """A controller on a socket that is bound already, so that a port in use is known at once."""

    def __init__(self, mailbox: Mailbox, bound: socket.socket) -> None:
        host, port = bound.getsockname()
        super().__init__(_Keeper(mailbox), hostname=host, port=port, enable_SMTPUTF8=True, ident="caught mail")
        self.bound = bound

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self.bound)


@contextmanager
def catching(mailbox: Mailbox, port: int) -> Iterator[int]:
    """Catch mail during the block, and give the port: the wanted one, or a free one where that is in use."""
    try:
        bound = socket.create_server((HOST, port))
    except OSError:
        bound = socket.create_server((HOST, 0))
    listener = _Listener(mailbox, bound)
    listener.start()
    try:
        yield listener.port
    finally:
        listener.stop()
