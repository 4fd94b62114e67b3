"""A mail server 20 ms away, as a program: a relay on loopback that delays each byte by 10 ms.

The mail server there has a given port, or is one of its own with a given certificate, STARTTLS and sign-in. It
prints its port, then a counter of the emails that its own mail server took, like `smtp-sink`.
"""

import asyncio
import logging
import ssl
import sys
from contextlib import suppress
from typing import Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from bench.processes import HOST

ROUND_TRIP: Final = 0.020  # seconds
CHUNK: Final = 65_536
USERNAME: Final = "portal"
PASSWORD: Final = "only for the bench"


class Counting:
    """The handler that aiosmtpd calls for each conversation and email."""

    def __init__(self) -> None:
        self.emails = 0

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Offer what nearly every mail server offers (RFC 2920); aiosmtpd does it without saying so."""
        session.host_name = hostname
        return [responses[0], "250-PIPELINING", *responses[1:]]

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Accept an email."""
        self.emails += 1
        print(f"mesg={self.emails}", end="\r", flush=True)
        return "250 2.0.0 taken"


def sign_in(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: object) -> AuthResult:
    """Accept the one user."""
    known = isinstance(given, LoginPassword) and given == LoginPassword(USERNAME.encode(), PASSWORD.encode())
    return AuthResult(success=known)


async def main(near: str) -> None:
    """Serve until a signal arrives. `near` is a port or the file of a certificate."""
    port = int(near) if near.isdecimal() else await _serve(near)
    far = await asyncio.start_server(lambda reader, writer: _relay(port, reader, writer), HOST, 0)
    print(f"port={far.sockets[0].getsockname()[1]}", flush=True)
    await far.serve_forever()


async def _serve(certificate: str) -> int:
    """Start a mail server and return its port."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    taking = Counting()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(taking, hostname="mail.bench", tls_context=tls, authenticator=sign_in), HOST, 0
    )
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _relay(near: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(ROUND_TRIP * 1.5)  # of TCP's handshake, before the server may speak
    server_reader, server_writer = await asyncio.open_connection(HOST, near)
    with suppress(OSError):
        await asyncio.gather(_carry(reader, server_writer), _carry(server_reader, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward data half a round trip later; no chunk waits for an earlier one."""
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(CHUNK):
        loop.call_later(ROUND_TRIP / 2, writer.write, chunk)
    loop.call_later(ROUND_TRIP / 2, writer.close)


if __name__ == "__main__":
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of a name of its own at each sign-in
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
