"""SMTP commands and replies over a socket: smtplib with a deadline for each read and write, and one kind of failure."""

import ipaddress
import re
import select
import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from portal.mail_servers.smtp.connect import Deadline, network_failure
from portal.mail_servers.smtp.outcome import SmtpFailure, SmtpReply, Stage, classify
from portal.mail_servers.smtp.secret_mask import SecretMask
from portal.web.i18n import to_translate

# A hostile server's reply must not cost time: the portal reads no more of it than any real reply has.
MAX_REPLY_LINES = 100
MAX_REPLY_BYTES = 8192
# In one stage, with all that TLS needs for itself. OpenSSL accepts 100 KB of certificates.
MAX_TLS_BYTES = 262_144
READ_SIZE = 4096
TLS_RECORD = 16_384  # the most content of a record (RFC 8446, section 5.1)

Result = TypeVar("Result")

_REPLY_LINE = re.compile(rb"[2-5]\d\d(?:[ -].*)?", re.DOTALL)


class SmtpTransport(smtplib.SMTP):
    """The connection to a mail server. Methods that read or write raise `SmtpFailure` where the session cannot go on.

    `deadline` may be replaced between two messages. The socket does not block: waiting is up to `_wait_until`, because
    each of the system calls that Python makes for a timeout lets another thread run first.

    TLS works in memory, on what was read from the socket. With the socket itself, OpenSSL would go on reading for as
    long as a mail server sends nothing but session tickets, for example, and no deadline could end that.
    """

    sock: socket.socket | None

    def __init__(self, sock: socket.socket, helo_name: str | None, deadline: Deadline) -> None:
        super().__init__(local_hostname=helo_name or _address_literal(sock))
        self.sock = sock
        sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock)
        self.deadline = deadline
        self.stage = Stage.GREETING
        self._unread = bytearray()  # received and not yet read
        self._tls: ssl.SSLObject | None = None
        self._tls_received, self._tls_to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls_bytes = 0  # received in this stage
        self._pipelined = 0  # commands that were sent and whose replies are not yet read
        self.secrets = SecretMask()  # of the password, in replies

    @property
    def peer_ip_address(self) -> str:
        """The mail server's IP address."""
        try:
            return str(self._socket().getpeername()[0])
        except OSError as error:
            raise self._lost(error) from None

    @property
    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing arrived unasked, which would be a farewell or the end."""
        if self.sock is None or self._unread or self._tls_received.pending or (self._tls and self._tls.pending()):
            return False
        self._poll.modify(self.sock, select.POLLIN)
        return not self._poll.poll(0)

    # For `SmtpSession`

    def _begin_stage(self, stage: Stage) -> None:
        """Begin the next command, with its own timeout."""
        self.stage, self._tls_bytes = stage, 0
        self.deadline.start_step(self.deadline.timeouts.command)

    def _command(self, stage: Stage, line: str) -> tuple[int, bytes]:
        """Send a command, unless it was pipelined, and return its reply."""
        self._begin_stage(stage)
        if self._pipelined:
            self._pipelined -= 1
        else:
            self.putcmd(line)
        return self.getreply()

    def _pipeline(self, stage: Stage, lines: Sequence[str]) -> None:
        """Send these commands at once (RFC 2920). Then call `_command` for each, in the same order."""
        text = "\r\n".join([*lines, ""])
        if not text.count("\r") == text.count("\n") == len(lines):
            raise ValueError("a command is one line")
        self._begin_stage(stage)
        self.send(text)
        self._pipelined = len(lines)

    def _read_usual_replies(self, stages: Sequence[Stage]) -> bool:
        """Read the replies to pipelined commands of these stages, and return whether they are 250, and 354 at the end.

        If any other reply comes, none is taken, and the rest is not waited for: the caller reads them one by one, which
        takes longer.
        """
        read = 0
        while True:
            *lines, rest = self._unread.split(b"\n")
            if len(lines) > read:
                read = len(lines)
                self._begin_stage(stages[min(read, len(stages) - 1)])
            if not all(line.startswith(b"250 ") for line in lines[: len(stages) - 1]):
                return False
            if read >= len(stages):
                break
            if len(self._unread) > MAX_REPLY_BYTES:
                return False
            self._receive()
        if rest or read > len(stages) or not lines[-1].startswith(b"354 "):
            return False
        self._pipelined = 0
        self._unread.clear()
        return True

    def _expect(self, stage: Stage, line: str, first_digit: int = 2) -> None:
        """Send a command; a reply code with another first digit raises `SmtpFailure`."""
        self._require(*self._command(stage, line), first_digit)

    def _require(self, code: int, text: bytes, first_digit: int = 2) -> None:
        """Raise `SmtpFailure` for a reply code with another first digit."""
        if code // 100 != first_digit:
            raise self._unexpected(code, text)

    def _unexpected(self, code: int, text: bytes) -> SmtpFailure:
        """Return the failure for a reply that was not the expected one."""
        reply = self._reply(code, text)
        if code < 400:
            self.close()
            reply = classify(self.stage, None, to_translate("The mail server sent an unexpected reply."))
        return SmtpFailure(reply)

    def _reply(self, code: int, text: bytes) -> SmtpReply:
        """Return a reply with its meaning, without the secrets that it may repeat."""
        return classify(self.stage, code, self.secrets.apply(text))

    def begin_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Negotiate TLS; the certificate has to be valid for this host."""
        self._begin_stage(Stage.TLS)
        try:
            self._tls = context.wrap_bio(self._tls_received, self._tls_to_send, server_hostname=host.rstrip("."))
            self._run_tls(self._tls.do_handshake)
        except OSError as error:
            raise self._lost(error) from None

    # smtplib writes and reads through these two.

    def send(self, s: bytes | str) -> None:  # type: ignore[override]  # typeshed: any buffer
        """Write everything before the deadline."""
        if self._unread:  # a reply to nothing must not be taken for the reply to this
            failure = self._unexpected(*self.getreply())
            self.close()
            raise failure
        rest = memoryview(s.encode(self.command_encoding) if isinstance(s, str) else s)
        try:
            if self._tls is None:
                self._write(rest)
            else:
                while rest:  # a record at a time: a connection keeps as much memory as its largest write took
                    rest = rest[self._run_tls(partial(self._tls.write, rest[:TLS_RECORD])) :]
        except (BrokenPipeError, ConnectionResetError):
            # What the server sent before it closed can still be read; if it sent nothing, this raises too.
            raise self._unexpected(*self.getreply()) from None
        except OSError as error:
            raise self._lost(error) from None

    def getreply(self) -> tuple[int, bytes]:
        """Return the code and the text of a whole reply (RFC 5321, section 4.2)."""
        lines: list[bytes] = []
        size = 0
        while size <= MAX_REPLY_BYTES and len(lines) < MAX_REPLY_LINES:
            line = self._read_line()
            if not _REPLY_LINE.fullmatch(line):
                break
            size += len(line)
            lines.append(line[4:])
            if line[3:4] != b"-":
                code = int(line[:3])
                if code == 421:  # RFC 5321, section 3.8: the server closes
                    self.close()
                return code, b"\n".join(lines)
        raise self._not_smtp()

    def _not_smtp(self) -> SmtpFailure:
        """Close, and return a failure that quotes nothing: what answered may not be a mail server."""
        self.close()
        return SmtpFailure(classify(self.stage, None, to_translate("The reply is not SMTP.")))

    def _read_line(self) -> bytes:
        """Return the next line without its line end, or nothing for a line that is too long."""
        while b"\n" not in self._unread:
            if len(self._unread) > MAX_REPLY_BYTES:
                return b""
            self._receive()
        line, _, self._unread = self._unread.partition(b"\n")
        return bytes(line.rstrip(b"\r"))

    def _receive(self) -> None:
        try:
            received = self._run_tls(partial(self._tls.read, READ_SIZE)) if self._tls else self._read()
            if not received:  # the end of TLS, which the mail server has announced
                raise ConnectionResetError
        except OSError as error:
            raise self._lost(error) from None
        self._unread += received

    def _run_tls(self, operation: Callable[[], Result]) -> Result:
        """Run an operation of TLS. Send what it wants to send, and read what it lacks, one piece after another."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._write(self._tls_to_send.read())
                self._tls_bytes += self._tls_received.write(self._read())
                if self._tls_bytes > MAX_TLS_BYTES:
                    raise ssl.SSLError("The mail server sends too much that is not SMTP.") from None
            except ssl.SSLError:
                with suppress(OSError):  # the mail server may learn why
                    self._socket().send(self._tls_to_send.read())
                raise
            else:
                self._write(self._tls_to_send.read())
                return result

    def _write(self, data: bytes | memoryview) -> None:
        while data:
            try:
                data = data[self._socket().send(data) :]
            except BlockingIOError:
                self._wait_until(select.POLLOUT)

    def _read(self) -> bytes:
        while True:
            self._wait_until(select.POLLIN)
            with suppress(BlockingIOError):
                if received := self._socket().recv(READ_SIZE):
                    return received
                raise ConnectionResetError

    def _wait_until(self, event: int) -> None:
        """Wait until the socket can be read or written. TimeoutError: not before the deadline."""
        self._poll.modify(self._socket(), event)
        if not self._poll.poll(self.deadline.remaining() * 1000):
            raise TimeoutError

    def _socket(self) -> socket.socket:
        """Return the socket while there is time."""
        if self.sock is None:
            raise ConnectionResetError
        self.deadline.remaining()
        return self.sock

    def _lost(self, error: OSError) -> SmtpFailure:
        self.close()
        return network_failure(self.stage, error)


def _address_literal(sock: socket.socket) -> str:
    """Return our own IP address as a name for EHLO (RFC 5321, section 4.1.3): it needs no lookup."""
    ip_address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    return f"[{ip_address}]" if ip_address.version == 4 else f"[IPv6:{ip_address}]"
