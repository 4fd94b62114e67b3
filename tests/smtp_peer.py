"""A scripted mail server: a real socket on loopback, real TLS, a thread per conversation.

For each step of a conversation (`STEPS`) the script has an action, or a list of actions for the first, second, … time
that the step occurs in a conversation; the last one is repeated. A step without an action gets a normal reply.

    with SmtpPeer({"rcpt": ["250 ok", "550 5.1.1 no such user"], "dot": Act.SILENCE}) as peer:
        send(SmtpSettings("127.0.0.1", peer.port, …, network_policy=LOCAL), …)
    assert peer.conversations[0].commands == [...]
"""

import base64
import hmac
import json
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

from portal.mail_servers.smtp.network_policy import NetworkPolicy

LOCAL = NetworkPolicy((ip_network("127.0.0.0/8"), ip_network("::1")))  # where the scripted mail servers listen
STEPS = ("greeting", "tls", "ehlo", "helo", "starttls", "auth", "mail", "rcpt", "data", "dot", "rset", "quit")
DEFAULT_REPLIES = {
    "greeting": "220 peer.test ESMTP",
    "helo": "250 peer.test",
    "starttls": "220 2.0.0 go ahead",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go ahead",
    "dot": "250 2.0.0 queued as 4711",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
}
EXTENSIONS = ("8BITMIME", "ENHANCEDSTATUSCODES")
MAX_COMMAND_LENGTH = 510  # without the line end (RFC 5321, section 4.5.3.1.4)
CHALLENGE = b"<1896.697170952@peer.test>"
TOKEN_ERROR = {"status": "401", "schemes": "bearer", "scope": "mail"}
TOKEN_RESPONSES = {  # the one that signs in, and the one to the error
    "XOAUTH2": (rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", b""),
    "OAUTHBEARER": (rb"n,a=([^\x01,]*),\x01host=127\.0\.0\.1\x01port=\d+\x01auth=Bearer ([^\x01]*)\x01\x01", b"\x01"),
}


class Fault(Enum):
    """What a faulty server does instead of replying."""

    SILENCE = "silence"
    DROP = "drop"
    RESET = "reset"
    GARBAGE = "garbage"


@dataclass(frozen=True)
class SlowReply:
    """A reply that is sent byte by byte."""

    reply: str
    seconds: float = 0.05  # before each byte


@dataclass(frozen=True)
class ReplyThenHang:
    """A reply, after which nothing more is read."""

    reply: str


Action = str | Fault | SlowReply | ReplyThenHang
Script = Mapping[str, Action | Sequence[Action]]


@dataclass
class ReceivedMessage:
    """A message, whether the server accepted it, and its content as it was transmitted, with stuffed dots."""

    sender: str
    recipients: list[str]
    transmitted: bytes = b""
    accepted: bool = False

    @property
    def content(self) -> bytes:
        """The content without the dots added for transmission (RFC 5321, section 4.5.2)."""
        return re.sub(rb"(?m)^\.", b"", self.transmitted)


@dataclass
class Conversation:
    """What the client sent: `commands` has every line except message content.

    `pipelined` are the verbs after which more had already arrived: the client did not wait for their replies.
    """

    commands: list[str] = field(default_factory=list)
    pipelined: list[str] = field(default_factory=list)
    messages: list[ReceivedMessage] = field(default_factory=list)
    encrypted: bool = False
    signed_in_as: str | None = None

    @property
    def verbs(self) -> list[str]:
        return [command.split(" ")[0].upper() for command in self.commands]


class SmtpPeer:
    """The mail server. `script` can be replaced while it runs: current conversations follow the new one at once."""

    host = "127.0.0.1"
    default_extensions: Sequence[str] = EXTENSIONS

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
        """Listen on a free port. With a certificate the server offers STARTTLS, or implicit TLS if so chosen."""
        self.script: Script = script or {}
        self.implicit_tls = implicit_tls
        self.accounts = accounts or {}  # passwords by username, or access tokens by mailbox
        self.mechanisms = mechanisms if accounts else ""
        self.extensions = self.default_extensions if extensions is None else extensions
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
        self._threads[0].join(5)  # it may have accepted one more
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def messages(self) -> list[ReceivedMessage]:
        """The accepted messages of all conversations."""
        received = [message for conversation in self.conversations for message in conversation.messages]
        return [message for message in received if message.accepted]

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
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that data sent before a reset arrives
            self._sockets.append(sock)
            conversation = Conversation()
            self.conversations.append(conversation)
            self._start(_ConversationThread(self, sock, conversation).run)


class _ConversationEnded(Exception):
    """The conversation is over."""


class _ConversationThread:
    """One conversation, in its own thread."""

    def __init__(self, peer: SmtpPeer, sock: socket.socket, conversation: Conversation) -> None:
        self.peer = peer
        self.script = peer.script
        self.sock = sock
        self.conversation = conversation
        self.seen: Counter[str] = Counter()
        self.buffer = b""
        self.message: ReceivedMessage | None = None

    def run(self) -> None:
        with suppress(_ConversationEnded, OSError):
            if self.peer.implicit_tls:
                self._handshake()
            self._play("greeting")
            while True:
                line = self._read_line()
                if len(line) > MAX_COMMAND_LENGTH:
                    self._send("500 5.5.2 Line too long")
                else:
                    self._handle(line)
        self.sock.close()

    def _handle(self, line: str) -> None:
        self.conversation.commands.append(line)
        verb, _, argument = line.partition(" ")
        if self.buffer:
            self.conversation.pipelined.append(verb.upper())
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
                raise _ConversationEnded
            case "HELO" | "MAIL" | "RCPT" | "DATA" | "RSET" as step:
                self._transaction_step(step.lower(), argument.partition("<")[2].partition(">")[0])
            case _:
                self._send("500 5.5.2 what?")

    def _transaction_step(self, step: str, email: str) -> None:
        default = ""
        if step in ("rcpt", "data") and self.message is None:
            default = "503 5.5.1 MAIL comes first"
        elif step == "data" and self.message and not self.message.recipients:
            default = "554 5.5.1 no valid recipients"
        match step, self._play(step, default)[:1]:
            case "mail", "2":
                self.message = ReceivedMessage(email, [])
                self.conversation.messages.append(self.message)
            case "rcpt", "2" if self.message:
                self.message.recipients.append(email)
            case "data", "3":
                self._receive_content(self.message or ReceivedMessage("", []))
                self.message = None
            case "rset", "2":
                self.message = None

    def _receive_content(self, message: ReceivedMessage) -> None:
        self.buffer = b"\r\n" + self.buffer
        message.transmitted = (self._read_until(b"\r\n.\r\n") + b"\r\n")[2:]
        action = self._next_action("dot")
        reply = action.reply if isinstance(action, SlowReply) else action
        message.accepted = isinstance(reply, str) and reply.startswith("2")  # before the client gets the reply
        self._perform(action)

    def _play(self, step: str, default: str = "") -> str:
        """Perform the script's action for this step, and return the reply if it was one."""
        return self._perform(self._next_action(step, default))

    def _next_action(self, step: str, default: str = "") -> Action:
        if self.script is not self.peer.script:
            self.script = self.peer.script
            self.seen.clear()
        actions = self.script.get(step, default or DEFAULT_REPLIES.get(step, ""))
        if not isinstance(actions, Action):
            actions = actions[min(self.seen[step], len(actions) - 1)]
        self.seen[step] += 1
        return actions

    def _perform(self, action: Action) -> str:
        match action:
            case Fault():
                self._fail(action)
                return ""
            case SlowReply(reply, seconds):
                self._send(reply, seconds)
                return reply
            case ReplyThenHang(reply):
                self._send(reply)
                self.peer.stopped.wait()
                raise _ConversationEnded
        self._send(action)
        if action.startswith("421"):
            raise _ConversationEnded
        return action

    def _fail(self, fault: Fault) -> None:
        match fault:
            case Fault.SILENCE:
                while self.sock.recv(4096):
                    pass
            case Fault.RESET:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            case Fault.GARBAGE:
                self.sock.sendall(b"\x00\xff\r\n<html>secret of another service</html>\r\n")
                return
        raise _ConversationEnded

    def _send(self, reply: str, seconds: float = 0) -> None:
        data = reply.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n"
        if not seconds:
            self.sock.sendall(data)
            return
        for byte in data:
            if self.peer.stopped.wait(seconds):
                raise _ConversationEnded
            self.sock.sendall(bytes([byte]))

    def _read_line(self) -> str:
        return self._read_until(b"\r\n").decode()

    def _read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            received = self.sock.recv(65_536)
            if not received:
                raise _ConversationEnded
            self.buffer += received
        data, _, self.buffer = self.buffer.partition(end)
        return data

    def _handshake(self) -> None:
        if "tls" in self.script:  # its action replaces the handshake
            self._play("tls")
            raise _ConversationEnded
        assert self.peer.context is not None
        self.sock = self.peer.context.wrap_socket(self.sock, server_side=True)
        self.peer._sockets.append(self.sock)
        self.conversation.encrypted = True

    def _features(self) -> str:
        features = ["peer.test", *self.peer.extensions]
        if self.peer.context and not self.conversation.encrypted:
            features.append("STARTTLS")
        if self.peer.mechanisms:
            features.append(f"AUTH {self.peer.mechanisms}")
        return "".join(f"250-{feature}\n" for feature in features) + "250 SIZE 10240000"

    def _auth(self, mechanism: str, first: str | None = None) -> None:
        if "auth" in self.script:
            while self._play("auth").startswith("334"):
                self.conversation.commands.append(self._read_line())
            return
        if mechanism == "LOGIN":
            user, password = self._ask(b"User Name"), self._ask(b"Password")
        elif mechanism in TOKEN_RESPONSES:
            user, password = self._ask_for_token(*TOKEN_RESPONSES[mechanism])
        elif mechanism == "PLAIN":
            _, user, password = (base64.b64decode(first) if first else self._ask(b"")).split(b"\0")
        else:
            user, _, digest = self._ask(CHALLENGE).partition(b" ")
            expected = self.peer.accounts.get(user.decode(), "")
            right = hmac.new(expected.encode(), CHALLENGE, "md5").hexdigest().encode() == digest
            password = expected.encode() if right else b""
        if self.peer.accounts.get(user.decode()) == password.decode():
            self.conversation.signed_in_as = user.decode()
            self._send("235 2.7.0 welcome")
        else:
            self._send("535 5.7.8 wrong username or password")

    def _ask_for_token(self, expression: bytes, response_to_error: bytes) -> tuple[bytes, bytes]:
        match = re.fullmatch(expression, self._ask(b""))
        assert match is not None
        user, token = match.groups()
        if self.peer.accounts.get(user.decode()) != token.decode():
            assert self._ask(json.dumps(TOKEN_ERROR).encode()) == response_to_error
        return user, token

    def _ask(self, challenge: bytes) -> bytes:
        self._send(f"334 {base64.b64encode(challenge).decode()}")
        line = self._read_line()
        self.conversation.commands.append(line)
        return base64.b64decode(line)


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, reserved during the block."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that never answers a connection: its queue is full and nothing accepts from it."""
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        yield sock.getsockname()[1]
