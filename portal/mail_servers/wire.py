"""Commands and replies over a socket: smtplib, with a deadline for each byte and a fault in place of an exception."""

import ipaddress
import re
import select
import smtplib
import socket
import ssl
from collections.abc import Sequence

from portal.languages import to_translate
from portal.mail_servers.dialling import Deadline, fault_of
from portal.mail_servers.outcome import Fault, Outcome, Stage, classify

REPLY_BYTES = 65_536

_REPLY_LINE = re.compile(rb"[2-5]\d\d(?:[ -].*)?", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{6,}")


class Wire(smtplib.SMTP):
    """The wire to a mail server. Each method that talks raises `Fault` where the talk cannot go on.

    `deadline` may be replaced between two mails; `command_seconds` is the longest that one command may take.
    """

    sock: socket.socket | None

    def __init__(self, sock: socket.socket, helo_name: str | None, deadline: Deadline, command_seconds: float) -> None:
        super().__init__(local_hostname=helo_name or _address_literal(sock))
        self.sock = sock
        self.deadline = deadline
        self.command_seconds = command_seconds
        self.stage = Stage.GREETING
        self.received = bytearray()  # what came and is not yet read
        self.ahead = 0  # commands that were said and whose replies are not yet read
        # Not passed on, should the server say them before it lets us in: the password, and how it looks on the wire.
        self.secrets: list[str] = []

    @property
    def peer(self) -> str:
        """The numeric address of the other side."""
        try:
            return str(self._socket().getpeername()[0])
        except OSError as error:
            raise self._lost(error) from None

    @property
    def is_quiet(self) -> bool:
        """Whether the wire is open and nothing came unasked: what comes then is a farewell, or the end."""
        if self.sock is None or self.received or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def begin(self, stage: Stage) -> None:
        """Begin the next step of the conversation, with its own share of the time."""
        self.stage = stage
        self.deadline.allow(self.command_seconds)

    def command(self, stage: Stage, line: str) -> tuple[int, bytes]:
        """Send one command, if it was not said ahead, and return its reply."""
        self.begin(stage)
        if self.ahead:
            self.ahead -= 1
        else:
            self.putcmd(line)
        return self.getreply()

    def say_ahead(self, stage: Stage, lines: Sequence[str]) -> None:
        """Send these commands at once (RFC 2920); `command` is to be called for each, in the same order."""
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a command is one line")
        self.begin(stage)
        self.send("".join(f"{line}\r\n" for line in lines))
        self.ahead = len(lines)

    def expect(self, stage: Stage, line: str, hundred: int = 2) -> None:
        """Send one command; any reply but one of this hundred raises `Fault`."""
        self.require(*self.command(stage, line), hundred)

    def require(self, code: int, words: bytes, hundred: int = 2) -> None:
        """Raise `Fault` for any reply but one of this hundred."""
        if code // 100 != hundred:
            raise self.unwelcome(code, words)

    def unwelcome(self, code: int, words: bytes) -> Fault:
        """Return what it means that this reply came where another was needed."""
        outcome = self.outcome(code, words)
        if code < 400:
            self.close()
            outcome = classify(self.stage, None, to_translate("The mail server answered out of turn."))
        return Fault(outcome)

    def outcome(self, code: int, words: bytes) -> Outcome:
        """Return what a reply means, without a secret that it may repeat."""
        return classify(self.stage, code, self.without_secrets(words.decode(errors="replace")))

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS; the certificate has to be valid for this host."""
        self.begin(Stage.TLS)
        try:
            plain = self._socket()
            plain.getpeername()  # raises where the peer is gone: wrap_socket would do so too, and leak its socket
            tls = context.wrap_socket(plain, server_hostname=host.rstrip("."), do_handshake_on_connect=False)
            self.sock = tls
            self._socket()
            tls.do_handshake()
        except OSError as error:
            raise self._lost(error) from None

    # smtplib writes and reads by these two.

    def send(self, s: bytes | str) -> None:  # type: ignore[override]  # typeshed: any buffer
        """Write all of it before the deadline."""
        if self.received:  # a reply to nothing: it must not be taken for the next one
            fault = self.unwelcome(*self.getreply())
            self.close()
            raise fault
        rest = memoryview(s.encode(self.command_encoding) if isinstance(s, str) else s)
        try:
            while rest:
                rest = rest[self._socket().send(rest) :]
        except (BrokenPipeError, ConnectionResetError):
            # What the server said before it hung up is still there to be read; if it said nothing, this raises too.
            raise self.unwelcome(*self.getreply()) from None
        except OSError as error:
            raise self._lost(error) from None

    def getreply(self) -> tuple[int, bytes]:
        """Return the code and the text of a whole reply (RFC 5321, section 4.2)."""
        lines: list[bytes] = []
        size = 0
        while size <= REPLY_BYTES:
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
        raise self.not_smtp()

    def not_smtp(self) -> Fault:
        """Close, and return the end of the talk without a word of what came: it may be from no mail server."""
        self.close()
        return Fault(classify(self.stage, None, to_translate("The reply is not SMTP.")))

    def _read_line(self) -> bytes:
        """Return the next line without its end; one that is too long comes back empty."""
        while b"\n" not in self.received:
            if len(self.received) > REPLY_BYTES:
                return b""
            try:
                read = self._socket().recv(4096)
                if not read:
                    raise ConnectionResetError
            except OSError as error:
                raise self._lost(error) from None
            self.received += read
        line, _, self.received = self.received.partition(b"\n")
        return bytes(line.rstrip(b"\r"))

    def _socket(self) -> socket.socket:
        """Return the socket, with a timeout of what is left of the time."""
        if self.sock is None:
            raise ConnectionResetError
        self.sock.settimeout(self.deadline.left())
        return self.sock

    def _lost(self, error: OSError) -> Fault:
        self.close()
        return fault_of(self.stage, error)

    def without_secrets(self, text: str) -> str:
        """Return the text with "[…]" in place of secrets, also of a part of an encoded one."""
        if not self.secrets:
            return text

        def said_back(word: re.Match[str]) -> str:
            said = word[0].casefold()
            return "[…]" if any(said in secret.casefold() for secret in self.secrets) else word[0]

        longest_first = sorted(self.secrets, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), "[…]", text, flags=re.IGNORECASE)
        return _BASE64.sub(said_back, text)


def _address_literal(sock: socket.socket) -> str:
    """Return our own address as a name for EHLO (RFC 5321, section 4.1.3): it needs no lookup."""
    address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
