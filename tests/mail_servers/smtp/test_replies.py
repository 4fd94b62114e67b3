"""Whose fault a documented reply is, beside replies that look like it: the state and the advice, from one table.

Each row is a stage, a code with the text after it, the host, what the reply means, and a part of the advice. The
comments name where a wording is documented. "Look-alike" rows mean something else than the row before them.
"""

import re
from collections.abc import Iterator
from itertools import product
from re import _constants as op
from re import _parser as parser

import pytest

from portal.mail_servers.advice import Advice
from portal.mail_servers.smtp.outcome import ADVICE, ReplyKind, Stage, advice_for, classify
from tests.mail_servers.test_advice import GMAIL, OFFICE, OWN, PASSWORD, SENDGRID, SES, Row
from tests.security.test_regexes import sample

pytestmark = pytest.mark.slow

EHLO, AUTH, MAIL, RCPT, DATA = Stage.EHLO, Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DATA
TEMPORARY, SETTINGS, REJECTED = ReplyKind.TEMPORARY, ReplyKind.SETTINGS, ReplyKind.REJECTED
QQ, ICLOUD = "smtp.exmail.qq.com", "smtp.mail.me.com"

RATE = "The user you are trying to contact is receiving mail at a rate that prevents additional messages"
SES_PAUSED = (
    "Message rejected: Sending paused for this account. For more information, please check the inbox of the email "
    "address associated with your AWS account."
)
SES_DENIED = (
    "Access denied: User `arn:aws:iam::112121:user/ses-smtp-user' is not authorized to perform `ses:SendRawEmail' on "
    "resource `arn:aws:ses:us-west-2:112121:identity/pbx@acme.example'"
)
UNUSUAL_RATE = (
    "5.7.1 Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect "
    "our users from spam, mail sent from your IP address has been blocked."
)
UNSOLICITED = (
    "5.7.1 Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to "
    "Gmail, this message has been blocked."
)
GREYLISTED, EXPLAINED = "greylisting", "temporary error"
NO_MAILBOX, SPAM, SIGN_IN = "mailbox does not exist", "as spam", "requires sign-in"
HELO, IP_ADDRESS, DOMAIN, SEND_AS = "SMTP_HELO_NAME", "portal's IP address", "SPF or DKIM", "may not send as"
LIMIT, BLOCKED = "sending limit", "blocked this account"
TURN_ON, OAUTH, CONDITIONAL = "turn on Authenticated SMTP", "connect it with OAuth 2.0", "Conditional Access policy"
TOKEN, CONNECTIONS, THROTTLED = "rejected the access token", "too many connections", "again and again"
WRONG_PASSWORD = "Microsoft 365 rejected the username"
MICROSOFTS_MAILBOX, GOOGLES_MAILBOX = "enterprise application must", "service account must"
EXCHANGE = "[FR0P281CA0001.DEUP281.PROD.OUTLOOK.COM 2026-11-28T10:00:00.000Z 08DE2D0000000000]"
GOOGLE_STATUS = "status 401, schemes bearer, scope https://mail.google.com/"
RELAY = (
    "5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you've registered in your Workspace SMTP Relay "
    "service doesn't match the domain of the account this email is being sent from. If you are trying to relay mail "
    "from a domain that isn't registered under your Workspace account or has empty envelope-from:, you must configure "
    "your mail server either to use SMTP AUTH to identify the sending domain or to present one of your domain names in "
    "the HELO or EHLO command."
)
FAILED = "5.7.139 Authentication unsuccessful,"
OFF_FOR_MAILBOX = f"{FAILED} SmtpClientAuthentication is disabled for the Mailbox. {EXCHANGE}"
OFF_FOR_TENANT = (
    f"{FAILED} SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more "
    f"information. {EXCHANGE} (XOAUTH2)"
)
NO_PASSWORDS = f"{FAILED} basic authentication is disabled. {EXCHANGE}"
LOCKED = (
    f"{FAILED} user is locked by your organization's security defaults policy. Contact your administrator. {EXCHANGE}"
)
CRITERIA = (
    f"{FAILED} the request did not meet the criteria to be authenticated successfully. Contact your administrator. "
    f"{EXCHANGE}"
)
INCORRECT = f"{FAILED} the user credentials were incorrect. {EXCHANGE}"
NOT_ACCEPTED = "5.7.8 Username and Password not accepted. - gsmtp"
CANNOT_AUTHENTICATE = "4.7.0 Cannot authenticate due to temporary system problem. - gsmtp (XOAUTH2)"
QUOTA_EXCEPTION = (
    "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a "
    "permanent exception with message Cannot submit message."
)
FULL = "5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded"

