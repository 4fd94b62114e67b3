"""The progress of a test email for people to read: its steps, from finding the mail server to the accepted message."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from threading import Event
from typing import Any, Final

from babel.dates import format_date
from flask_babel import gettext

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.connect import SocketAddress
from portal.mail_servers.smtp.network_policy import is_public
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpReply, Stage
from portal.web.filters import current_locale
from portal.web.i18n import to_translate


class StepState(StrEnum):
    """The state of a step."""

    WAITING = "waiting"  # not reached
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProgressStep:
    """One step. `facts` are the portal's text, `reply` is the mail server's; `advice` says what to do if it failed."""

    stage: Stage
    label: str
    detail: str = ""  # the token's provider, the mail server, the sign-in mechanism or the recipient
    state: StepState = StepState.WAITING
    seconds: float | None = field(default=None, compare=False)
    facts: tuple[str, ...] = ()
    reply: str = ""
    warning: str = ""
    advice: str = ""


def plan_steps(
    settings: SmtpSettings, sender_email: str, recipients: Sequence[str], *, server_name: str
) -> list[ProgressStep]:
    """Return the steps that a test with these settings takes, in order."""
    greeting, tls = ProgressStep(Stage.GREETING, gettext("Greeting")), ProgressStep(Stage.TLS, gettext("Encryption"))
    greeting_and_tls = {
        Encryption.NONE: [greeting],
        Encryption.STARTTLS: [greeting, tls],
        Encryption.TLS: [tls, greeting],
    }
    source = settings.token_source
    provider = source.mailbox_provider.capitalize() if source and server_name else ""
    token = ProgressStep(Stage.TOKEN, gettext("Access token"), provider)
    return [
        *([token] if settings.auth_mode is AuthMode.OAUTH else []),
        ProgressStep(Stage.NAME, gettext("Find the server"), server_name),
        ProgressStep(Stage.CONNECT, gettext("Connect")),
        *greeting_and_tls[settings.encryption],
        *([ProgressStep(Stage.AUTH, gettext("Sign in"))] if settings.signs_in else []),
        ProgressStep(Stage.MAIL, gettext("Sender"), sender_email),
        *(ProgressStep(Stage.RCPT, gettext("Recipient"), recipient) for recipient in recipients),
        ProgressStep(Stage.DATA, gettext("Message")),
    ]


class Progress:
    """The steps of one session: an `Observer`. One thread updates them while others read them.

    Without a server name in its step, nothing reveals where the mail server is and which account signs in: it
    belongs to somebody else.
    """

    def __init__(
        self, settings: SmtpSettings, steps: Sequence[ProgressStep], advice_for: Callable[[SmtpReply], str]
    ) -> None:
        self.settings = settings
        self.steps = tuple(steps)
        self.hides_server = not next(step for step in steps if step.stage is Stage.NAME).detail
        self._advice_for = advice_for
        self._current = 0  # the index of the step that is running or ran last
        self._changed, self._is_over = Event(), False
        self._start(0)

    def follow(self) -> Iterator[tuple[ProgressStep, ...]]:
        """Yield the steps whenever one of them has changed, until the session is over."""
        while not self._is_over:
            self._changed.wait()
            self._changed.clear()
            yield self.steps

    def stop(self) -> None:
        """End `follow`."""
        self._is_over = True
        self._changed.set()

    # What the session reports

    def on_connecting(self, address: SocketAddress) -> None:
        """Show the IP address and port; of an address on one of the operator's networks, the port only."""
        self.on_stage(Stage.CONNECT)
        is_known = self.settings.network_policy.unrestricted or address.ip_address == self.settings.host
        if is_known or is_public(address.ip_address):
            detail = gettext("%(address)s, port %(port)s", address=address.ip_address, port=address.port)
        else:
            detail = gettext("port %(port)s", port=address.port)
        self._show(self._step_of(Stage.CONNECT), detail=detail)

    def on_stage(self, stage: Stage) -> None:
        """Go on to the next step of this stage that was not reached yet, if there is one."""
        for index, step in enumerate(self.steps):
            if step.stage is stage and step.state is StepState.WAITING:
                self._finish(StepState.DONE)
                self._start(index)
                return

    def on_reply(self, reply: SmtpReply) -> None:
        """Show the mail server's reply, with advice if it is a rejection."""
        if reply.code and reply.code >= 400:
            self._fail(self._step_of(reply.stage), reply.redacted() if self.hides_server else reply)
        else:
            self._show(self._step_of(reply.stage), reply=reply.line)

    def on_tls(self, version: str, certificate: Mapping[str, Any], host: str) -> None:
        """Show the TLS version and the certificate."""
        self._show(
            self._step_of(Stage.TLS),
            detail=version.replace("TLSv", "TLS "),
            facts=_certificate_facts(certificate, host),
            warning=_certificate_warning(certificate),
        )

    def on_sign_in(self, mechanism: str) -> None:
        """Show which account signs in, and how."""
        detail = gettext("%(mechanism)s as %(username)s", mechanism=mechanism, username=self.settings.username)
        self._show(self._index_of(Stage.AUTH), detail=detail)

    def finish(self, replies: Mapping[str, SmtpReply]) -> None:
        """Show the reply for each recipient."""
        for recipient, reply in replies.items():
            if reply.kind is ReplyKind.ACCEPTED:
                self._show(self._index_of(Stage.DATA), reply=reply.line)
            else:
                self._fail(self._failed_step(recipient, reply), reply)
        failed = [index for index, step in enumerate(self.steps) if step.state is StepState.FAILED]
        accepted = any(reply.kind is ReplyKind.ACCEPTED for reply in replies.values())
        self._finish(StepState.DONE if accepted or self._current < max(failed, default=0) else StepState.WAITING)

    def _failed_step(self, recipient: str, reply: SmtpReply) -> int:
        """Return the index of the step that failed for a recipient. A session that ended at RCPT is shown once."""
        if reply.stage is not Stage.RCPT:
            return self._index_of(Stage.GREETING if reply.stage is Stage.EHLO else reply.stage)
        reached = (StepState.RUNNING, StepState.FAILED)
        steps = [(index, step) for index, step in enumerate(self.steps) if step.stage is Stage.RCPT]
        own = next(index for index, step in steps if step.detail == recipient)
        if self.steps[own].state in reached:
            return own
        return next((index for index, step in steps if step.state in reached), own)

    def _step_of(self, stage: Stage) -> int:
        """Return the index of the step that runs if it is of this stage, else of the first one: in a second session."""
        return self._current if self.steps[self._current].stage is stage else self._index_of(stage)

    def _index_of(self, stage: Stage) -> int:
        return next(index for index, step in enumerate(self.steps) if step.stage is stage)

    def _start(self, index: int) -> None:
        self._current, self._started_at = index, time.monotonic()
        self._change(index, state=StepState.RUNNING)

    def _finish(self, state: StepState) -> None:
        if self.steps[self._current].state is StepState.RUNNING:
            seconds = time.monotonic() - self._started_at if state is StepState.DONE else None
            self._change(self._current, state=state, seconds=seconds)

    def _fail(self, index: int, reply: SmtpReply) -> None:
        if self.steps[index].state is StepState.FAILED:
            return
        # The time of a name lookup is not shown: an internal name may take longer than one that does not exist.
        shows_time = index == self._current and reply.stage is not Stage.NAME
        seconds = time.monotonic() - self._started_at if shows_time else None
        text = reply.line
        # The portal's own text is not shown as a quote.
        values = {"reply": text} if reply.code else {"facts": (*self.steps[index].facts, text)}
        self._change(index, state=StepState.FAILED, seconds=seconds, advice=self._advice_for(reply), **values)

    def _show(self, index: int, **values: Any) -> None:
        if not self.hides_server or self.steps[index].stage.is_about_message:
            self._change(index, **values)

    def _change(self, index: int, **values: Any) -> None:
        self.steps = (*self.steps[:index], replace(self.steps[index], **values), *self.steps[index + 1 :])
        self._changed.set()


