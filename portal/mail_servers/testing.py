"""The test e-mail: it goes the way of every mail, and a sentence tells how far it came."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from portal.audit.entries import note
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import composing, sending
from portal.mail_servers.composing import InlineImage, Sender, Words
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SmtpSettings
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Kind, Outcome, Stage, advice
from portal.mail_servers.providers import provider_of
from portal.mail_servers.sender import sender
from portal.mail_servers.settings import Entered, complete
from portal.mail_servers.steps import Progress, Step, planned, words_of
from portal.tenants.models import Tenant
from portal.ui import PRODUCT

BUDGET = Budget(reply=10.0)  # somebody is waiting in front of the page
WORDS = Words(
    subject=f"Test e-mail of the {PRODUCT}",
    text=f"This mail server works.\n\nThe {PRODUCT} sent this mail because somebody pressed “Send test e-mail”.\n",
    html="",
)


class Content(NamedTuple):
    """What a test e-mail says."""

    words: Words
    images: Sequence[InlineImage] = ()


TEST = Content(WORDS)

_BY_ITSELF = re.compile(r"; the portal tries again by itself( in a while)?\.")
_FAILED = {
    Stage.NAME: "the mail server was not found",
    Stage.CONNECT: "no connection was made",
    Stage.TLS: "encryption was not agreed on",
    Stage.GREETING: "the mail server did not say hello",
    Stage.EHLO: "the mail server did not say hello",
    Stage.AUTH: "sign-in failed",
    Stage.MAIL: "the sender was refused",
    Stage.RCPT: "a recipient was refused",
    Stage.DATA: "the mail was refused",
}


@dataclass(frozen=True, slots=True)
class Result:
    """How the test went, or how far it has come.

    `kind` is `running`, `sent`, `partial` or `failed`; `sentence` says what worked and what did not, `advice` what to
    do about it. `reply` quotes the mail server. Both are empty where there is nothing to add.
    """

    kind: str
    sentence: str
    advice: str = ""
    reply: str = ""
    steps: tuple[Step, ...] = field(default=(), compare=False)


UNDER_WAY = Result("failed", "Another test e-mail is still on its way.", "Wait until it has ended, then try again.")


def send_entered(tenant: Tenant | None, entered: Entered, to: Sequence[str]) -> Iterator[Result] | Refusal:
    """Try out what an administrator of the tenant, or of the system for None, entered and did not save yet.

    Gives how far it has come whenever there is something new, and in the end how it went.
    """
    settings = complete(tenant.id if tenant else None, entered)
    if isinstance(settings, Refusal):
        return settings
    return _send_alone(tenant, settings, sender(tenant, entered.sender_email), to, settings.host)


def send_saved(
    tenant: Tenant | None, server: MailServer, to: Sequence[str], content: Content = TEST
) -> Iterator[Result]:
    """Try out a saved mail server with the tenant's mail, or with the portal's own for None, as `send_entered` does.

    Where the system's server is, and who signs in to it, is not told to tenants.
    """
    host = "" if tenant and server.is_system else server.host
    return _send_alone(tenant, server.smtp_settings, sender(tenant, server.sender_email), to, host, content)


def _send_alone(
    tenant: Tenant | None, settings: SmtpSettings, from_: Sender, to: Sequence[str], host: str, content: Content = TEST
) -> Iterator[Result]:
    owner = tenant.id if tenant else None
    # Each test holds threads of the process, for as long as the mail server likes within the budget.
    with sending.the_only_one(("test", owner)) as alone:
        if not alone:
            yield UNDER_WAY
            return
        through = f"{host}:{settings.port}" if host else "the system administrator's mail server"
        note("mail_server.tested", through, tenant_id=owner, changes={"to": [None, ", ".join(to)]})
        db.session.commit()
        yield from send_test(settings, from_, to, host, content)


def send_test(
    settings: SmtpSettings, from_: Sender, to: Sequence[str], host: str, content: Content = TEST
) -> Iterator[Result]:
    """Send the test e-mail with these settings and give how far it has come, in the end how it went.

    It takes no longer than `BUDGET`. The server is called `host`; without a name, nothing is told of where it is.
    """
    steps = planned(settings, from_.address, to, host=host)
    progress = Progress(settings, steps, partial(_advice, settings))
    with ThreadPoolExecutor(1, "test-e-mail") as aside:
        talk = aside.submit(copy_context().run, _send, settings, from_, to, content, progress)
        talk.add_done_callback(lambda _: progress.stop())
        for now in progress.follow():
            yield Result("running", "Sending the test e-mail …", steps=now)
    yield talk.result()


def ended(talk: Iterator[Result]) -> Result:
    """Return how a test e-mail went, when that is over."""
    return deque(talk, maxlen=1).pop()


def _send(settings: SmtpSettings, from_: Sender, to: Sequence[str], content: Content, progress: Progress) -> Result:
    message_id, date = composing.new_message_id(from_.address), datetime.now(UTC)
    message = composing.compose(content.words, from_, to, message_id=message_id, date=date, images=content.images)
    outcomes = sending.submit_apart(settings, message, from_.address, to, BUDGET, progress).outcomes
    progress.ended(outcomes)
    refused = {address: outcome for address, outcome in outcomes.items() if outcome.kind is not Kind.SENT}
    if not refused:
        sentence = f"{_reached(settings, None)}: the mail server took the test e-mail for {_named(to)}."
        return Result("sent", sentence, steps=progress.steps)
    worst = next(iter(refused.values()))
    kind, sentence = "failed", _sentence(settings, worst)
    if len(refused) < len(outcomes):
        kind, taken = "partial", len(to) - len(refused)
        sentence = f"The test e-mail was taken for {taken} of {len(to)}, but not for {_named(list(refused))}."
    return Result(kind, sentence, _advice(settings, worst), _reply(worst), progress.steps)


def _sentence(settings: SmtpSettings, outcome: Outcome) -> str:
    if outcome.kind is Kind.UNKNOWN:
        return f"{_reached(settings, None)}, but the mail server did not confirm the test e-mail."
    reached, failed = _reached(settings, outcome.stage), _FAILED[outcome.stage]
    return f"{reached}, but {failed}." if reached else f"{failed[0].upper()}{failed[1:]}."


def _reached(settings: SmtpSettings, failed: Stage | None) -> str:
    """Return the steps that worked before the stage that failed, or all of them: "Connected, encrypted"."""
    steps = [(Stage.CONNECT, "connected")]
    if settings.encryption is not Encryption.NONE:
        steps.append((Stage.TLS, "encrypted"))
    if settings.auth_mode is not AuthMode.NONE:
        steps.append((Stage.AUTH, "signed in"))
    stages = list(Stage)
    if failed in (Stage.GREETING, Stage.EHLO) and settings.encryption is not Encryption.TLS:
        failed = Stage.TLS  # STARTTLS comes after the greeting
    done = [word for stage, word in steps if failed is None or stages.index(stage) < stages.index(failed)]
    return ", ".join(done).capitalize()


def _advice(settings: SmtpSettings, outcome: Outcome) -> str:
    # What the portal does by itself with a mail, somebody has to do with a test.
    text = _BY_ITSELF.sub("; try again in a minute.", advice(outcome, settings.port))
    known = provider_of(settings.host)
    refused = outcome.stage is Stage.AUTH and outcome.kind is Kind.SETTINGS and outcome.code
    return f"{text} {known.label}: {known.hint}" if refused and known and known.hint else text


def _reply(outcome: Outcome) -> str:
    return f"The mail server said: {words_of(outcome)}" if outcome.code else outcome.text


def _named(addresses: Sequence[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"{len(addresses)} recipients"