NOT_FINAL: list[Row] = [
    # support.google.com/a/answer/3726730 lists 5.2.1 twice: too many emails, and a disabled account.
    (RCPT, 550, f"5.2.1 {RATE}", GMAIL, TEMPORARY, "too many emails"),
    (DATA, 550, f"5.2.1 {RATE}", OWN, TEMPORARY, "too many emails"),
    (
        RCPT,
        450,
        "4.2.1 The user you are trying to contact is receiving mail too quickly.",
        GMAIL,
        TEMPORARY,
        "too many",
    ),
    (RCPT, 550, "5.2.1 The email account that you tried to reach is disabled.", GMAIL, REJECTED, "is disabled"),
    # service.mail.qq.com/detail/122/166 and 172 to 175
    (DATA, 550, "Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022", QQ, TEMPORARY, LIMIT),
    (DATA, 550, "Domain frequency limited", OWN, TEMPORARY, LIMIT),
    (RCPT, 550, "Sender frequency limited.", OWN, TEMPORARY, LIMIT),
    (RCPT, 550, "Connection frequency limited", OWN, TEMPORARY, LIMIT),
    (MAIL, 550, "Ip frequency limited", QQ, TEMPORARY, LIMIT),
    (RCPT, 550, "Mailbox unavailable or access denied", QQ, TEMPORARY, "too many emails"),
    (RCPT, 550, "Mailbox unavailable", OWN, REJECTED, NO_MAILBOX),  # look-alike
    (DATA, 550, "Mail content denied. http://service.mail.qq.com/frequency-limited", QQ, REJECTED, SPAM),  # look-alike
    (RCPT, 550, "Suspected spam ip", QQ, SETTINGS, IP_ADDRESS),  # detail/122/66
    (DATA, 550, "Suspected spam sender.", QQ, REJECTED, SPAM),  # look-alike
    # docs.aws.amazon.com/ses, "SMTP response codes returned by Amazon SES", and bounces that its users published
    (DATA, 554, SES_PAUSED, SES, SETTINGS, BLOCKED),
    (DATA, 554, "Transaction failed: Sending suspended for this account.", SES, SETTINGS, BLOCKED),
    (RCPT, 550, "This mailbox is suspended", OWN, REJECTED, "mailbox is disabled"),  # look-alike
    (DATA, 554, SES_DENIED, SES, SETTINGS, "ses:SendRawEmail"),
    (DATA, 554, SES_DENIED, OWN, SETTINGS, SEND_AS),
    (RCPT, 550, "5.7.1 You are not authorized to send email to this group", OWN, REJECTED, "A rule of"),  # look-alike
    # github.com/sendgrid/docs/issues/6473, at MAIL; another relay may say it at RCPT
    (MAIL, 550, "Unauthenticated senders not allowed", SENDGRID, SETTINGS, SIGN_IN),
    (RCPT, 550, "Unauthenticated senders not allowed", OWN, SETTINGS, SIGN_IN),
    (DATA, 550, "5.7.1 Unauthenticated email is not accepted from this domain.", GMAIL, SETTINGS, DOMAIN),  # look-alike
    # github.com/TryGhost/Ghost/issues/17012
    (MAIL, 550, "5.7.0 From address is not one of your addresses", ICLOUD, SETTINGS, SEND_AS),
    (DATA, 550, "5.7.0 From address is not one of your addresses", ICLOUD, SETTINGS, SEND_AS),
    (RCPT, 550, "5.1.1 <a@x.example> is not one of our addresses", OWN, REJECTED, NO_MAILBOX),  # look-alike
    # RFC 6647 asks for 4yz; some servers send 550
    (RCPT, 550, "Greylisted, try again in 5 minutes", OWN, TEMPORARY, GREYLISTED),
    (RCPT, 554, "5.7.1 greylisted, retry later", OWN, TEMPORARY, GREYLISTED),
    (MAIL, 550, "Greylisting in action, please come back later", OWN, TEMPORARY, GREYLISTED),
    (RCPT, 550, "<greylist@x.example>: no such user", OWN, REJECTED, NO_MAILBOX),  # look-alike
    (RCPT, 550, "Try again later", OWN, TEMPORARY, EXPLAINED),
    (DATA, 550, "5.7.0 Temporarily deferred", OWN, TEMPORARY, EXPLAINED),
    (DATA, 550, "Message is spam, do not try again later", OWN, REJECTED, SPAM),  # look-alike
    (RCPT, 550, "No such user. Check the address before you try again.", OWN, REJECTED, NO_MAILBOX),  # look-alike
    # qmail-remote.c has "System resources temporarily unavailable", Yahoo "Resources temporarily unavailable"
    (DATA, 554, "Resources temporarily unavailable. Please try again later.", OWN, TEMPORARY, EXPLAINED),
    (DATA, 554, "Resources temporarily unavailable", OWN, TEMPORARY, EXPLAINED),
    (RCPT, 550, "Mailbox temporarily disabled by its owner", OWN, REJECTED, "mailbox is disabled"),  # look-alike
    # RFC 3463: X.3.2, X.3.5, X.4.3 are about the system
    (DATA, 550, "5.3.2 system not accepting network messages", OWN, TEMPORARY, "busy or restarting"),
    (DATA, 550, "5.3.5 System incorrectly configured", OWN, TEMPORARY, EXPLAINED),
    (RCPT, 550, "5.4.3 routing server failure", OWN, TEMPORARY, EXPLAINED),
    (DATA, 554, "5.3.4 Message too big for system", OWN, REJECTED, "too large"),  # look-alike
    (DATA, 432, "4.3.2 Concurrent connections limit exceeded.", OWN, TEMPORARY, "too many connections"),  # look-alike
    # RFC 5321, section 4.2.2: 500 and 503 are about the command; RFC 3463: class 4 is temporary
    (RCPT, 500, "5.5.1 command unrecognized", OWN, TEMPORARY, EXPLAINED),
    (RCPT, 503, "5.5.1 Error: need MAIL command", OWN, TEMPORARY, EXPLAINED),
    (DATA, 503, "5.5.1 Error: need RCPT command", OWN, TEMPORARY, EXPLAINED),
    (RCPT, 503, "AUTH first (#5.5.1)", OWN, SETTINGS, SIGN_IN),  # look-alike
    (DATA, 500, "5.5.2 Line too long", OWN, REJECTED, "see its reply"),  # look-alike
    (RCPT, 501, "5.1.3 Bad recipient address syntax", OWN, REJECTED, "as it is written"),  # look-alike
    (RCPT, 554, "4.7.1 Service not available", OWN, TEMPORARY, EXPLAINED),
    (MAIL, 554, "4.3.0 not now", OWN, TEMPORARY, EXPLAINED),
    (RCPT, 550, "4.2.2 Mailbox is full", OWN, TEMPORARY, "mailbox is full"),
    (DATA, 554, "5.7.1 not now", OWN, REJECTED, "A rule of"),  # look-alike
    (AUTH, 535, "4.7.8 wrong password", OWN, SETTINGS, "enter both again"),  # look-alike: no second attempt
    (AUTH, 535, "5.7.8 authentication failed: too many connections", OWN, SETTINGS, "enter both again"),  # look-alike
]
VERDICTS: list[Row] = [
    (DATA, 550, "5.7.1 Spam detected; DKIM=pass SPF=pass DMARC=pass", OWN, REJECTED, SPAM),
    (DATA, 550, UNSOLICITED, GMAIL, REJECTED, SPAM),  # support.google.com/a/answer/3726730
    (DATA, 550, UNUSUAL_RATE, GMAIL, TEMPORARY, LIMIT),  # look-alike, the same page
    (DATA, 550, "5.7.26 This message fails to pass authentication checks (SPF or DKIM).", GMAIL, SETTINGS, DOMAIN),
    (DATA, 550, "5.7.1 fails to pass authentication checks. To protect users from spam", GMAIL, SETTINGS, DOMAIN),
    (DATA, 550, "DMARC check failed", QQ, SETTINGS, DOMAIN),
    (DATA, 550, "Message considered spam. IP address reputation poor", OWN, REJECTED, SPAM),
    (
        DATA,
        550,
        "5.7.1 suspicious due to the very low reputation of the sending IP address",
        GMAIL,
        SETTINGS,
        IP_ADDRESS,
    ),
    (RCPT, 554, "5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", OWN, SETTINGS, IP_ADDRESS),  # Postfix
    (RCPT, 550, "192.0.2.1 is listed by Spamhaus, ask for your IP address", OWN, SETTINGS, IP_ADDRESS),
    (RCPT, 550, "Connection denied", QQ, SETTINGS, IP_ADDRESS),
    (DATA, 554, "5.7.1 Message contains a virus (Eicar); your ip has been logged", OWN, REJECTED, SPAM),
    (DATA, 552, "5.7.0 Our system detected an illegal attachment on your message.", GMAIL, REJECTED, SPAM),
    (DATA, 550, "5.7.1 Message blocked due to spam content (HELO ok)", OWN, REJECTED, SPAM),
    (DATA, 550, "5.7.1 Your HELO is bad", OWN, SETTINGS, HELO),  # look-alike
    (RCPT, 550, "5.7.1 <spam>: Helo command rejected: spam", OWN, SETTINGS, HELO),  # look-alike: Postfix
    (RCPT, 550, "Mailbox does not exist (ehlo mail.portal)", OWN, REJECTED, NO_MAILBOX),
    (RCPT, 550, "No such user here. SPF passed.", OWN, REJECTED, NO_MAILBOX),
    (RCPT, 550, "User unknown, seen from ip address 192.0.2.1", OWN, REJECTED, NO_MAILBOX),
    (RCPT, 550, "5.7.1 Your IP address is not allowed", OWN, SETTINGS, IP_ADDRESS),  # look-alike
    (RCPT, 550, "Sender verify failed: No such user here", OWN, SETTINGS, "sender email"),  # look-alike: Exim
    (EHLO, 504, "5.5.2 need fully-qualified hostname", OWN, SETTINGS, HELO),  # Postfix
    (EHLO, 550, "5.7.1 Helo rejected: your reverse dns does not match", OWN, SETTINGS, HELO),
    (EHLO, 554, "5.7.1 You are blocked", OWN, SETTINGS, IP_ADDRESS),  # look-alike
    (RCPT, 504, "5.5.2 <ann>: Recipient address rejected: need fully-qualified address", OWN, REJECTED, "correct the"),
]
MICROSOFT_AND_GOOGLE: list[Row] = [
    # learn.microsoft.com, "Authenticate an IMAP, POP or SMTP connection using OAuth", and issues of users' programs
    (AUTH, 535, f"5.7.3 Authentication unsuccessful {EXCHANGE} (XOAUTH2)", OFFICE, SETTINGS, MICROSOFTS_MAILBOX),
    (AUTH, 535, f"5.7.3 Authentication unsuccessful {EXCHANGE}", OFFICE, SETTINGS, WRONG_PASSWORD),  # look-alike
    (AUTH, 535, "5.7.3 Authentication unsuccessful (XOAUTH2)", OWN, SETTINGS, TOKEN),  # look-alike
    (AUTH, 535, "5.7.3 Authentication unsuccessful for (XOAUTH2X)", OWN, SETTINGS, PASSWORD),  # look-alike
    (AUTH, 535, OFF_FOR_MAILBOX, OFFICE, SETTINGS, TURN_ON),
    (AUTH, 535, OFF_FOR_TENANT, OFFICE, SETTINGS, TURN_ON),
    (AUTH, 535, OFF_FOR_MAILBOX, OWN, SETTINGS, PASSWORD),  # look-alike
    (AUTH, 535, NO_PASSWORDS, OFFICE, SETTINGS, OAUTH),
    (AUTH, 535, LOCKED, OFFICE, SETTINGS, OAUTH),
    (AUTH, 535, CRITERIA, OFFICE, SETTINGS, CONDITIONAL),
    (AUTH, 535, INCORRECT, OFFICE, SETTINGS, WRONG_PASSWORD),  # look-alike
    (AUTH, 550, "5.7.30 Basic authentication is not supported for Client Submission.", OFFICE, SETTINGS, OAUTH),
    (AUTH, 535, "5.7.300 Basic authentication is not supported.", OFFICE, SETTINGS, WRONG_PASSWORD),  # look-alike
    (MAIL, 530, f"5.7.57 Client not authenticated to send mail. {EXCHANGE}", OFFICE, SETTINGS, SIGN_IN),
    (RCPT, 550, "5.7.570 no authentication results", OWN, REJECTED, "A rule of"),  # look-alike
    # learn.microsoft.com, "Message storage and concurrent connection throttling for SMTP Authenticated Submission"
    (
        AUTH,
        432,
        "4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.",
        OFFICE,
        TEMPORARY,
        CONNECTIONS,
    ),
    (DATA, 432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded.", OFFICE, TEMPORARY, CONNECTIONS),
    (DATA, 432, "4.3.2 System not accepting network messages", OFFICE, TEMPORARY, EXPLAINED),  # look-alike
    (DATA, 554, QUOTA_EXCEPTION, OFFICE, TEMPORARY, LIMIT),
    (DATA, 554, FULL, OFFICE, TEMPORARY, "mailbox that sends is full"),
    (DATA, 554, FULL, OWN, TEMPORARY, "mailbox is full"),  # look-alike
    (RCPT, 554, "5.2.2 mailbox full", OFFICE, TEMPORARY, "says that the mailbox is full"),  # look-alike
    # learn.microsoft.com, "Continuous error throttling for SMTP AUTH submissions in Exchange Online"
    (DATA, 550, "5.2.251 Sender throttled due to continuous mailbox full errors.", OFFICE, SETTINGS, THROTTLED),
    (MAIL, 550, "5.2.252 Sender throttled due to continuous send as denied errors.", OFFICE, SETTINGS, THROTTLED),
    (DATA, 550, "5.2.253 Sender throttled due to continuous invalid license errors.", OFFICE, SETTINGS, THROTTLED),
    (DATA, 550, "5.2.254 Sender throttled due to continuous too many recipients errors.", OFFICE, SETTINGS, THROTTLED),
    (RCPT, 550, "5.2.255 Sender throttled due to continuous invalid recipients errors.", OFFICE, SETTINGS, THROTTLED),
    (DATA, 554, "5.2.252 SendAsDenied; a@x.example not allowed to send as b@x.example", OFFICE, SETTINGS, SEND_AS),
    (DATA, 554, "5.7.60 SMTP; SendAsDenied", OFFICE, SETTINGS, SEND_AS),
    (DATA, 550, "5.2.256 Mailbox full, throttled", OWN, TEMPORARY, "mailbox is full"),  # look-alike
    # support.google.com/a/answer/3726730
    (AUTH, 535, f"{NOT_ACCEPTED} (XOAUTH2: {GOOGLE_STATUS})", GMAIL, SETTINGS, GOOGLES_MAILBOX),
    (AUTH, 535, NOT_ACCEPTED, GMAIL, SETTINGS, "Google rejected"),  # look-alike
    (AUTH, 535, "5.7.8 Authentication failed. (OAUTHBEARER: status invalid_token)", OWN, SETTINGS, TOKEN),  # Dovecot
    (AUTH, 535, "5.7.8 Authentication failed.", OWN, SETTINGS, PASSWORD),  # look-alike
    (AUTH, 534, "5.7.9 Application-specific password required.  - gsmtp", GMAIL, SETTINGS, "create an app password"),
    (AUTH, 534, "5.7.9 Application-specific password required.", OWN, SETTINGS, "stronger"),  # look-alike
    (DATA, 550, "5.4.5 Daily user sending limit exceeded. - gsmtp", GMAIL, TEMPORARY, LIMIT),
    (DATA, 550, "5.4.50 no", OWN, REJECTED, "see its reply"),  # look-alike
    (AUTH, 454, "4.7.0 Too many login attempts, please try again later. - gsmtp", GMAIL, TEMPORARY, "some minutes"),
    (AUTH, 454, CANNOT_AUTHENTICATE, GMAIL, TEMPORARY, "at the moment"),
    (MAIL, 550, RELAY, GMAIL, SETTINGS, IP_ADDRESS),
    (RCPT, 550, "5.7.1 Your credentials for the relay are fine", OWN, SETTINGS, "only after sign-in"),  # look-alike
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "code", "text", "host", "kind", "part"), [*NOT_FINAL, *VERDICTS, *MICROSOFT_AND_GOOGLE]
)
def test_whose_fault_a_reply_is(stage: Stage, code: int, text: str, host: str, kind: ReplyKind, part: str) -> None:
    reply = classify(stage, code, text)
    advice = advice_for(reply, 587, host=host)
    assert (reply.kind, part in advice) == (kind, True), (reply, advice)


