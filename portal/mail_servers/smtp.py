"""One SMTP conversation: greeting, TLS, one attempt to sign in, and mails with an outcome for each recipient."""

import base64
import re
import ssl
from collections.abc import Sequence
from dataclasses import replace

from portal.mail_servers.dialling import settings_fault
from portal.mail_servers.mechanisms import MECHANISMS
from portal.mail_servers.outcome import Fault, Kind, Outcome, Stage
from portal.mail_servers.wire import Wire

QUIT_SECONDS = 1.0


class Session(Wire):
    """A conversation with a mail server, step by step; every step but `transact` and `leave` may raise `Fault`."""

    _in_transaction = False

    def greet(self) -> None:
        """Read the greeting and say EHLO."""
        self.begin(Stage.GREETING)
        self.require(*self.getreply())
        self._say_ehlo()

    def _say_ehlo(self) -> None:
        self.begin(Stage.EHLO)
        self.require(*self.ehlo())

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Turn to TLS (RFC 3207), never going on without it, and say EHLO again."""
        if not self.has_extn("starttls"):
            raise settings_fault(Stage.TLS, "The mail server does not offer STARTTLS.")
        self.expect(Stage.TLS, "STARTTLS")
        if self.received:  # it would be read as if it had come under TLS
            self.close()
            raise settings_fault(Stage.TLS, "Something spoke in clear after encryption was agreed on.")
        self.secure(context, host)
        self._say_ehlo()

    def sign_in(self, mechanisms: Sequence[str], username: str | None, password: str | None) -> None:
        """Try once, with the first of these mechanisms that is offered (RFC 4954): more tries could lock an account.

        User name and password go out as UTF-8 (RFC 4616, section 2).
        """
        if not username or not password:
            raise settings_fault(Stage.AUTH, "There is no user name or no password to sign in with.")
        self.password = password
        mechanism = self._choose(mechanisms)
        answers = MECHANISMS[mechanism](username.encode(), password.encode())
        # PLAIN answers with its command, which saves a round trip; not every server takes that with LOGIN.
        answer_at_once = f" {self._secret(answers[0](b''))}" if mechanism == "PLAIN" else ""
        code, words = self.command(Stage.AUTH, f"AUTH {mechanism}{answer_at_once}")
        for answer in answers:
            if code != 334:
                break
            code, words = self.command(Stage.AUTH, self._secret(answer(_challenge(words))))
        self.require(code, words)

    def _choose(self, mechanisms: Sequence[str]) -> str:
        offered = self.esmtp_features.get("auth", "").upper().split()
        for mechanism in mechanisms:
            if mechanism in offered:
                return mechanism
        known = ", ".join(name for name in offered if re.fullmatch(r"[A-Z0-9_-]{1,20}", name))  # RFC 4422, section 3.1
        text = f"The mail server offers only {known}." if known else "The mail server offers no sign-in."
        raise settings_fault(Stage.AUTH, text)

    def _secret(self, answer: bytes) -> str:
        encoded = base64.b64encode(answer).decode()
        self.secrets.append(encoded.casefold())
        return encoded

    def transact(
        self, sender: str, recipients: Sequence[str], content: bytes, reply_seconds: float
    ) -> dict[str, Outcome]:
        """Offer one mail to these recipients and return what became of it for each.

        Args:
            sender: envelope sender, an ASCII address.
            recipients: ASCII addresses, each once.
            content: the mail.
            reply_seconds: how long the reply to the final dot may take, beyond the deadline.
        """
        refused: dict[str, Outcome] = {}
        try:
            self._begin_mail(sender)
            for recipient in recipients:
                code, words = self.command(Stage.RCPT, f"RCPT TO:<{recipient}>")
                if code == 421 or code < 400:
                    self.require(code, words)
                else:
                    refused[recipient] = self.outcome(code, words)
            if len(refused) == len(recipients):
                return refused
            rest = self._finish_mail(content, reply_seconds)
        except Fault as fault:
            rest = fault.outcome
        return {recipient: refused.get(recipient, rest) for recipient in recipients}

    def _begin_mail(self, sender: str) -> None:
        if self._in_transaction:  # the mail before this one ended half way
            self.expect(Stage.MAIL, "RSET")
        self.expect(Stage.MAIL, f"MAIL FROM:<{sender}>")
        self._in_transaction = True

    def _finish_mail(self, content: bytes, reply_seconds: float) -> Outcome:
        self.expect(Stage.DATA, "DATA", 3)
        self.deadline.allow(float("inf"))
        self.send(_dot_stuffed(content))
        self.deadline.extend(reply_seconds)
        try:
            code, words = self.getreply()
            if code < 200 or 300 <= code < 400:
                raise self.unwelcome(code, words)
        except Fault as fault:
            return replace(fault.outcome, kind=Kind.UNKNOWN)
        self._in_transaction = False
        return self.outcome(code, words)

    def leave(self) -> None:
        """Say QUIT, wait a moment for the reply and close; what comes of it is ignored."""
        if self.sock is None:
            return
        self.deadline.extend(min(QUIT_SECONDS, self.command_seconds))
        try:
            self.docmd("QUIT")
        except Fault:
            return
        finally:
            self.close()


def _challenge(words: bytes) -> bytes:
    try:
        return base64.b64decode(words)
    except ValueError:
        return b""


def _dot_stuffed(content: bytes) -> bytes:
    """Return the content as it goes after DATA (RFC 5321, section 4.5.2), with its final dot."""
    if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        content = re.sub(rb"\r\n|\r|\n", b"\r\n", content)  # a bare LF could end the mail early for some servers
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"
