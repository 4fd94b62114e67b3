"""One SMTP conversation: greeting, TLS, one attempt to sign in, and mails with an outcome for each recipient."""

import base64
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from portal.languages import to_translate
from portal.mail_servers.dialling import settings_fault
from portal.mail_servers.mechanisms import MECHANISMS
from portal.mail_servers.outcome import Fault, Kind, Outcome, Stage, classify
from portal.mail_servers.wire import Wire

QUIT_SECONDS = 1.0
CATCH_UP_SECONDS = 1.0
# The replies to so many commands fit the buffers on the way: neither side waits for the other (RFC 2920, section 3.1).
RECIPIENTS_AHEAD = 100


class Session(Wire):
    """A conversation with a mail server, step by step; every step but `transact` and `leave` may raise `Fault`."""

    reusable = False  # whether another mail may follow: the last one left nothing behind that could harm it
    _in_transaction = False

    def greet(self) -> None:
        """Read the greeting and say EHLO. Words that came without a greeting are nobody's to read."""
        self.begin(Stage.GREETING)
        code, words = self.getreply()
        if code >= 400:
            raise Fault(classify(Stage.GREETING, code, to_translate("The mail server turned the portal away.")))
        if code != 220 or not _is_text(words):
            raise self.not_smtp()
        self._say_ehlo()

    def _say_ehlo(self) -> None:
        self.begin(Stage.EHLO)
        self.require(*self.ehlo())

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Turn to TLS (RFC 3207), never going on without it, and say EHLO again."""
        if not self.has_extn("starttls"):
            raise settings_fault(Stage.TLS, to_translate("The mail server does not offer STARTTLS."))
        self.expect(Stage.TLS, "STARTTLS")
        if self.received:  # it would be read as if it had come under TLS
            self.close()
            raise settings_fault(Stage.TLS, to_translate("Something spoke in clear after encryption was agreed on."))
        self.secure(context, host)
        self._say_ehlo()

    def sign_in(self, mechanisms: Sequence[str], username: str | None, password: str | None) -> None:
        """Try once, with the first of these mechanisms that is offered (RFC 4954): more tries could lock an account.

        User name and password go out as UTF-8 (RFC 4616, section 2).
        """
        if not username or not password:
            raise settings_fault(Stage.AUTH, to_translate("There is no user name or no password to sign in with."))
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
        known = self.without_secrets(known)
        text = f"The mail server offers only {known}." if known else to_translate("The mail server offers no sign-in.")
        raise settings_fault(Stage.AUTH, text)

    def hide(self, username: str | None, password: str | None) -> None:
        """Keep the password out of all that is passed on, from the greeting on: the server may know it already."""
        if password:
            self.secrets += [password, password.upper()]  # which can be a longer word
            for answers in MECHANISMS.values():
                for answer in answers((username or "").encode(), password.encode()):
                    self._secret(answer(b""))

    def _secret(self, answer: bytes) -> str:
        encoded = base64.b64encode(answer).decode()
        if encoded:
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
        self.reusable = False
        refused: dict[str, Outcome] = {}
        rest: Outcome | None = None
        try:
            self._begin_mail(sender, recipients)
            for recipient in recipients:
                code, words = self.command(Stage.RCPT, _rcpt(recipient))
                if code == 421 or code < 400:
                    self.require(code, words)
                else:
                    refused[recipient] = self.outcome(code, words)
            if len(refused) < len(recipients):
                rest = self._finish_mail(content, reply_seconds)
            else:
                self._call_off()
        except Fault as fault:
            rest = fault.outcome
            self._catch_up()
        self.reusable = self.sock is not None and (rest is None or rest.stage is not Stage.MAIL)
        return {recipient: refused.get(recipient, rest) for recipient in recipients} if rest else refused

    def _begin_mail(self, sender: str, recipients: Sequence[str]) -> None:
        reset = ["RSET"] if self._in_transaction else []  # the mail before this one ended half way
        mail = f"MAIL FROM:<{sender}>"
        if self.has_extn("pipelining") and len(recipients) <= RECIPIENTS_AHEAD:
            self.say_ahead(Stage.MAIL, [*reset, mail, *map(_rcpt, recipients), "DATA"])
        for line in (*reset, mail):
            self.expect(Stage.MAIL, line)
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

    def _call_off(self) -> None:
        """End a mail that nobody is to get; a server that waits for content is sent none (RFC 2920, section 3.1)."""
        if self.ahead and self.command(Stage.DATA, "DATA")[0] == 354:
            self.command(Stage.DATA, ".")

    def _catch_up(self) -> None:
        """Read the replies to what was said ahead of the one that ended the mail."""
        self.deadline.extend(min(CATCH_UP_SECONDS, self.command_seconds))
        with suppress(Fault):
            while self.ahead:
                self.ahead -= 1
                if self.getreply()[0] == 354:  # it refused the mail, and waits for its content all the same
                    self.close()

    def leave(self, *, wait: bool = True) -> None:
        """Say QUIT, wait a moment for the reply if so wished, and close; what comes of it is ignored."""
        if self.sock is None:
            return
        self.deadline.extend(min(QUIT_SECONDS, self.command_seconds))
        with suppress(Fault):
            self.putcmd("QUIT")
            if wait:
                self.getreply()
        self.close()


def _rcpt(recipient: str) -> str:
    return f"RCPT TO:<{recipient}>"


def _is_text(words: bytes) -> bool:
    return words.translate(None, b"\t\n").decode(errors="surrogateescape").isprintable()


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