# What a sentence says that happens next, and the kinds of reply after which it does.
PROMISES = {
    r"automatically|to the others later": {TEMPORARY},
    r"\bsave\b": {SETTINGS},
    r"correct (it|the .*address)|remove the address|permanently": {REJECTED},
}
CODES = (421, 450, 500, 503, 504, 530, 535, 550, 552, 554)
PREFIXES = ("", "5.7.1 ", "4.7.1 ")
SAMPLE_HOSTS = {advice.hosts: sample(parser.parse(advice.hosts)) for advice in ADVICE if advice.hosts}


def examples(expression: str) -> Iterator[str]:
    """Yield texts that an expression matches: one for each alternative of each choice in it."""
    tree = list(parser.parse(expression))
    yield sample(tree)
    for index, (kind, value) in enumerate(tree):
        choice = value[-1][0] if kind is op.SUBPATTERN and len(value[-1]) == 1 else (kind, value)
        if choice[0] is op.BRANCH:
            yield from (sample([*tree[:index], *branch, *tree[index + 1 :]]) for branch in choice[1][1])


def replies_of(advice: Advice) -> Iterator[tuple[int, str]]:
    """Yield codes and texts of replies that the advice is about."""
    for example in (
        (*examples(advice.code), *examples(advice.general_code)) if advice.code else examples(advice.general_code)
    ):
        code, _, rest = example.partition(" ")
        yield from product([int(code)] if code in map(str, CODES) else CODES, [rest])
    yield from product(CODES, (prefix + text for prefix in PREFIXES for text in examples(advice.words)))


