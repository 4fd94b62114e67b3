"""Reading and writing on a connection that does not block: more than the buffers hold, and less than a reply."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from portal.mail_servers.smtp.client import Encryption
from portal.mail_servers.smtp.connect import Deadline, tls_context
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, Stage
from portal.mail_servers.smtp.transport import SmtpTransport
from tests.mail_servers.example_message import ANN, PATIENT, send, settings, short_at
from tests.smtp_peer import SmtpPeer

HOST = "127.0.0.1"
SMALL_BUFFER = 4096  # bytes
TLS_HANDSHAKE = 22  # the first byte of a record (RFC 8446, section 5.1)
# A server may send HelloRequest at any time, and it is ignored during a handshake (RFC 5246, section 7.4.1.1).
HELLO_REQUESTS = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 1000
CONTENT = b"".join(b"%07d\r\n" % number for number in range(60_000))  # much more than the buffers hold


@dataclass
class Connection:
    """The portal's end of a connection, and the mail server's."""

    transport: SmtpTransport
    server: socket.socket

    @property
    def is_full(self) -> bool:
        """Whether no more can be written before the mail server reads."""
        assert self.transport.sock is not None
        poll = select.poll()
        poll.register(self.transport.sock, select.POLLOUT)
        return not poll.poll(0)


@pytest.fixture(params=["plain", "tls"])
def connection(request: pytest.FixtureRequest, certificate: trustme.LeafCert, ca_file: Path) -> Iterator[Connection]:
    """Two connected ends with small buffers, with and without TLS."""
    with connected() as plain:
        if request.param == "plain":
            yield plain
        else:
            with encrypted(plain.server, certificate) as server:
                with running(server.do_handshake):
                    plain.transport.begin_tls(tls_context(ca_file), HOST)
                yield Connection(plain.transport, server)


@contextmanager
def connected() -> Iterator[Connection]:
    """Yield two connected ends with small buffers."""
    with socket.create_server((HOST, 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        client.connect(listener.getsockname())
        with listener.accept()[0] as server:
            yield Connection(SmtpTransport(client, "portal.example", Deadline(PATIENT)), server)


def encrypted(server: socket.socket, certificate: trustme.LeafCert, tickets: int = 2) -> ssl.SSLSocket:
    """Return the mail server's end with TLS, before the handshake. After it, it sends that many session tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = tickets
    certificate.configure_cert(context)
    return context.wrap_socket(server, server_side=True, do_handshake_on_connect=False)


