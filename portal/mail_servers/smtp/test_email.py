"""The test email: sent like every other email over a connection of its own, with its progress and a result to read."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from flask_babel import gettext

from portal.accounts.rate_limits import ACCOUNT, HOUR, MINUTE, Limit, Rule
from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.audit.log import record
from portal.config import PRODUCT
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers.deliverability import DnsCheck, check_sender
from portal.mail_servers.models import MailServer
from portal.mail_servers.providers import provider_of
from portal.mail_servers.service import EnteredSettings, connection_settings, sender_for
from portal.mail_servers.smtp import client, mime, pool
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.connect import Timeouts
from portal.mail_servers.smtp.mime import MessageContent, Sender
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpReply, Stage, advice_for, best_advice
from portal.mail_servers.smtp.progress import Progress, ProgressStep, plan_steps
from portal.tenants.models import Tenant
from portal.web.i18n import to_translate

TIMEOUTS = Timeouts(reply=10.0)  # a person is waiting in front of the page
# Of test emails and samples together: they could flood a mailbox.
RATE_LIMIT = Rule("test email", (Limit(10, MINUTE, ACCOUNT), Limit(30, HOUR, ACCOUNT)))


_NO_SESSION = to_translate("%(reached)s, but no SMTP session was started.")
# The cause by the stage and the words of the reply, or of the portal's own text; the first that applies.
_CAUSES: Final = (
    (Stage.TLS, "certificate has expired", to_translate("The certificate has expired.")),
    (Stage.TLS, "mismatch|it is not valid", to_translate("The certificate is for a different name.")),
    (Stage.TLS, "^The certificate is not accepted", to_translate("The certificate is not trusted.")),
    (Stage.TLS, "not offer STARTTLS", to_translate("%(reached)s, but the mail server does not offer STARTTLS.")),
    (Stage.NAME, "not be looked up", to_translate("The mail server's name could not be looked up.")),
    (Stage.CONNECT, "no response|unreachable", to_translate("The mail server does not answer.")),
    (Stage.CONNECT, "refused", to_translate("The connection was refused.")),
    (Stage.GREETING, "not SMTP", to_translate("%(reached)s, but not to a mail server.")),
    (Stage.GREETING, "no response", to_translate("%(reached)s, but the mail server does not answer.")),
    (Stage.AUTH, r"\((XOAUTH2|OAUTHBEARER)\b", to_translate("%(reached)s, but the access token was rejected.")),
    (Stage.AUTH, "^535 ", to_translate("%(reached)s, but the username or the password was rejected.")),
    (
        Stage.AUTH,
        "^504 |offers? (only|no sign-in|OAuth)",
        to_translate("%(reached)s, but this sign-in method is not accepted."),
    ),
)
_FAILED = {
    Stage.TOKEN: to_translate("The portal got no access token to sign in with."),
    Stage.NAME: to_translate("The mail server was not found."),
    Stage.CONNECT: to_translate("Could not connect to the mail server."),
    Stage.TLS: to_translate("%(reached)s, but encryption could not be negotiated."),
    Stage.GREETING: _NO_SESSION,
    Stage.EHLO: _NO_SESSION,
    Stage.AUTH: to_translate("%(reached)s, but sign-in failed."),
    Stage.MAIL: to_translate("%(reached)s, but the sender was rejected."),
    Stage.RCPT: to_translate("%(reached)s, but a recipient was rejected."),
    Stage.DATA: to_translate("%(reached)s, but the email was rejected."),
}
_FIELDS: Final = {Stage.MAIL: "sender_email", Stage.RCPT: "recipients"}
_REACHED = {  # encrypted, signed in
    (False, False): to_translate("Connected"),
    (True, False): to_translate("Connected, encrypted"),
    (False, True): to_translate("Connected, signed in"),
    (True, True): to_translate("Connected, encrypted, signed in"),
}


@dataclass(frozen=True, slots=True)
class SendTestResult:
    """The result of a test email, or its progress.

    `state` is `running`, `sent`, `partial` or `failed`; `headline` says what worked and what did not, `advice` what to
    do about it, `reply` quotes the mail server. The last two may be empty. `dns_checks` are about the sender's domain.
    The advice is followed in the form's `field`, or at the provider's `url`; `field` is "connection" for the mailbox.
    """

    state: str
    headline: str
    advice: str = ""
    reply: str = ""
    steps: tuple[ProgressStep, ...] = field(default=(), compare=False)
    dns_checks: tuple[DnsCheck, ...] = field(default=(), compare=False)
    field: str = ""
    url: str = ""


def test_message() -> MessageContent:
    """Return the test email's content, in the language of the person who sends it."""
    subject = gettext("Test email from the %(product)s", product=PRODUCT)
    works = gettext("This mail server works.")
    why = gettext("The %(product)s sent this email because someone clicked “Send test email”.", product=PRODUCT)
    return MessageContent.of(subject, f"{works}\n\n{why}\n")


