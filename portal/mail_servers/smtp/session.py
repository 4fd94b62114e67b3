"""One SMTP session: greeting, TLS, one sign-in, then messages with a reply for each recipient."""

import base64
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from portal.mail_servers.smtp.connect import Deadline, SocketAddress, settings_failure
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, SmtpReply, Stage, classify, is_session_limit
from portal.mail_servers.smtp.sasl import MECHANISMS, TOKEN_MECHANISMS, TokenCredentials, describe_error
from portal.mail_servers.smtp.transport import SmtpTransport
from portal.web.i18n import to_translate

LAST_REPLIES_TIMEOUT = 1.0  # seconds: nothing depends on them
# The replies to this many commands fit the network buffers, so that neither side waits (RFC 2920, section 3.1).
MAX_PIPELINED_RECIPIENTS = 100
EHLO_UNKNOWN = (500, 502)
MAX_COMMAND_LENGTH = 510  # without the line end (RFC 5321, section 4.5.3.1.4)


class SmtpSession(SmtpTransport):
    """A session with a mail server. Every step but `transact` and `quit_and_close` may raise `SmtpFailure`."""

    is_reusable = False  # whether the last message left the session ready for another
    _in_transaction = False

    def greet(self, *, helo_is_enough: bool = False) -> None:
        """Read the greeting and send EHLO, and HELO to a server that does not know EHLO (RFC 5321, section 3.2).

        The text of anything but a proper greeting is not passed on.
        """
        self._begin_stage(Stage.GREETING)
        code, text = self.getreply()
        if code >= 400:
            raise SmtpFailure(classify(Stage.GREETING, code, to_translate("The mail server rejected the connection.")))
        is_text = text.translate(None, b"\t\n").decode(errors="surrogateescape").isprintable()
        if code != 220 or not is_text:
            raise self._not_smtp()
        self._send_ehlo(helo_is_enough=helo_is_enough)

    def _send_ehlo(self, *, helo_is_enough: bool = False) -> None:
        self._begin_stage(Stage.EHLO)
        code, text = self.ehlo()
        if code in EHLO_UNKNOWN and helo_is_enough:
            code, text = self._command(Stage.EHLO, f"HELO {self.local_hostname}")
        self._require(code, text)

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Switch to TLS (RFC 3207) and send EHLO again; without TLS the session ends."""
        if not self.has_extn("starttls"):
            raise settings_failure(Stage.TLS, to_translate("The mail server does not offer STARTTLS."))
        self._expect(Stage.TLS, "STARTTLS")
        if self._unread:  # it would be read as if it had come over TLS
            self.close()
            raise settings_failure(Stage.TLS, to_translate("Unencrypted data arrived after encryption was agreed."))
        self.begin_tls(context, host)
        self._send_ehlo()

    def sign_in(self, mechanisms: Sequence[str], username: str | None, password: str | None) -> None:
        """Sign in once, with the first of these mechanisms that is offered: more attempts could lock the account.

        Username and password are sent as UTF-8 (RFC 4616, section 2).
        """
        if not username or not password:
            raise settings_failure(Stage.AUTH, to_translate("The username or the password is missing."))
        mechanism = self._choose_mechanism(mechanisms)
        responses = MECHANISMS[mechanism](username.encode(), password.encode())
        # PLAIN sends its response with the command, which saves a round trip; not every server accepts that for LOGIN.
        command = f"AUTH {mechanism}"
        if mechanism == "PLAIN":
            command += f" {self.secrets.add_response(responses[0](b''))}"
        if len(command) > MAX_COMMAND_LENGTH:  # then it must not contain the response (RFC 4954, section 4)
            command = f"AUTH {mechanism}"
        code, text = self._command(Stage.AUTH, command)
        for respond in responses:
            if code != 334:
                break
            code, text = self._command(Stage.AUTH, self.secrets.add_response(respond(_decode_challenge(text))))
        self._require(code, text)

    def sign_in_with_token(self, credentials: TokenCredentials) -> None:
        """Sign in with an access token. A reply that rejects it ends with the mechanism and what the server says of it.

        The token never is on the line of the command, which it would make too long (RFC 4954, section 4).
        """
        mechanism = self._choose_mechanism(list(TOKEN_MECHANISMS))
        response, response_to_error = TOKEN_MECHANISMS[mechanism](credentials)
        code, text = self._command(Stage.AUTH, f"AUTH {mechanism}")
        if code == 334:
            code, text = self._command(Stage.AUTH, self.secrets.add_response(response))
        error = ""
        if code == 334:
            error = describe_error(_decode_challenge(text))
            code, text = self._command(Stage.AUTH, self.secrets.add_response(response_to_error))
        self._require(code, text + f" ({mechanism}{': ' if error else ''}{error})".encode())

    def _choose_mechanism(self, mechanisms: Sequence[str]) -> str:
        offered = self.esmtp_features.get("auth", "").upper().split()
        for mechanism in mechanisms:
            if mechanism in offered:
                return mechanism
        names = ", ".join(name for name in offered if re.fullmatch(r"[A-Z0-9_-]{1,20}", name))  # RFC 4422, section 3.1
        names = self.secrets.apply(names.encode())
        if names and set(mechanisms) <= TOKEN_MECHANISMS.keys():
            raise settings_failure(Stage.AUTH, to_translate("The mail server does not offer OAuth 2.0."))
        text = f"The mail server offers only {names}." if names else to_translate("The mail server offers no sign-in.")
        raise settings_failure(Stage.AUTH, text)

    def hide_password(self, username: str | None, password: str | None) -> None:
        """Mask the password in replies, already in the greeting: the server may know it."""
        if password:
            self.secrets.add_password(password)
            for responses_of in MECHANISMS.values():
                for respond in responses_of((username or "").encode(), password.encode()):
                    self.secrets.add_response(respond(b""))

    def hide_token(self, credentials: TokenCredentials) -> None:
        """Mask the token in replies, as a password."""
        self.secrets.add_token(credentials.token)
        for responses_of in TOKEN_MECHANISMS.values():
            self.secrets.add_response(responses_of(credentials)[0])

    def transact(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, SmtpReply]:
        """Run one mail transaction between ASCII addresses, each once, and return the reply for each recipient."""
        self.is_reusable = False
        rejected: dict[str, SmtpReply] = {}
        shared: SmtpReply | None = None  # the reply for all other recipients
        try:
            if not self._start_transaction(sender, recipients):
                self._name_recipients(recipients, rejected)
                if len(rejected) < len(recipients):
                    self._expect(Stage.DATA, "DATA", 3)
            if len(rejected) < len(recipients):
                shared = self._send_content(content)
            else:
                self._abort_transaction()
        except SmtpFailure as failure:
            shared = failure.reply
            self._read_pipelined_replies()
        replies = {recipient: rejected.get(recipient, shared) for recipient in recipients} if shared else rejected
        self.is_reusable = self.sock is not None and not any(
            reply.stage is Stage.MAIL or is_session_limit(reply) for reply in replies.values()
        )
        return replies

    def _start_transaction(self, sender: str, recipients: Sequence[str]) -> bool:
        """Begin a transaction. Return whether all commands up to DATA were pipelined and have the usual replies."""
        reset = ["RSET"] if self._in_transaction else []  # the previous transaction did not end
        mail = f"MAIL FROM:<{sender}>"
        if self.has_extn("pipelining") and len(recipients) <= MAX_PIPELINED_RECIPIENTS:
            self._pipeline(Stage.MAIL, [*reset, mail, *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"])
            stages = [*[Stage.MAIL] * (len(reset) + 1), *[Stage.RCPT] * len(recipients), Stage.DATA]
            if self._read_usual_replies(stages):
                self._in_transaction = True
                return True
        for line in (*reset, mail):
            self._expect(Stage.MAIL, line)
        self._in_transaction = True
        return False

    def _name_recipients(self, recipients: Sequence[str], rejected: dict[str, SmtpReply]) -> None:
        """Send the envelope recipients, and note the replies that reject some of them."""
        for recipient in recipients:
            code, text = self._command(Stage.RCPT, f"RCPT TO:<{recipient}>")
            if code == 421 or code < 400:
                self._require(code, text)
            else:
                rejected[recipient] = self._reply(code, text)

    def _send_content(self, content: bytes) -> SmtpReply:
        self.deadline.start_step(float("inf"))
        self.send(_dot_stuffed(content))
        self.deadline.start_final_step(self.deadline.timeouts.reply)
        try:
            code, text = self.getreply()
            if code < 200 or 300 <= code < 400:
                raise self._unexpected(code, text)
        except SmtpFailure as failure:
            return replace(failure.reply, kind=ReplyKind.UNKNOWN)
        self._in_transaction = False
        return self._reply(code, text)

    def _abort_transaction(self) -> None:
        """End a transaction without recipients; a server that waits for content gets none (RFC 2920, section 3.1)."""
        if self._pipelined and self._command(Stage.DATA, "DATA")[0] == 354:
            self._command(Stage.DATA, ".")

    def _read_pipelined_replies(self) -> None:
        """Read the replies to commands that were pipelined after the one that failed."""
        self.deadline.start_final_step(min(LAST_REPLIES_TIMEOUT, self.deadline.timeouts.command))
        with suppress(SmtpFailure):
            while self._pipelined:
                self._pipelined -= 1
                if self.getreply()[0] == 354:  # it rejected the message, but waits for the content
                    self.close()

    def quit_and_close(self, *, wait: bool = True) -> None:
        """Send QUIT, wait briefly for the reply unless told not to, and close. Errors are ignored."""
        if self.sock is None:
            return
        self.deadline.start_final_step(min(LAST_REPLIES_TIMEOUT, self.deadline.timeouts.command))
        with suppress(SmtpFailure):
            self.putcmd("QUIT")
            if wait:
                self.getreply()
        self.close()


def _decode_challenge(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


def _dot_stuffed(content: bytes) -> bytes:
    """Return the content as it is sent after DATA (RFC 5321, section 4.5.2), with its final dot."""
    without_line_ends = content.replace(b"\r\n", b"")
    if b"\n" in without_line_ends or b"\r" in without_line_ends:
        content = re.sub(rb"\r\n|\r|\n", b"\r\n", content)  # a bare LF could end the message early for some servers
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"


class Observer(Protocol):
    """Follows a session as it happens. Replies come without secrets."""

    def on_connecting(self, address: SocketAddress) -> None:
        """An address that the network policy allows is about to be connected to."""

    def on_stage(self, stage: Stage) -> None:
        """A stage begins; RCPT begins once for each recipient."""

    def on_reply(self, reply: SmtpReply) -> None:
        """The mail server replied to the stage that is about to end."""

    def on_tls(self, version: str, certificate: Mapping[str, Any], host: str) -> None:
        """TLS was negotiated: its version, and the verified certificate (as `getpeercert` returns it) for the host."""

    def on_sign_in(self, mechanism: str) -> None:
        """The portal is about to sign in with this mechanism."""


_OBSERVED_STAGES = {Stage.GREETING, Stage.AUTH, Stage.MAIL, Stage.RCPT}  # whose replies are worth reading


class ObservedSession(SmtpSession):
    """A session that reports each step to an observer."""

    def __init__(self, sock: socket.socket, helo_name: str | None, deadline: Deadline, observer: Observer) -> None:
        super().__init__(sock, helo_name, deadline)
        self._observer = observer
        self._last_reply: tuple[int, bytes] | None = None

    def _begin_stage(self, stage: Stage) -> None:
        """Begin the next stage. Reaching it means that the last reply did not end the session, so it can be shown."""
        code, text = self._last_reply or (0, b"")
        if self.stage in _OBSERVED_STAGES and code // 100 in (2, 4, 5):
            self._observer.on_reply(self._reply(code, text))
        self._last_reply = None
        super()._begin_stage(stage)
        self._observer.on_stage(stage)

    def _read_usual_replies(self, stages: Sequence[Stage]) -> bool:  # noqa: ARG002 (each reply is reported)
        return False

    def getreply(self) -> tuple[int, bytes]:
        """Return the code and the text of a whole reply."""
        self._last_reply = super().getreply()
        return self._last_reply

    def begin_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Negotiate TLS, and report what was negotiated."""
        super().begin_tls(context, host)
        assert self._tls
        self._observer.on_tls(self._tls.version() or "TLS", self._tls.getpeercert() or {}, host)

    def _choose_mechanism(self, mechanisms: Sequence[str]) -> str:
        mechanism = super()._choose_mechanism(mechanisms)
        self._observer.on_sign_in(mechanism)
        return mechanism