@contextmanager
def running(target: Callable[[], object]) -> Iterator[None]:
    """Run a function in a thread, and wait at the end of the block until it returns."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    yield
    thread.join()


def test_content_larger_than_the_buffers(connection: Connection) -> None:
    received = bytearray()

    def read_once_it_is_full() -> None:
        while not connection.is_full:
            time.sleep(0.001)
        while len(received) < len(CONTENT):
            received.extend(connection.server.recv(1000))

    with running(read_once_it_is_full):
        connection.transport.send(CONTENT)
    assert received == CONTENT


def test_a_mail_server_that_stops_reading(connection: Connection) -> None:
    began, used = time.monotonic(), time.thread_time()
    connection.transport.deadline = Deadline(replace(PATIENT, total=0.5))
    with pytest.raises(SmtpFailure) as failure:
        connection.transport.send(CONTENT)
    assert failure.value.reply.text == "No response in time."
    assert time.monotonic() - began > 0.4
    assert time.thread_time() - used < 0.2  # it waited, and did not try again and again
    assert connection.transport.sock is None


def test_a_mail_server_that_says_nothing(connection: Connection) -> None:
    began, used = time.monotonic(), time.thread_time()
    connection.transport.deadline = Deadline(replace(PATIENT, total=0.5))
    with pytest.raises(SmtpFailure) as failure:
        connection.transport.getreply()
    assert failure.value.reply.text == "No response in time."
    assert time.monotonic() - began > 0.4
    assert time.thread_time() - used < 0.2


def test_nothing_is_sent_after_the_deadline(connection: Connection) -> None:
    connection.transport.deadline.start_step(0)
    with pytest.raises(SmtpFailure) as failure:
        connection.transport.send(b"NOOP\r\n")
    assert failure.value.reply.text == "No response in time."
    assert not connection.server.recv(1000)


def test_a_reply_longer_than_one_read(connection: Connection) -> None:
    """The rest of a TLS record has left the socket: waiting for the socket would be in vain."""
    lines = [b"%04d" % number for number in range(99)]
    reply = b"".join(b"250-%s %s\r\n" % (line, b"x" * 60) for line in lines) + b"250 end\r\n"
    assert len(reply) > 4096
    with running(lambda: connection.server.sendall(reply)):
        code, text = connection.transport.getreply()
    assert code == 250
    assert [line[:4] for line in text.split(b"\n")] == [*lines, b"end"]
    assert connection.transport.is_quiet


def test_what_comes_unasked_is_noticed_after_waiting_to_write(connection: Connection) -> None:
    transport = connection.transport
    connection.server.sendall(b"250 ok\r\n")
    assert transport.getreply() == (250, b"ok")
    transport._wait_until(select.POLLOUT)
    assert transport.is_quiet
    connection.server.sendall(b"421 4.3.2 closing\r\n")
    transport._wait_until(select.POLLIN)
    transport._wait_until(select.POLLOUT)
    assert not transport.is_quiet


def test_tls_in_the_smallest_pieces(certificate: trustme.LeafCert, ca_file: Path) -> None:
    """A record of TLS may arrive in pieces: then there is something to read, and yet nothing of a reply."""
    with SmtpPeer(certificate=certificate) as peer, byte_by_byte(peer.port) as port:
        near = settings(peer, encryption=Encryption.STARTTLS)
        result = send(replace(near, port=port), ca_file=ca_file)
    assert result[ANN].kind is ReplyKind.ACCEPTED
    assert peer.conversations[0].encrypted


def test_a_handshake_that_goes_on_for_ever(certificate: trustme.LeafCert, ca_file: Path) -> None:
    began = time.monotonic()
    with (
        SmtpPeer(certificate=certificate) as peer,
        byte_by_byte(peer.port, pause=0.02) as port,
        short_at(Stage.TLS) as timeouts,
    ):
        near = settings(peer, encryption=Encryption.STARTTLS)
        reply = send(replace(near, port=port), timeouts=timeouts, ca_file=ca_file)[ANN]
    assert (reply.kind, reply.stage, reply.text) == (ReplyKind.TEMPORARY, Stage.TLS, "No response in time.")
    assert time.monotonic() - began < 30


def test_handshake_messages_without_end(ca_file: Path) -> None:
    with connected() as connection, running(lambda: send_until_closed(connection.server, HELLO_REQUESTS)):
        with pytest.raises(SmtpFailure) as failure:
            connection.transport.begin_tls(tls_context(ca_file), HOST)
        assert connection.transport.sock is None
    assert failure.value.reply.text == "Encryption could not be negotiated."


def test_session_tickets_without_end(certificate: trustme.LeafCert, ca_file: Path) -> None:
    with connected() as connection, encrypted(connection.server, certificate, tickets=5_000) as server:

        def send_tickets() -> None:
            with suppress(OSError):
                server.do_handshake()

        with running(send_tickets):
            connection.transport.begin_tls(tls_context(ca_file), HOST)
            connection.transport._begin_stage(Stage.EHLO)
            with pytest.raises(SmtpFailure) as failure:
                connection.transport.getreply()
            assert connection.transport.sock is None
    assert failure.value.reply.text == "The connection was lost."


def test_a_long_session_over_tls(certificate: trustme.LeafCert, ca_file: Path) -> None:
    """The bytes of TLS are limited for each command, not for all."""
    line = b"250 " + b"x" * 4_000 + b"\r\n"
    with connected() as connection, encrypted(connection.server, certificate) as server:
        with running(server.do_handshake):
            connection.transport.begin_tls(tls_context(ca_file), HOST)
        with running(lambda: server.sendall(line * 100)):
            for _ in range(100):
                connection.transport._begin_stage(Stage.RCPT)
                assert connection.transport.getreply()[0] == 250


def test_what_comes_unasked_with_a_reply_is_noticed(connection: Connection) -> None:
    connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # with TLS, two records in one segment
    for line in (b"250 ok\r\n", b"421 4.3.2 closing\r\n"):
        connection.server.sendall(line)
    connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert connection.transport.getreply() == (250, b"ok")
    assert not connection.transport.is_quiet


def test_a_mail_server_that_ends_tls(connection: Connection) -> None:
    """With TLS it says so in a record (RFC 8446, section 6.1), before or instead of the end of the connection."""

    def end() -> None:
        if isinstance(connection.server, ssl.SSLSocket):
            with suppress(OSError):  # it waits for the same from the portal
                connection.server.unwrap()
        else:
            connection.server.shutdown(socket.SHUT_WR)

    used = time.thread_time()
    with running(end):
        with pytest.raises(SmtpFailure) as failure:
            connection.transport.getreply()
        assert connection.transport.sock is None
    assert failure.value.reply.text == "The mail server closed the connection."
    assert time.thread_time() - used < 0.2


def test_the_mail_server_learns_why_its_certificate_is_rejected(certificate: trustme.LeafCert) -> None:
    with connected() as connection, encrypted(connection.server, certificate) as server:

        def reject() -> None:
            with suppress(SmtpFailure):
                connection.transport.begin_tls(tls_context(), HOST)

        with running(reject), pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            server.do_handshake()


def send_until_closed(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        while True:
            sock.sendall(data)


@contextmanager
def byte_by_byte(port: int, pause: float = 0) -> Iterator[int]:
    """Yield a port that passes on what a mail server sends, one byte at a time, in TLS with a pause before each."""
    with socket.create_server((HOST, 0)) as listener, socket.create_connection((HOST, port)) as server:

        def pass_on_replies(client: socket.socket) -> None:
            is_tls = False
            with suppress(OSError):
                while data := server.recv(4096):
                    is_tls = is_tls or data[0] == TLS_HANDSHAKE
                    for byte in data:
                        time.sleep(pause if is_tls else 0)
                        client.sendall(bytes([byte]))
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)

        def pass_on_commands() -> None:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, running(lambda: pass_on_replies(client)), suppress(OSError):
                while data := client.recv(4096):
                    server.sendall(data)
                server.shutdown(socket.SHUT_RDWR)

        with running(pass_on_commands):
            yield listener.getsockname()[1]