def send_with_entered_settings(
    tenant: Tenant | None, entered: EnteredSettings, to: Sequence[str]
) -> Iterator[SendTestResult] | Refusal:
    """Send a test email with settings that an administrator of the tenant, or of the system (None), has not saved yet.

    Yields the progress whenever it changes, and finally the result.
    """
    settings = connection_settings(tenant.id if tenant else None, entered)
    if isinstance(settings, Refusal):
        return settings
    results = send_test(settings, sender_for(tenant, entered.sender_email), to, settings.host)
    return _send_exclusively(tenant, to, f"{settings.host}:{settings.port}", results)


def send_with_saved_server(
    tenant: Tenant | None, server: MailServer, to: Sequence[str], sample: MessageContent | None = None
) -> Iterator[SendTestResult]:
    """Send the sample of an email, or the test email, through a saved server: see `send_with_entered_settings`.

    Tenants do not see the system's mail server's host and account.
    """
    server_name = "" if tenant and server.is_system else server.host
    results = send_test(server.smtp_settings, sender_for(tenant, server.sender_email), to, server_name, sample)
    label = f"{server_name}:{server.port}" if server_name else SYSTEM_MAIL_SERVER
    return _send_exclusively(tenant, to, label, results)


def _send_exclusively(
    tenant: Tenant | None, to: Sequence[str], server_label: str, results: Iterator[SendTestResult]
) -> Iterator[SendTestResult]:
    owner = tenant.id if tenant else None
    # A test holds two threads of the process for as long as the mail server takes, within the timeouts.
    with pool.current().slots.acquire(("test", owner), exclusive=True) as acquired:
        if not acquired:
            wait = gettext("Wait until it is done, then try again.")
            yield SendTestResult("failed", gettext("Another test email is still being sent."), wait)
            return
        record("mail_server.tested", server_label, tenant_id=owner, changes={"to": [None, ", ".join(to)]})
        db.session.commit()
        yield from results


def send_test(
    settings: SmtpSettings, sender: Sender, to: Sequence[str], server_name: str, sample: MessageContent | None = None
) -> Iterator[SendTestResult]:
    """Send the test email, or the sample, with these settings. Yields the progress, and finally the result.

    It takes no longer than `TIMEOUTS`. Without a server name, nothing reveals where the mail server is. Meanwhile the
    domain of the test email's sender is checked, unless the DNS would say whose server sends for it.
    """
    steps = plan_steps(settings, sender.email, to, server_name=server_name)
    progress = Progress(settings, steps, partial(_advice, settings, server_name))
    with ThreadPoolExecutor(2, "test-email") as executor:
        checks_dns = bool(server_name) and sample is None
        checking = executor.submit(copy_context().run, check_sender, settings, sender.email) if checks_dns else None
        sending = executor.submit(copy_context().run, _send, settings, sender, to, server_name, sample, progress)
        sending.add_done_callback(lambda _: progress.stop())
        for current_steps in progress.follow():
            yield SendTestResult("running", gettext("Sending the test email …"), steps=current_steps)
    yield replace(sending.result(), dns_checks=checking.result() if checking else ())


def final_result(results: Iterator[SendTestResult]) -> SendTestResult:
    """Wait for the test email, and return its result."""
    return deque(results, maxlen=1).pop()


def _send(
    settings: SmtpSettings,
    sender: Sender,
    to: Sequence[str],
    server_name: str,
    sample: MessageContent | None,
    progress: Progress,
) -> SendTestResult:
    message_id, now = mime.new_message_id(sender.email), datetime.now(UTC)
    message = mime.MimeMessage(sample or test_message(), sender, to, message_id=message_id, date=now)
    replies = client.send(settings, message, sender.email, to, TIMEOUTS, progress)
    if not server_name:
        replies = {recipient: reply.redacted() for recipient, reply in replies.items()}
    progress.finish(replies)
    failures = {recipient: reply for recipient, reply in replies.items() if reply.kind is not ReplyKind.ACCEPTED}
    if not failures:
        return SendTestResult("sent", _sent(settings, to, is_sample=sample is not None), steps=progress.steps)
    first = next(iter(failures.values()))
    state, headline = "failed", _failed(settings, first, is_sample=sample is not None)
    if len(failures) < len(replies):
        state, headline = "partial", _partly_sent(to, list(failures))
    advice = _advice(settings, server_name, first)
    field_name, url = _place_to_follow(settings, server_name, first)
    quote = gettext("The mail server replied: %(words)s", words=first.line) if first.code else first.line
    return SendTestResult(state, headline, advice, quote, progress.steps, field=field_name, url=url)


