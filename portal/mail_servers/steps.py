"""How far a test e-mail has come: the steps of its conversation, from the server's name to the accepted mail."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Event
from typing import Any

from flask_babel import gettext

from portal.mail_servers import certificate
from portal.mail_servers.connection import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.dialling import Address
from portal.mail_servers.outcome import Kind, Outcome, Stage, words_of
from portal.mail_servers.reach import is_public


class State(StrEnum):
    """How it stands with a step."""

    WAITING = "waiting"  # not reached
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `facts` are ours, `reply` is the mail server's; `advice` says what to do where it failed."""

    stage: Stage
    label: str
    subject: str = ""  # which server, which way to sign in, which recipient
    state: State = State.WAITING
    seconds: float | None = field(default=None, compare=False)
    facts: tuple[str, ...] = ()
    reply: str = ""
    warning: str = ""
    advice: str = ""


def planned(settings: SmtpSettings, sender: str, recipients: Sequence[str], *, host: str) -> list[Step]:
    """Return the steps that a test with these settings takes, in their order."""
    hello, tls = Step(Stage.GREETING, gettext("Greeting")), Step(Stage.TLS, gettext("Encryption"))
    signs_in = settings.auth_mode is not AuthMode.NONE
    return [
        Step(Stage.NAME, gettext("Find the server"), host),
        Step(Stage.CONNECT, gettext("Connect")),
        *{Encryption.NONE: [hello], Encryption.STARTTLS: [hello, tls], Encryption.TLS: [tls, hello]}[
            settings.encryption
        ],
        *([Step(Stage.AUTH, gettext("Sign in"))] if signs_in else []),
        Step(Stage.MAIL, gettext("Sender"), sender),
        *(Step(Stage.RCPT, gettext("Recipient"), each) for each in recipients),
        Step(Stage.DATA, gettext("Mail")),
    ]


class Progress:
    """The steps of one conversation as they are now. One thread takes them on, others may look at them.

    Where the mail server is somebody else's, nothing is told of where it is and of who signs in to it.
    """

    def __init__(self, settings: SmtpSettings, steps: Sequence[Step], advise: Callable[[Outcome], str]) -> None:
        self.settings = settings
        self.steps = tuple(steps)
        self.is_reticent = not steps[0].subject
        self._advise = advise
        self._running = 0
        self._changed, self._is_over = Event(), False
        self._begin(0)

    def follow(self) -> Iterator[tuple[Step, ...]]:
        """Give the steps whenever one of them has changed, until it is over."""
        while not self._is_over:
            self._changed.wait()
            self._changed.clear()
            yield self.steps

    def stop(self) -> None:
        """Tell those who follow that it is over."""
        self._is_over = True
        self._changed.set()

    # What an observer hears.

    def dials(self, address: Address) -> None:
        """Tell of the address; of one on a network that the operator allowed, the port alone."""
        self.begins(Stage.CONNECT)
        port = address.sockaddr[1]
        is_told = self.settings.reach.everywhere or is_public(address.host) or address.host == self.settings.host
        where = (
            gettext("%(address)s, port %(port)s", address=address.host, port=port)
            if is_told
            else gettext("port %(port)s", port=port)
        )
        self._tell(self._running, subject=where)

    def begins(self, stage: Stage) -> None:
        """Go on to the next step of this stage that was not reached yet, if there is one."""
        for nth, step in enumerate(self.steps):
            if step.stage is stage and step.state is State.WAITING:
                self._end(State.DONE)
                self._begin(nth)
                return

    def replied(self, outcome: Outcome) -> None:
        """Show the mail server's words, and what they mean where it refused something."""
        if outcome.code and outcome.code >= 400:
            self._fail(self._running, outcome.discreet() if self.is_reticent else outcome)
        else:
            self._tell(self._running, reply=words_of(outcome))

    def encrypted(self, version: str, found: Mapping[str, Any], host: str) -> None:
        """Show TLS's version and the certificate."""
        facts, warning = certificate.facts(found, host), certificate.warning(found)
        self._tell(self._running, subject=version.replace("TLSv", "TLS "), facts=facts, warning=warning)

    def signs_in(self, mechanism: str) -> None:
        """Show who signs in, and how."""
        words = gettext("%(mechanism)s as %(username)s", mechanism=mechanism, username=self.settings.username)
        self._tell(self._nth(Stage.AUTH), subject=words)

    def ended(self, outcomes: Mapping[str, Outcome]) -> None:
        """Show how it ended for each recipient."""
        for address, outcome in outcomes.items():
            if outcome.kind is Kind.SENT:
                self._tell(self._nth(Stage.DATA), reply=words_of(outcome))
            else:
                self._fail(self._where(address, outcome), outcome)
        failed = [nth for nth, step in enumerate(self.steps) if step.state is State.FAILED]
        sent = any(outcome.kind is Kind.SENT for outcome in outcomes.values())
        self._end(State.DONE if sent or self._running < max(failed, default=0) else State.WAITING)

    def _where(self, address: str, outcome: Outcome) -> int:
        """Return the step at which it ended for a recipient. The end of the whole talk at RCPT is told once."""
        if outcome.stage is not Stage.RCPT:
            return self._nth(Stage.GREETING if outcome.stage is Stage.EHLO else outcome.stage)
        asked = (State.RUNNING, State.FAILED)
        recipients = [(nth, each) for nth, each in enumerate(self.steps) if each.stage is Stage.RCPT]
        own = next(nth for nth, each in recipients if each.subject == address)
        if self.steps[own].state in asked:
            return own
        return next((nth for nth, each in recipients if each.state in asked), own)

    def _nth(self, stage: Stage) -> int:
        return next(nth for nth, step in enumerate(self.steps) if step.stage is stage)

    def _begin(self, nth: int) -> None:
        self._running, self._since = nth, time.monotonic()
        self._change(nth, state=State.RUNNING)

    def _end(self, state: State) -> None:
        if self.steps[self._running].state is State.RUNNING:
            seconds = time.monotonic() - self._since if state is State.DONE else None
            self._change(self._running, state=state, seconds=seconds)

    def _fail(self, nth: int, outcome: Outcome) -> None:
        if self.steps[nth].state is State.FAILED:
            return
        # How long a name took is not told: one that leads inside may take longer than one that does not exist.
        is_timed = nth == self._running and outcome.stage is not Stage.NAME
        seconds = time.monotonic() - self._since if is_timed else None
        words = words_of(outcome)
        said = {"reply": words} if outcome.code else {"facts": (*self.steps[nth].facts, words)}  # ours are not quoted
        self._change(nth, state=State.FAILED, seconds=seconds, advice=self._advise(outcome), **said)

    def _tell(self, nth: int, **said: Any) -> None:
        if not self.is_reticent or self.steps[nth].stage.is_of_the_mail:
            self._change(nth, **said)

    def _change(self, nth: int, **values: Any) -> None:
        self.steps = (*self.steps[:nth], replace(self.steps[nth], **values), *self.steps[nth + 1 :])
        self._changed.set()