EXPIRES_SOON: Final = timedelta(days=14)  # automatic renewal has happened by then
MAX_NAMES: Final = 3


def _certificate_facts(certificate: Mapping[str, Any], host: str) -> tuple[str, ...]:
    names = [value for name_type, value in certificate.get("subjectAltName", ()) if name_type in {"DNS", "IP Address"}]
    if len(names) > MAX_NAMES:
        sentence = to_translate("Certificate for %(names)s and %(count)s more, verified for %(host)s")
    else:
        sentence = to_translate("Certificate for %(names)s, verified for %(host)s")
    expires = format_date(_expires_at(certificate), "long", locale=current_locale())
    return (
        gettext(sentence, names=", ".join(names[:MAX_NAMES]), count=len(names) - MAX_NAMES, host=host),
        gettext("Issued by %(issuer)s, expires on %(day)s", issuer=_issuer(certificate), day=expires),
    )


def _certificate_warning(certificate: Mapping[str, Any]) -> str:
    left = _expires_at(certificate) - datetime.now(UTC)
    if left > EXPIRES_SOON:
        return ""
    if left.days < 1:
        sentence = to_translate("The certificate expires today: without a new one, no email can be sent after that.")
    elif left.days == 1:
        sentence = to_translate("The certificate expires tomorrow: without a new one, no email can be sent after that.")
    else:
        sentence = to_translate(
            "The certificate expires in %(count)s days: without a new one, no email can be sent after that."
        )
    return str(gettext(sentence, count=left.days))


def _expires_at(certificate: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)


def _issuer(certificate: Mapping[str, Any]) -> str:
    names = dict(pair for relative_name in certificate.get("issuer", ()) for pair in relative_name)
    return names.get("organizationName") or names.get("commonName") or gettext("an unnamed authority")