def _sent(settings: SmtpSettings, to: Sequence[str], *, is_sample: bool) -> str:
    if is_sample:
        headline = to_translate("%(reached)s: the mail server accepted the sample for %(address)s.")
    elif len(to) == 1:
        headline = to_translate("%(reached)s: the mail server accepted the test email for %(address)s.")
    else:
        headline = to_translate("%(reached)s: the mail server accepted the test email for %(count)s recipients.")
    return str(gettext(headline, reached=_reached(settings, None), address=to[0], count=len(to)))


def _partly_sent(to: Sequence[str], failed: Sequence[str]) -> str:
    if len(failed) == 1:
        headline = to_translate(
            "The test email was accepted for %(taken)s of %(all)s recipients, but not for %(address)s."
        )
    else:
        headline = to_translate(
            "The test email was accepted for %(taken)s of %(all)s recipients, but not for the other %(count)s."
        )
    return str(gettext(headline, taken=len(to) - len(failed), all=len(to), address=failed[0], count=len(failed)))


def _failed(settings: SmtpSettings, reply: SmtpReply, *, is_sample: bool) -> str:
    if reply.kind is not ReplyKind.UNKNOWN:
        return str(gettext(_cause(reply), reached=_reached(settings, reply.stage)))
    if is_sample:
        headline = to_translate("%(reached)s, but the mail server did not confirm the sample.")
    else:
        headline = to_translate("%(reached)s, but the mail server did not confirm the test email.")
    return str(gettext(headline, reached=_reached(settings, None)))


def _cause(reply: SmtpReply) -> str:
    line = " ".join(str(part) for part in (reply.code, reply.enhanced_code, reply.text) if part)
    causes = (
        cause for stage, words, cause in _CAUSES if stage is reply.stage and re.search(words, line, re.IGNORECASE)
    )
    return next(causes, _FAILED[reply.stage])


def _reached(settings: SmtpSettings, failed: Stage | None) -> str:
    """Return the steps that worked before the stage that failed, or all of them: "Connected, encrypted"."""
    if failed in (Stage.GREETING, Stage.EHLO) and settings.encryption is not Encryption.TLS:
        failed = Stage.TLS  # STARTTLS comes after the greeting
    stages = list(Stage)
    done = stages[: stages.index(failed)] if failed else stages
    encrypted = settings.encryption is not Encryption.NONE and Stage.TLS in done
    signed_in = settings.signs_in and Stage.AUTH in done
    return str(gettext(_REACHED[encrypted, signed_in]))


def _advice(settings: SmtpSettings, server_name: str, reply: SmtpReply) -> str:
    port = settings.port if server_name else None
    text: str = gettext(advice_for(reply, port, host=server_name, will_retry=False))
    provider = provider_of(server_name)
    sign_in_rejected = reply.stage is Stage.AUTH and reply.kind is ReplyKind.SETTINGS and reply.code
    uses_password = settings.auth_mode is not AuthMode.OAUTH
    if not (sign_in_rejected and uses_password and provider and provider.hint):
        return text
    hint = gettext(provider.hint)
    return str(gettext("%(advice)s %(provider)s: %(hint)s", advice=text, provider=provider.label, hint=hint))


def _place_to_follow(settings: SmtpSettings, server_name: str, reply: SmtpReply) -> tuple[str, str]:
    """Return the form's field in which the advice can be followed, or the page of the provider."""
    if not server_name or reply.kind is ReplyKind.UNKNOWN:
        return "", ""
    advice = best_advice(reply, settings.port, server_name)
    if reply.stage is Stage.TOKEN or (reply.stage is Stage.AUTH and settings.auth_mode is AuthMode.OAUTH):
        return "connection", ""
    return ("" if advice.url else advice.field or _FIELDS.get(reply.stage, "")), advice.url
