"""Advice about replies as servers and providers document them, and about replies that only look like them.

Each row is a stage, a code with the text after it, the host, what the reply means, and a part of the advice.
"""

import pytest

from portal.mail_servers.providers import provider_of
from portal.mail_servers.smtp.connect import settings_failure
from portal.mail_servers.smtp.outcome import ADVICE, BUSY, ReplyKind, SmtpReply, Stage, advice_for, classify

AUTH, MAIL, RCPT, DATA = Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DATA
TEMPORARY, SETTINGS, REJECTED = ReplyKind.TEMPORARY, ReplyKind.SETTINGS, ReplyKind.REJECTED
OWN = "mail.acme.example"
GMAIL, OFFICE, SES = "smtp.gmail.com", "smtp.office365.com", "email-smtp.eu-west-1.amazonaws.com"
SENDGRID, MAILGUN, BREVO = "smtp.sendgrid.net", "smtp.eu.mailgun.org", "smtp-relay.brevo.com"
SES_FIPS = "email-smtp-fips.us-gov-west-1.amazonaws.com"
EC2 = "ec2-192-0-2-1.eu-west-1.compute.amazonaws.com"  # somebody's own server
YAHOO, ZOHO = "smtp.mail.yahoo.com", "smtppro.zoho.eu"
PASSWORD = "rejected the username or password: enter both again"
PLESK = (
    "5.7.0 Your message could not be sent. The limit on the number of allowed outgoing messages was exceeded. "
    "Try again later."
)
Row = tuple[Stage, int, str, str, ReplyKind, str]