def allowed(sentence: str, code: int, enhanced_code: str | None) -> set[ReplyKind]:
    is_temporary = code < 500 or (enhanced_code or "").startswith("4")
    kinds = set.intersection(
        {TEMPORARY, SETTINGS, REJECTED}, *(kinds for says, kinds in PROMISES.items() if re.search(says, sentence))
    )
    # What is wrong with an address stays true while the server calls it temporary.
    return kinds | {TEMPORARY} if is_temporary and "correct" in sentence else kinds


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: advice.text[:60])
def test_the_state_and_the_advice_say_the_same(advice: Advice) -> None:
    """For every entry, at every stage it is for and with every code: both come from one entry."""
    means_of = {other.text: other.means for other in ADVICE if other.means}
    for (code, text), stage in product(replies_of(advice), advice.stages or ("ehlo", "auth", "mail", "rcpt", "data")):
        reply = classify(Stage(stage), code, text)
        sentence = advice_for(reply, advice.port or 587, host=SAMPLE_HOSTS.get(advice.hosts, OWN))
        assert reply.kind in allowed(sentence, code, reply.enhanced_code), (reply, sentence)
        if reply.kind is not TEMPORARY and reply.stage.is_about_message:
            assert means_of.get(sentence, reply.kind) == reply.kind, (reply, sentence)
