"""A conversation that somebody follows step by step: a test e-mail's. Other mail goes without an observer."""

import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from portal.mail_servers.dialling import Address, Deadline
from portal.mail_servers.outcome import Outcome, Stage
from portal.mail_servers.smtp import Session

TOLD = {Stage.GREETING, Stage.AUTH, Stage.MAIL, Stage.RCPT}  # whose replies say something to a person


class Observer(Protocol):
    """Who follows a conversation. Whatever is told of a mail server's words is without secrets."""

    def dials(self, address: Address) -> None:
        """Hear that an address within reach is dialled now."""

    def begins(self, stage: Stage) -> None:
        """Hear that a step begins; RCPT begins once for each recipient."""

    def replied(self, outcome: Outcome) -> None:
        """Hear what the mail server replied to the step that is ending."""

    def encrypted(self, version: str, certificate: Mapping[str, Any], host: str) -> None:
        """Hear of TLS's version, and of the certificate (as `getpeercert` has it) that is valid for the host."""

    def signs_in(self, mechanism: str) -> None:
        """Hear how the portal is going to sign in."""


class WatchedSession(Session):
    """A conversation with a mail server that tells of itself."""

    def __init__(
        self, sock: socket.socket, helo_name: str | None, deadline: Deadline, seconds: float, observer: Observer
    ) -> None:
        super().__init__(sock, helo_name, deadline, seconds)
        self._observer = observer
        self._heard: tuple[int, bytes] | None = None

    def begin(self, stage: Stage) -> None:
        """Begin the next step. That it comes to this means that the last reply was one that may be told."""
        code, words = self._heard or (0, b"")
        if self.stage in TOLD and code // 100 in (2, 4, 5):
            self._observer.replied(self.outcome(code, words))
        self._heard = None
        super().begin(stage)
        self._observer.begins(stage)

    def getreply(self) -> tuple[int, bytes]:
        """Return the code and the text of a whole reply."""
        self._heard = super().getreply()
        return self._heard

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS, and tell what was agreed on."""
        super().secure(context, host)
        assert isinstance(self.sock, ssl.SSLSocket)
        self._observer.encrypted(self.sock.version() or "TLS", self.sock.getpeercert() or {}, host)

    def _choose(self, mechanisms: Sequence[str]) -> str:
        mechanism = super()._choose(mechanisms)
        self._observer.signs_in(mechanism)
        return mechanism
