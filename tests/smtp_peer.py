"""A mail server that does as its script says: a real socket on loopback, real TLS, a thread per conversation.

At each step of a conversation (`STEPS`) the script gives a move, or a list of moves for the first, second, … time that
the step comes in a conversation; the last one goes on. A step without a move behaves as a good mail server does.

    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no such user"], "dot": Act.SILENCE}) as peer:
        send(SmtpSettings("127.0.0.1", peer.port, …, reach=LOCAL), …)
    assert peer.conversations[0].commands == [...]
"""

import base64
import hmac
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from typing import Self

import trustme

from portal.mail_servers.reach import Reach

LOCAL = Reach((ip_network("127.0.0.0/8"), ip_network("::1")))  # where the peers are
STEPS = ("greeting", "tls", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot", "rset", "quit")
GOOD = {
    "greeting": "220 peer.test ESMTP",
    "starttls": "220 2.0.0 go ahead",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go ahead",
    "dot": "250 2.0.0 queued as 4711",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
}
EXTENSIONS = ("8BITMIME", "ENHANCEDSTATUSCODES")
CHALLENGE = b"<1896.697170952@peer.test>"


class Act(Enum):
    """What a server may do in place of a reply."""

    SILENCE = "silence"
    DROP = "drop"
    RESET = "reset"
    GARBAGE = "garbage"


@dataclass(frozen=True)
class Slowly:
    """A reply that comes byte by byte."""

    reply: str
    seconds: float = 0.05  # before each byte


@dataclass(frozen=True)
class Deaf:
    """A reply, after which nothing more is taken in."""

    reply: str


Move = str | Act | Slowly | Deaf
Script = Mapping[str, Move | Sequence[Move]]


@dataclass
class ReceivedMail:
    """What the peer took for a mail, as it came; `accepted` where it said so."""

    sender: str
    recipients: list[str]
    content: bytes = b""
    accepted: bool = False


@dataclass
class Conversation:
    """What the other side said: every line but the content; `secure` once TLS is on.

    `ahead` are the verbs that were not the last of what came at once: the other side did not wait for their replies.
    """

    commands: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    mails: list[ReceivedMail] = field(default_factory=list)
    secure: bool = False
    signed_in_as: str | None = None

    @property
    def verbs(self) -> list[str]:
        return [command.split(" ")[0].upper() for command in self.commands]


class SmtpPeer:
    """The mail server. `script` may be exchanged while it runs: conversations begin to follow the new one at once."""

    host = "127.0.0.1"
    offers: Sequence[str] = EXTENSIONS  # where a peer is told nothing else

    def __init__(
        self,
        script: Script | None = None,
        *,
        certificate: trustme.LeafCert | None = None,
        implicit_tls: bool = False,
        accounts: Mapping[str, str] | None = None,
        mechanisms: str = "PLAIN LOGIN",
        extensions: Sequence[str] | None = None,
    ) -> None:
        """Listen on a free port. With a certificate STARTTLS is offered, or spoken at once where TLS is implicit."""
        self.script: Script = script or {}
        self.implicit_tls = implicit_tls
        self.accounts = accounts or {}
        self.mechanisms = mechanisms if accounts else ""
        self.extensions = self.offers if extensions is None else extensions
        self.context = _server_context(certificate) if certificate else None
        self.conversations: list[Conversation] = []
        self.stopped = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def mails(self) -> list[ReceivedMail]:
        """The accepted mails of all conversations."""
        return [mail for conversation in self.conversations for mail in conversation.mails if mail.accepted]

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what was said before a reset is heard
            self._sockets.append(sock)
            conversation = Conversation()
            self.conversations.append(conversation)
            self._start(_Talk(self, sock, conversation).run)


class _Ended(Exception):  # not an error
    """The conversation is over."""


class _Talk:
    """One conversation, in its own thread."""

    def __init__(self, peer: SmtpPeer, sock: socket.socket, conversation: Conversation) -> None:
        self.peer = peer
        self.script = peer.script
        self.sock = sock
        self.conversation = conversation
        self.seen: Counter[str] = Counter()
        self.buffer = b""
        self.mail: ReceivedMail | None = None

    def run(self) -> None:
        with suppress(_Ended, OSError):
            if self.peer.implicit_tls:
                self._handshake()
            self._play("greeting")
            while True:
                self._obey(self._line())
        self.sock.close()

    def _obey(self, line: str) -> None:
        self.conversation.commands.append(line)
        verb, _, argument = line.partition(" ")
        if self.buffer:
            self.conversation.ahead.append(verb.upper())
        match verb.upper():
            case "EHLO":
                self._play("ehlo", self._features())
            case "STARTTLS":
                if self._play("starttls").startswith("2"):
                    self._handshake()
            case "AUTH":
                self._auth(*argument.split(" "))
            case "QUIT":
                self._play("quit")
                raise _Ended
            case "MAIL" | "RCPT" | "DATA" | "RSET" as step:
                self._mail(step.lower(), argument.partition("<")[2].partition(">")[0])
            case _:
                self._say("500 5.5.2 what?")

    def _mail(self, step: str, address: str) -> None:
        good = ""
        if step in ("rcpt", "data") and self.mail is None:
            good = "503 5.5.1 MAIL comes first"
        elif step == "data" and self.mail and not self.mail.recipients:
            good = "554 5.5.1 no valid recipients"
        match step, self._play(step, good)[:1]:
            case "mail", "2":
                self.mail = ReceivedMail(address, [])
                self.conversation.mails.append(self.mail)
            case "rcpt", "2" if self.mail:
                self.mail.recipients.append(address)
            case "data", "3":
                self._content(self.mail or ReceivedMail("", []))
                self.mail = None
            case "rset", "2":
                self.mail = None

    def _content(self, mail: ReceivedMail) -> None:
        self.buffer = b"\r\n" + self.buffer
        mail.content = (self._until(b"\r\n.\r\n") + b"\r\n")[2:]
        move = self._next("dot")
        reply = move.reply if isinstance(move, Slowly) else move
        mail.accepted = isinstance(reply, str) and reply.startswith("2")  # before anybody hears of it
        self._make(move)

    def _play(self, step: str, good: str = "") -> str:
        """Make the script's move for this step and return the reply, if it was one."""
        return self._make(self._next(step, good))

    def _next(self, step: str, good: str = "") -> Move:
        if self.script is not self.peer.script:
            self.script = self.peer.script
            self.seen.clear()
        moves = self.script.get(step, good or GOOD.get(step, ""))
        if not isinstance(moves, Move):
            moves = moves[min(self.seen[step], len(moves) - 1)]
        self.seen[step] += 1
        return moves

    def _make(self, move: Move) -> str:
        match move:
            case Act():
                self._misbehave(move)
                return ""
            case Slowly(reply, seconds):
                self._say(reply, seconds)
                return reply
            case Deaf(reply):
                self._say(reply)
                self.peer.stopped.wait()
                raise _Ended
        self._say(move)
        if move.startswith("421"):
            raise _Ended
        return move

    def _misbehave(self, act: Act) -> None:
        match act:
            case Act.SILENCE:
                while self.sock.recv(4096):
                    pass
            case Act.RESET:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            case Act.GARBAGE:
                self.sock.sendall(b"\x00\xff\r\n<html>secret of another service</html>\r\n")
                return
        raise _Ended

    def _say(self, reply: str, seconds: float = 0) -> None:
        said = reply.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n"
        if not seconds:
            self.sock.sendall(said)
            return
        for byte in said:
            if self.peer.stopped.wait(seconds):
                raise _Ended
            self.sock.sendall(bytes([byte]))

    def _line(self) -> str:
        return self._until(b"\r\n").decode()

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            read = self.sock.recv(65_536)
            if not read:
                raise _Ended
            self.buffer += read
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def _handshake(self) -> None:
        if "tls" in self.script:  # then the move is made in place of a handshake
            self._play("tls")
            raise _Ended
        assert self.peer.context is not None
        self.sock = self.peer.context.wrap_socket(self.sock, server_side=True)
        self.peer._sockets.append(self.sock)
        self.conversation.secure = True

    def _features(self) -> str:
        features = ["peer.test", *self.peer.extensions]
        if self.peer.context and not self.conversation.secure:
            features.append("STARTTLS")
        if self.peer.mechanisms:
            features.append(f"AUTH {self.peer.mechanisms}")
        return "".join(f"250-{feature}\n" for feature in features) + "250 SIZE 10240000"

    def _auth(self, mechanism: str, first: str | None = None) -> None:
        if "auth" in self.script:
            while self._play("auth").startswith("334"):
                self.conversation.commands.append(self._line())
            return
        if mechanism == "LOGIN":
            user, password = self._ask(b"User Name"), self._ask(b"Password")
        elif mechanism == "PLAIN":
            _, user, password = (base64.b64decode(first) if first else self._ask(b"")).split(b"\0")
        else:
            user, _, digest = self._ask(CHALLENGE).partition(b" ")
            expected = self.peer.accounts.get(user.decode(), "")
            right = hmac.new(expected.encode(), CHALLENGE, "md5").hexdigest().encode() == digest
            password = expected.encode() if right else b""
        if self.peer.accounts.get(user.decode()) == password.decode():
            self.conversation.signed_in_as = user.decode()
            self._say("235 2.7.0 welcome")
        else:
            self._say("535 5.7.8 wrong user name or password")

    def _ask(self, challenge: bytes) -> bytes:
        self._say(f"334 {base64.b64encode(challenge).decode()}")
        line = self._line()
        self.conversation.commands.append(line)
        return base64.b64decode(line)


def unstuffed(content: bytes) -> bytes:
    """Return the content without the dots that only the wire needs (RFC 5321, section 4.5.2)."""
    return re.sub(rb"(?m)^\.", b"", content)


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port where nothing listens, kept from others for as long."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def unanswering_port() -> Iterator[int]:
    """A port that answers no connect: its queue is full and nobody takes from it."""
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        yield sock.getsockname()[1]