PROVIDERS: list[Row] = [
    (AUTH, 534, "5.7.9 Application-specific password required. - gsmtp", GMAIL, SETTINGS, "create an app password"),
    (AUTH, 535, "5.7.8 Username and Password not accepted. a1 - gsmtp", GMAIL, SETTINGS, "Google rejected"),
    (AUTH, 534, "5.7.14 Please log in via your web browser and then try again.", GMAIL, SETTINGS, "in a browser first"),
    (AUTH, 454, "4.7.0 Too many login attempts, please try again later.", GMAIL, TEMPORARY, "wait some minutes"),
    (DATA, 550, "5.4.5 Daily user sending limit exceeded. a1 - gsmtp", GMAIL, TEMPORARY, "sending limit"),
    (MAIL, 550, "5.7.1 Daily SMTP relay limit exceeded for customer. - gsmtp", GMAIL, TEMPORARY, "sending limit"),
    (MAIL, 550, "5.7.1 Invalid credentials for relay [192.0.2.1]. - gsmtp", GMAIL, SETTINGS, "SMTP relay service"),
    (DATA, 552, "5.2.3 Your message exceeded Google's message size limits.", GMAIL, REJECTED, "too large"),
    (DATA, 552, "5.7.0 This message was blocked because its content presents", GMAIL, REJECTED, "as spam"),
    (RCPT, 452, "4.2.2 The email account that you tried to reach is over quota.", GMAIL, TEMPORARY, "mailbox is full"),
    (
        AUTH,
        535,
        "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
        OFFICE,
        SETTINGS,
        "turn on Authenticated SMTP",
    ),
    (
        AUTH,
        535,
        "5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
        OFFICE,
        SETTINGS,
        "Microsoft 365 rejected",
    ),
    (AUTH, 550, "5.7.30 Basic authentication is not supported for Client Submission.", OFFICE, SETTINGS, "OAuth 2.0"),
    (AUTH, 535, "5.7.3 Authentication unsuccessful [X.prod.outlook.com]", OFFICE, SETTINGS, "Microsoft 365 rejected"),
    (MAIL, 530, "5.7.57 Client not authenticated to send mail.", OFFICE, SETTINGS, "requires sign-in"),
    (DATA, 432, "4.3.2 Concurrent connections limit exceeded.", OFFICE, TEMPORARY, "too many connections"),
    (DATA, 554, "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceeded", OFFICE, TEMPORARY, "sending limit"),
    (DATA, 550, "5.2.2 Submission quota exceeded", OFFICE, TEMPORARY, "sending limit"),
    (DATA, 554, "5.2.252 SendAsDenied; a@x.example not allowed to send as b@x.example", OFFICE, SETTINGS, "send as"),
    (MAIL, 550, "5.7.60 SMTP; Client does not have permissions to send as this sender", OFFICE, SETTINGS, "send as"),
    (DATA, 550, "5.7.708 Access denied, traffic not accepted from this IP.", OFFICE, SETTINGS, "new or trial"),
    (RCPT, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", OFFICE, REJECTED, "does not exist"),
    (RCPT, 550, "5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", OFFICE, REJECTED, "A rule of the mail server"),
    (AUTH, 535, "Authentication Credentials Invalid", SES, SETTINGS, "in the SES console"),
    (AUTH, 535, "Authentication Credentials Invalid", SES_FIPS, SETTINGS, "in the SES console"),
    (
        DATA,
        554,
        "Message rejected: Email address is not verified. The following identities failed the check",
        SES,
        SETTINGS,
        "verified in this region",
    ),
    (DATA, 454, "Throttling failure: Daily message quota exceeded.", SES, TEMPORARY, "sending limit"),
    (DATA, 454, "Throttling failure: Maximum sending rate exceeded.", SES, TEMPORARY, "sending limit"),
    (MAIL, 421, "Maximum message count per session reached", SES, TEMPORARY, "limit for one session"),
    (AUTH, 535, "Authentication failed: The provided authorization grant is invalid", SENDGRID, SETTINGS, "apikey"),
    (DATA, 550, "The from address does not match a verified Sender Identity.", SENDGRID, SETTINGS, "Sender Authentic"),
    (AUTH, 535, "5.7.0 Mailgun is not loving your login or password", MAILGUN, SETTINGS, "of the sending domain"),
    (
        DATA,
        550,
        "Sandbox subdomains are for test purposes only. Please add your own domain",
        MAILGUN,
        SETTINGS,
        "authorised recipients",
    ),
    (AUTH, 525, "5.7.1 Unauthorized IP address", BREVO, SETTINGS, "authorised IPs"),
    (AUTH, 535, "5.7.0 (#AUTH005) Too many bad auth attempts.", YAHOO, SETTINGS, "Yahoo requires an app password"),
    (RCPT, 553, "Relaying disallowed as pbx@acme.example", ZOHO, SETTINGS, "may not send as"),
    (DATA, 554, "5.1.8 Email Outgoing Blocked", ZOHO, SETTINGS, "Zoho has blocked"),
    (DATA, 550, "5.4.6 Unusual sending activity detected.", ZOHO, SETTINGS, "Zoho has blocked"),
]
# The same words from somebody else's server, which is not the provider's.
ELSEWHERE: list[Row] = [
    (AUTH, 535, "Authentication credentials invalid", OWN, SETTINGS, PASSWORD),
    (AUTH, 535, "Authentication credentials invalid", "mail.gmx.net", SETTINGS, PASSWORD),
    (AUTH, 535, "Authentication credentials invalid", "amazonaws.com.evil.example", SETTINGS, PASSWORD),
    (AUTH, 535, "5.7.3 Authentication unsuccessful", OWN, SETTINGS, PASSWORD),
    (AUTH, 535, "Authentication failed: Bad username / password", OWN, SETTINGS, PASSWORD),
    (AUTH, 535, "5.7.8 Error: authentication failed", OWN, SETTINGS, PASSWORD),
    (AUTH, 535, "Authentication credentials invalid", EC2, SETTINGS, PASSWORD),
    (AUTH, 525, "5.7.13 User account disabled", OWN, SETTINGS, "has blocked this account"),
    (AUTH, 502, "5.5.1 Command not implemented", OWN, SETTINGS, "offers no sign-in here"),
    (AUTH, 535, "5.7.0 Too many bad auth attempts", OWN, SETTINGS, PASSWORD),
    (RCPT, 550, "5.4.6 Routing loop detected", OWN, REJECTED, "see its reply"),
    (DATA, 550, "5.1.8 Sender address rejected: Domain not found", OWN, SETTINGS, "does not accept the sender email"),
    (DATA, 554, "Message rejected: Email address is not verified.", OWN, SETTINGS, "may not send as"),
    (DATA, 550, "5.7.708 Access denied, traffic not accepted from this IP.", OWN, SETTINGS, "portal's IP address"),
]
ACCOUNT_OR_SERVER: list[Row] = [
    (RCPT, 504, "5.5.2 <127.0.0.1>: Helo command rejected: need fully-qualified hostname", OWN, SETTINGS, "SMTP_HELO"),
    (RCPT, 550, "5.7.1 <portal>: Helo command rejected: Host not found", OWN, SETTINGS, "SMTP_HELO_NAME"),
    (RCPT, 450, "4.7.1 <portal>: Helo command rejected: Host not found", OWN, TEMPORARY, "SMTP_HELO_NAME"),
    (RCPT, 550, "Access denied - Invalid HELO name (See RFC2821 4.1.1.1)", OWN, SETTINGS, "SMTP_HELO_NAME"),
    (DATA, 504, "Invalid EHLO. need fully-qualified hostname", OWN, SETTINGS, "SMTP_HELO_NAME"),
    (RCPT, 554, "5.7.1 <ann@x.example>: Relay access denied", OWN, SETTINGS, "only after sign-in"),
    (RCPT, 550, "5.7.1 <ann@x.example>... Relaying denied. Proper authentication required.", OWN, SETTINGS, "sign-in"),
    (RCPT, 550, "relay not permitted", OWN, SETTINGS, "only after sign-in"),
    (RCPT, 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", OWN, SETTINGS, "after sign-in"),
    (RCPT, 550, "5.7.54 SMTP; Unable to relay recipient in non-accepted domain", OWN, SETTINGS, "only after sign-in"),
    (RCPT, 530, "Authentication required - for <ann@x.example>", OWN, SETTINGS, "requires sign-in"),
    (RCPT, 553, "5.7.1 <pbx@x.example>: Sender address rejected: not logged in", OWN, SETTINGS, "requires sign-in"),
    (RCPT, 503, "This mail server requires authentication when sending", OWN, SETTINGS, "requires sign-in"),
    (DATA, 530, "5.7.0 Must issue a STARTTLS command first", OWN, SETTINGS, "requires encryption"),
    (RCPT, 530, "5.7.0 Must issue a STARTTLS command first", OWN, SETTINGS, "requires encryption"),
    (RCPT, 554, "5.7.1 Session encryption is required", OWN, SETTINGS, "requires encryption"),
    (RCPT, 553, "5.7.1 <pbx@x.example>: Sender address rejected: not owned by user pbx", OWN, SETTINGS, "send as"),
    (RCPT, 550, "5.1.0 <pbx@x.example>: Sender address rejected: User unknown", OWN, SETTINGS, "sender email"),
    (RCPT, 504, "5.5.2 <pbx>: Sender address rejected: need fully-qualified address", OWN, SETTINGS, "sender email"),
    (RCPT, 550, "Sender verify failed", OWN, SETTINGS, "sender email"),
    (DATA, 550, "mailbox unavailable\nSender address is not allowed.", "mail.gmx.net", SETTINGS, "may not send as"),
    (DATA, 550, "5.7.26 Unauthenticated email is not accepted due to DMARC policy", OWN, SETTINGS, "SPF or DKIM"),
    (RCPT, 550, "5.7.23 <a@x.example>: Recipient address rejected: SPF fail", OWN, SETTINGS, "SPF or DKIM"),
    (RCPT, 554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen", OWN, SETTINGS, "IP address"),
    (RCPT, 550, "5.7.25 Client host rejected: cannot find your reverse hostname", OWN, SETTINGS, "IP address"),
    (RCPT, 550, "5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.example", OWN, SETTINGS, "IP address"),
    (DATA, 554, PLESK, OWN, TEMPORARY, "sending limit"),
    (DATA, 550, "Domain x has exceeded the max emails per hour (100/100) allowed.", OWN, TEMPORARY, "sending limit"),
    (RCPT, 550, "5.7.1 <a@x.example>: Policy Rejection- Quota Exceeded.", OWN, TEMPORARY, "sending limit"),
    (DATA, 550, "5.2.2 Quota exceeded (mailbox for user is full)", OWN, TEMPORARY, "mailbox is full"),
    (DATA, 550, "Requested action not taken: Mailbox quota exceeded", OWN, TEMPORARY, "mailbox is full"),
    (RCPT, 552, "5.2.2 <ann@x.example>: Mailbox is full", OWN, TEMPORARY, "mailbox is full"),
    (RCPT, 552, "Mailbox is full / Blocks limit exceeded / Inode limit exceeded", OWN, TEMPORARY, "mailbox is full"),
    (DATA, 552, "Requested mail action aborted: exceeded storage allocation", OWN, TEMPORARY, "mailbox is full"),
    (DATA, 552, "5.3.1 Insufficient system storage", OWN, TEMPORARY, "no space"),
    (RCPT, 452, "4.3.1 Insufficient system resources", OWN, TEMPORARY, "no space"),
    (DATA, 452, "4.4.5 Maximum number of messages per session exceeded.", OWN, TEMPORARY, "limit for one session"),
    (RCPT, 554, "Too many mails per session", OWN, TEMPORARY, "limit for one session"),
    (RCPT, 421, "#4.x.2 Too many messages for this session", OWN, TEMPORARY, "limit for one session"),
    (MAIL, 550, "too many messages in this connection", OWN, TEMPORARY, "limit for one session"),
    (RCPT, 452, "4.5.3 Error: too many recipients", OWN, TEMPORARY, "fewer recipients"),
    (RCPT, 552, "Too many recipients", OWN, TEMPORARY, "fewer recipients"),
    (DATA, 550, "Your account has been suspended for abuse", OWN, SETTINGS, "blocked this account"),
]
MESSAGE_OR_RECIPIENT: list[Row] = [
    (DATA, 552, "5.3.4 Message size exceeds fixed limit", OWN, REJECTED, "too large"),
    (MAIL, 552, "5.3.4 Message size exceeds fixed limit", OWN, REJECTED, "too large"),
    (DATA, 552, "sorry, that message size exceeds my databytes limit (#5.3.4)", OWN, REJECTED, "too large"),
    (DATA, 552, "Message size exceeds maximum permitted", OWN, REJECTED, "too large"),
    (DATA, 554, "5.7.1 Message rejected as spam", OWN, REJECTED, "as spam"),
    (DATA, 550, "5.7.1 Rejected mail as spam by content filter", OWN, REJECTED, "as spam"),
    (DATA, 554, "5.7.1 whatever", OWN, REJECTED, "A rule of the mail server"),
    (DATA, 550, "go away", OWN, REJECTED, "see its reply"),
    (RCPT, 550, "5.1.1 unknown", OWN, REJECTED, "mailbox does not exist"),
    (RCPT, 550, "Requested action not taken: mailbox unavailable", OWN, REJECTED, "mailbox does not exist"),
    (RCPT, 550, "5.1.1 <relay@x.example>: Recipient address rejected: User unknown", OWN, REJECTED, "does not exist"),
    (RCPT, 550, "<spam@x.example>: User unknown in local recipient table", OWN, REJECTED, "does not exist"),
    (RCPT, 550, "<helo@x.example>: no such user", OWN, REJECTED, "does not exist"),
    (RCPT, 550, "relay@quota.example: no such mailbox", OWN, REJECTED, "does not exist"),
    (RCPT, 504, "5.5.2 <ann>: Recipient address rejected: need fully-qualified address", OWN, REJECTED, "correct the"),
    (RCPT, 556, "5.1.10 Domain has null MX", OWN, REJECTED, "domain of the recipient"),
    (RCPT, 450, "4.1.2 <ann@x.example>: Recipient address rejected: Domain not found", OWN, TEMPORARY, "domain of the"),
    (RCPT, 550, "5.2.1 The account is disabled", OWN, REJECTED, "mailbox is disabled"),
    (RCPT, 450, "4.2.1 The user is receiving mail too quickly. - gsmtp", GMAIL, TEMPORARY, "too many emails"),
    (RCPT, 501, "5.1.3 Bad recipient address syntax", OWN, REJECTED, "does not accept the recipient's address"),
    (RCPT, 550, "5.4.1 Recipient address rejected: Access denied", OFFICE, REJECTED, "mailbox does not exist"),
    (RCPT, 450, "4.2.0 Greylisted, see you later", OWN, TEMPORARY, "greylisting"),
    (RCPT, 450, "4.1.1 <ann@x.example>: unverified address: in progress", OWN, TEMPORARY, "temporary error"),
    (RCPT, 450, "Requested mail action not taken: mailbox unavailable", OWN, TEMPORARY, "temporary error"),
    (RCPT, 550, "5.7.1 See https://relay.example/quota?helo=portal", OWN, REJECTED, "A rule of the mail server"),
    (MAIL, 421, "4.3.0 closing", OWN, TEMPORARY, "busy"),
    (MAIL, 451, "4.3.0 try later", OWN, TEMPORARY, "temporary error"),
    (MAIL, 550, "no", OWN, SETTINGS, "does not accept the sender email"),
    (MAIL, 501, "5.5.4 Domain name required for sender address", OWN, SETTINGS, "does not accept the sender email"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "code", "text", "host", "kind", "part"),
    [*PROVIDERS, *ELSEWHERE, *ACCOUNT_OR_SERVER, *MESSAGE_OR_RECIPIENT],
)
def test_a_documented_reply(stage: Stage, code: int, text: str, host: str, kind: ReplyKind, part: str) -> None:
    reply = classify(stage, code, text)
    advice = advice_for(reply, 587, host=host)
    assert (reply.kind, part in advice) == (kind, True), (reply, advice)


@pytest.mark.parametrize(("stage", "code", "text", "host", "kind", "part"), PROVIDERS)
def test_a_providers_advice_is_given_only_at_its_hosts(
    stage: Stage, code: int, text: str, host: str, kind: ReplyKind, part: str
) -> None:
    for other in (OWN, "", f"{host}.evil.example"):
        advice = advice_for(classify(stage, code, text), 587, host=other)
        assert not [word for word in NAMES if word in advice], advice


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("smtp.gmail.com", "Google Gmail"),
        ("SMTP.Zoho.com", "Zoho Mail"),
        ("smtppro.zoho.eu", "Zoho Mail"),
        ("smtp.zoho.com.au", "Zoho Mail"),
        ("email-smtp.eu-west-1.amazonaws.com", "Amazon SES"),
        ("smtp.eu.mailgun.org", "Mailgun"),
        ("smtp-relay.gmail.com", "Google Workspace SMTP relay"),
        ("smtp-broadcasts.postmarkapp.com", "Postmark"),
        ("smtp.mailgun.org", "Mailgun"),
        (EC2, None),
        ("notzoho.com", None),
        ("smtp.zoho.com.evil.example", None),
        ("", None),
    ],
)
def test_the_provider_of_a_host(host: str, label: str | None) -> None:
    assert getattr(provider_of(host), "label", None) == label


NAMES = ("Google", "Microsoft", "Amazon", "SendGrid", "Mailgun", "Brevo", "Yahoo", "Zoho")


@pytest.mark.parametrize(
    ("code", "text", "part"),
    [
        (500, "5.5.1 unrecognized command", "choose None for both"),
        (502, "Command not implemented", "choose None for both"),
        (501, "Syntactically invalid HELO argument(s)", "SMTP_HELO_NAME"),
        (501, "5.5.4 Invalid command arguments: Invalid domain name", "SMTP_HELO_NAME"),
        (550, "5.7.1 go away", "rejects connections from the portal's IP address"),
    ],
)
def test_a_reply_to_ehlo(code: int, text: str, part: str) -> None:
    reply = classify(Stage.EHLO, code, text)
    assert (reply.kind, part in advice_for(reply, 25)) == (SETTINGS, True)


@pytest.mark.parametrize(
    ("stage", "text", "port", "part"),
    [
        (AUTH, "The mail server offers no sign-in.", 25, "choose STARTTLS or TLS"),
        (AUTH, "The mail server offers only PLAIN.", 25, "choose Auto as the authentication mode"),
        (AUTH, "The mail server offers only NTLM, LOGIN, GSSAPI.", 25, "choose Auto as the authentication mode"),
        (AUTH, "The mail server offers only XOAUTH2.", 25, "OAuth 2.0"),
        (AUTH, "The mail server offers only NTLM, OAUTHBEARER.", 25, "OAuth 2.0"),
        (AUTH, "The mail server does not offer OAuth 2.0.", 25, "sign in with a password"),
        (AUTH, "The mail server offers only NTLM, GSSAPI.", 25, "supports none of these sign-in methods"),
        (AUTH, "The mail server offers only SCRAM-SHA-256-PLUS.", 25, "supports none of these sign-in methods"),
        (AUTH, "The mail server offers only X-PLAIN.", 25, "supports none of these sign-in methods"),
        (
            Stage.TLS, "The certificate is not accepted: Hostname mismatch, certificate is not valid for 'x'.", 25,
            "for a different name",
        ),
        (Stage.TLS, "The certificate is not accepted: certificate has expired", 25, "has expired"),
        (Stage.TLS, "The certificate is not accepted: self-signed certificate", 25, "made itself"),
        (Stage.TLS, "The certificate is not accepted: self signed certificate", 25, "made itself"),
        (
            Stage.TLS, "The certificate is not accepted: self-signed certificate in certificate chain", 25,
            "add the authority to the file that MAIL_CA_FILE names",
        ),
        (Stage.TLS, "The mail server does not offer STARTTLS.", 25, "try TLS on port 465"),
        (Stage.TLS, "Encryption could not be negotiated.", 25, "choose STARTTLS"),
        (Stage.NAME, "No mail server that the portal may connect to was found.", 25, "check the address and the port"),
    ],
)  # fmt: skip
def test_what_the_portal_found_itself(stage: Stage, text: str, port: int, part: str) -> None:
    assert part in advice_for(settings_failure(stage, text).reply, port)


@pytest.mark.parametrize(
    ("text", "port", "part"),
    [
        ("No response in time.", 25, "port 25, which many networks block"),
        ("No response in time.", 587, "firewall"),
        ("The connection was refused.", 25, "no mail server listens"),
        (BUSY.text, 587, "Other emails of the portal"),
    ],
)
def test_no_connection(text: str, port: int, part: str) -> None:
    assert part in advice_for(classify(Stage.CONNECT, None, text), port)


def test_the_best_and_the_worst_end() -> None:
    assert "accepted" in advice_for(classify(DATA, 250, "ok"))
    assert "may have been sent" in advice_for(SmtpReply(ReplyKind.UNKNOWN, DATA, None, None, ""))


def test_advice_for_a_test_says_nothing_about_saving_and_later() -> None:
    for reply in (classify(AUTH, 535, "no"), settings_failure(AUTH, "The username or the password is missing.").reply):
        advice = advice_for(reply, will_retry=False)
        assert "save" not in advice
        assert "again" not in advice
    assert not [advice for advice in ADVICE if "automatically" in (advice.without_retry or advice.text)]
