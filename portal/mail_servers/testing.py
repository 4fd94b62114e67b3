"""The test e-mail: it goes the way of every mail, and a sentence tells how far it came."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from flask_babel import gettext

from portal.audit.actions import SYSTEM_MAIL_SERVER
from portal.audit.entries import note
from portal.errors import Refusal
from portal.extensions import db
from portal.languages import to_translate
from portal.mail_servers import composing, sending
from portal.mail_servers.composing import InlineImage, Sender, Words
from portal.mail_servers.connection import AuthMode, Budget, Encryption, SmtpSettings
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Kind, Outcome, Stage, advice, words_of
from portal.mail_servers.providers import provider_of
from portal.mail_servers.sender import sender
from portal.mail_servers.settings import Entered, complete
from portal.mail_servers.steps import Progress, Step, planned
from portal.tenants.models import Tenant
from portal.ui import PRODUCT

BUDGET = Budget(reply=10.0)  # somebody is waiting in front of the page


class Sample(NamedTuple):
    """A mail that is sent in place of the test e-mail, to see how it reads."""

    words: Words
    images: Sequence[InlineImage] = ()


_NO_HELLO = to_translate("%(reached)s, but the mail server did not say hello.")
_FAILED = {
    Stage.NAME: to_translate("The mail server was not found."),
    Stage.CONNECT: to_translate("No connection was made."),
    Stage.TLS: to_translate("%(reached)s, but encryption was not agreed on."),
    Stage.GREETING: _NO_HELLO,
    Stage.EHLO: _NO_HELLO,
    Stage.AUTH: to_translate("%(reached)s, but sign-in failed."),
    Stage.MAIL: to_translate("%(reached)s, but the sender was refused."),
    Stage.RCPT: to_translate("%(reached)s, but a recipient was refused."),
    Stage.DATA: to_translate("%(reached)s, but the mail was refused."),
}
_REACHED = {
    (False, False): to_translate("Connected"),
    (True, False): to_translate("Connected, encrypted"),
    (False, True): to_translate("Connected, signed in"),
    (True, True): to_translate("Connected, encrypted, signed in"),
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


def words() -> Words:
    """Return what a test e-mail says, in the language of who sends it."""
    subject = gettext("Test e-mail of the %(product)s", product=PRODUCT)
    works = gettext("This mail server works.")
    why = gettext("The %(product)s sent this mail because somebody pressed “Send test e-mail”.", product=PRODUCT)
    return Words(subject, f"{works}\n\n{why}\n", html="")


def send_entered(tenant: Tenant | None, entered: Entered, to: Sequence[str]) -> Iterator[Result] | Refusal:
    """Try out what an administrator of the tenant, or of the system for None, entered and did not save yet.

    Gives how far it has come whenever there is something new, and in the end how it went.
    """
    settings = complete(tenant.id if tenant else None, entered)
    if isinstance(settings, Refusal):
        return settings
    return _send_alone(tenant, settings, sender(tenant, entered.sender_email), to, settings.host)


def send_saved(
    tenant: Tenant | None, server: MailServer, to: Sequence[str], sample: Sample | None = None
) -> Iterator[Result]:
    """Try out a saved mail server with a sample, or with the test e-mail for None, as `send_entered` does.

    Where the system's server is, and who signs in to it, is not told to tenants.
    """
    host = "" if tenant and server.is_system else server.host
    return _send_alone(tenant, server.smtp_settings, sender(tenant, server.sender_email), to, host, sample)


def _send_alone(
    tenant: Tenant | None,
    settings: SmtpSettings,
    from_: Sender,
    to: Sequence[str],
    host: str,
    sample: Sample | None = None,
) -> Iterator[Result]:
    owner = tenant.id if tenant else None
    # Each test holds threads of the process, for as long as the mail server likes within the budget.
    with sending.the_only_one(("test", owner)) as alone:
        if not alone:
            wait = gettext("Wait until it has ended, then try again.")
            yield Result("failed", gettext("Another test e-mail is still on its way."), wait)
            return
        through = f"{host}:{settings.port}" if host else SYSTEM_MAIL_SERVER
        note("mail_server.tested", through, tenant_id=owner, changes={"to": [None, ", ".join(to)]})
        db.session.commit()
        yield from send_test(settings, from_, to, host, sample)


def send_test(
    settings: SmtpSettings, from_: Sender, to: Sequence[str], host: str, sample: Sample | None = None
) -> Iterator[Result]:
    """Send the test e-mail with these settings and give how far it has come, in the end how it went.

    A sample goes in its place where there is one. It takes no longer than `BUDGET`. The server is called `host`;
    without a name, nothing is told of where it is.
    """
    steps = planned(settings, from_.address, to, host=host)
    progress = Progress(settings, steps, partial(_advice, settings, host))
    with ThreadPoolExecutor(1, "test-e-mail") as aside:
        talk = aside.submit(copy_context().run, _send, settings, from_, to, host, sample, progress)
        talk.add_done_callback(lambda _: progress.stop())
        for now in progress.follow():
            yield Result("running", gettext("Sending the test e-mail …"), steps=now)
    yield talk.result()


def ended(talk: Iterator[Result]) -> Result:
    """Return how a test e-mail went, when that is over."""
    return deque(talk, maxlen=1).pop()


def _send(
    settings: SmtpSettings, from_: Sender, to: Sequence[str], host: str, sample: Sample | None, progress: Progress
) -> Result:
    message_id, date = composing.new_message_id(from_.address), datetime.now(UTC)
    said, images = sample or Sample(words())
    message = composing.compose(said, from_, to, message_id=message_id, date=date, images=images)
    outcomes = sending.submit_apart(settings, message, from_.address, to, BUDGET, progress).outcomes
    if not host:
        outcomes = {address: outcome.discreet() for address, outcome in outcomes.items()}
    progress.ended(outcomes)
    refused = {address: outcome for address, outcome in outcomes.items() if outcome.kind is not Kind.SENT}
    if not refused:
        return Result("sent", _sent(settings, to, is_sample=sample is not None), steps=progress.steps)
    worst = next(iter(refused.values()))
    kind, sentence = "failed", _failed(settings, worst, is_sample=sample is not None)
    if len(refused) < len(outcomes):
        kind, sentence = "partial", _partly_sent(to, list(refused))
    return Result(kind, sentence, _advice(settings, host, worst), _reply(worst), progress.steps)


def _sent(settings: SmtpSettings, to: Sequence[str], *, is_sample: bool) -> str:
    if is_sample:
        sentence = to_translate("%(reached)s: the mail server took the sample for %(address)s.")
    elif len(to) == 1:
        sentence = to_translate("%(reached)s: the mail server took the test e-mail for %(address)s.")
    else:
        sentence = to_translate("%(reached)s: the mail server took the test e-mail for %(count)s recipients.")
    return str(gettext(sentence, reached=_reached(settings, None), address=to[0], count=len(to)))


def _partly_sent(to: Sequence[str], refused: Sequence[str]) -> str:
    if len(refused) == 1:
        sentence = to_translate("The test e-mail was taken for %(taken)s of %(all)s, but not for %(address)s.")
    else:
        sentence = to_translate("The test e-mail was taken for %(taken)s of %(all)s, but not for %(count)s recipients.")
    taken, count = len(to) - len(refused), len(refused)
    return str(gettext(sentence, taken=taken, all=len(to), address=refused[0], count=count))


def _failed(settings: SmtpSettings, outcome: Outcome, *, is_sample: bool) -> str:
    if outcome.kind is not Kind.UNKNOWN:
        return str(gettext(_FAILED[outcome.stage], reached=_reached(settings, outcome.stage)))
    if is_sample:
        sentence = to_translate("%(reached)s, but the mail server did not confirm the sample.")
    else:
        sentence = to_translate("%(reached)s, but the mail server did not confirm the test e-mail.")
    return str(gettext(sentence, reached=_reached(settings, None)))


def _reached(settings: SmtpSettings, failed: Stage | None) -> str:
    """Return the steps that worked before the stage that failed, or all of them: "Connected, encrypted"."""
    if failed in (Stage.GREETING, Stage.EHLO) and settings.encryption is not Encryption.TLS:
        failed = Stage.TLS  # STARTTLS comes after the greeting
    stages = list(Stage)
    done = stages[: stages.index(failed)] if failed else stages
    encrypted = settings.encryption is not Encryption.NONE and Stage.TLS in done
    signed_in = settings.auth_mode is not AuthMode.NONE and Stage.AUTH in done
    return str(gettext(_REACHED[encrypted, signed_in]))


def _advice(settings: SmtpSettings, host: str, outcome: Outcome) -> str:
    text: str = gettext(advice(outcome, settings.port, by_hand=True))
    known = provider_of(host)
    refused = outcome.stage is Stage.AUTH and outcome.kind is Kind.SETTINGS and outcome.code
    if not (refused and known and known.hint):
        return text
    hint = gettext(known.hint)
    return str(gettext("%(advice)s %(provider)s: %(hint)s", advice=text, provider=known.label, hint=hint))


def _reply(outcome: Outcome) -> str:
    said = words_of(outcome)
    return str(gettext("The mail server said: %(words)s", words=said)) if outcome.code else said
