import pytest

from portal.mail_servers.outcome import Fault, Kind, Outcome, Pause, Stage, advice, classify, longest_pause, pause_for

EARLY = (Stage.GREETING, Stage.EHLO)


@pytest.mark.parametrize(
    ("stage", "code", "kind"),
    [
        *[(stage, 421, Kind.TEMPORARY) for stage in Stage],
        *[(stage, None, Kind.TEMPORARY) for stage in Stage],
        *[(stage, 451, Kind.TEMPORARY) for stage in Stage],
        *[(stage, 554, Kind.SETTINGS) for stage in EARLY],
        (Stage.TLS, 454, Kind.TEMPORARY),
        (Stage.TLS, 502, Kind.SETTINGS),
        (Stage.AUTH, 454, Kind.TEMPORARY),
        (Stage.AUTH, 432, Kind.TEMPORARY),
        *[(Stage.AUTH, code, Kind.SETTINGS) for code in (530, 534, 535, 538)],
        (Stage.MAIL, 550, Kind.SETTINGS),
        (Stage.MAIL, 552, Kind.SETTINGS),
        (Stage.RCPT, 450, Kind.TEMPORARY),
        (Stage.RCPT, 552, Kind.TEMPORARY),
        (Stage.RCPT, 550, Kind.REFUSED),
        (Stage.RCPT, 553, Kind.REFUSED),
        (Stage.DATA, 452, Kind.TEMPORARY),
        (Stage.DATA, 552, Kind.REFUSED),
        (Stage.DATA, 554, Kind.REFUSED),
        (Stage.DATA, 250, Kind.SENT),
        (Stage.DATA, 354, Kind.TEMPORARY),
        (Stage.MAIL, 250, Kind.TEMPORARY),
    ],
)
def test_a_reply_means_what_the_table_says(stage: Stage, code: int | None, kind: Kind) -> None:
    outcome = classify(stage, code, "words")
    assert (outcome.kind, outcome.stage, outcome.code, outcome.text) == (kind, stage, code, "words")


@pytest.mark.parametrize(
    ("text", "enhanced_code", "readable"),
    [
        ("5.1.1 no such user", "5.1.1", "no such user"),
        ("5.1.1 no such\n5.1.1 user", "5.1.1", "no such user"),
        ("#5.1.1 no such user", "5.1.1", "no such user"),
        ("sorry, no mailbox here (#5.1.1)", "5.1.1", "sorry, no mailbox here (#5.1.1)"),
        ("4.7.500 busy", "4.7.500", "busy"),
        ("no code at all", None, "no code at all"),
        ("blocked 5.1.1.7 here", None, "blocked 5.1.1.7 here"),
        ("5.1.1.7 is blocked", None, "5.1.1.7 is blocked"),
        ("5.1 half a code", None, "5.1 half a code"),
        ("", None, ""),
    ],
)
def test_the_enhanced_code_is_read_and_taken_out(text: str, enhanced_code: str | None, readable: str) -> None:
    outcome = classify(Stage.RCPT, 550, text)
    assert (outcome.enhanced_code, outcome.text) == (enhanced_code, readable)


def test_the_text_is_one_bounded_line_of_visible_characters() -> None:
    hostile = "a\x00b\r\nc\td\x1b[31m\u202egnp.exe\u2028e\x85f\udcff Grüße 通知"
    assert classify(Stage.DATA, 550, hostile).text == "a b c d [31m gnp.exe e f Grüße 通知"
    long = classify(Stage.DATA, 550, "x" * 10_000).text
    assert len(long) == 500
    assert long.endswith("…")


@pytest.mark.parametrize(
    ("outcome", "pause"),
    [
        (classify(Stage.CONNECT, None, ""), Pause.BRIEF),
        (classify(Stage.NAME, None, ""), Pause.BRIEF),
        (classify(Stage.GREETING, 451, ""), Pause.BRIEF),
        (classify(Stage.AUTH, 454, ""), Pause.BRIEF),
        (classify(Stage.MAIL, 421, ""), Pause.BRIEF),
        (classify(Stage.DATA, None, ""), Pause.BRIEF),
        (Outcome(Kind.UNKNOWN, Stage.DATA, None, None, ""), Pause.BRIEF),
        (classify(Stage.AUTH, 535, ""), Pause.UNTIL_SAVED),
        (Outcome(Kind.SETTINGS, Stage.AUTH, None, None, ""), Pause.NONE),
        (Outcome(Kind.SETTINGS, Stage.TLS, None, None, ""), Pause.NONE),
        (classify(Stage.MAIL, 550, ""), Pause.NONE),
        (classify(Stage.RCPT, 451, ""), Pause.NONE),
        (classify(Stage.RCPT, 550, ""), Pause.NONE),
        (classify(Stage.DATA, 451, ""), Pause.NONE),
        (classify(Stage.DATA, 250, ""), Pause.NONE),
    ],
)
def test_who_is_left_alone_and_how_long(outcome: Outcome, pause: Pause) -> None:
    assert pause_for(outcome) is pause


def test_the_longest_pause_of_several_counts() -> None:
    sent, busy, wrong = classify(Stage.DATA, 250, ""), classify(Stage.RCPT, 421, ""), classify(Stage.AUTH, 535, "")
    assert longest_pause([]) is Pause.NONE
    assert longest_pause([sent, busy]) is Pause.BRIEF
    assert longest_pause([wrong, busy, sent]) is Pause.UNTIL_SAVED


def _settings(stage: Stage, text: str) -> Outcome:
    return Outcome(Kind.SETTINGS, stage, None, None, text)


# As the providers' servers were seen to say it.
PROVIDERS_WORDS = [
    (
        Stage.AUTH,
        534,
        "5.7.9 Application-specific password required.\n5.7.9  https://support.google.com/mail/?p=Invalid - gsmtp",
        "create an app password",
    ),
    (
        Stage.AUTH,
        535,
        "5.7.8 Username and Password not accepted.\n5.7.8  https://support.google.com/mail/?p=BadCredentials - gsmtp",
        "Google did not accept",
    ),
    (Stage.AUTH, 454, "4.7.0 Too many login attempts, please try again later. a1-b2 - gsmtp", "wait some minutes"),
    (Stage.DATA, 550, "5.4.5 Daily user sending limit exceeded. a1-b2 - gsmtp", "sending limit"),
    (Stage.DATA, 550, "5.4.5 Daily sending quota exceeded. a1-b2 - gsmtp", "sending limit"),
    (Stage.MAIL, 550, "5.7.1 Daily SMTP relay limit exceeded for customer. - gsmtp", "sending limit"),
    (
        Stage.AUTH,
        535,
        "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. [prod.outlook.com]",
        "switch on Authenticated SMTP",
    ),
    (
        Stage.AUTH,
        535,
        "5.7.139 Authentication unsuccessful, the user credentials were incorrect. [X.eurprd01.prod.outlook.com]",
        "Microsoft 365 did not accept",
    ),
    (Stage.AUTH, 550, "5.7.30 Basic authentication is not supported for Client Submission.", "Authenticated SMTP"),
    (Stage.DATA, 550, "5.7.708 Service unavailable. Access denied, traffic not accepted from this IP.", "new or trial"),
    (
        Stage.DATA,
        554,
        "5.2.252 SendAsDenied; a@x.example not allowed to send as b@x.example; STOREDRV.Submission.Exception",
        "may not send as",
    ),
    (
        Stage.DATA,
        554,
        "Message rejected: Email address is not verified. The following identities failed the check in region",
        "verified in this region",
    ),
    (Stage.AUTH, 535, "Authentication Credentials Invalid", "made in the SES console"),
    (Stage.DATA, 454, "Throttling failure: Daily message quota exceeded.", "sending limit"),
    (Stage.DATA, 454, "Throttling failure: Maximum sending rate exceeded.", "sending limit"),
    (
        Stage.AUTH,
        535,
        "Authentication failed: The provided authorization grant is invalid, expired, or revoked",
        "the word apikey",
    ),
    (Stage.AUTH, 535, "Authentication failed: Bad username / password", "the word apikey"),
    (
        Stage.DATA,
        550,
        "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.",
        "Sender Authentication",
    ),
    (Stage.AUTH, 535, "5.7.0 Mailgun is not loving your login or password", "of the sending domain"),
    (
        Stage.DATA,
        550,
        "Sandbox subdomains are for test purposes only. Please add your own domain or add the address to authorized …",
        "authorised recipients",
    ),
    (Stage.AUTH, 525, "5.7.1 Unauthorized IP address", "authorised IPs"),
    (Stage.RCPT, 553, "Relaying disallowed as pbx@acme.example", "may not send as"),
    (Stage.DATA, 554, "5.1.8 Email Outgoing Blocked", "Zoho has blocked"),
    (Stage.MAIL, 550, "Sender address is not allowed.", "may not send as"),
    (
        Stage.DATA,
        550,
        "Requested action not taken: mailbox unavailable\nSender address is not allowed.",
        "may not send",
    ),
    (Stage.AUTH, 535, "5.7.0 (#AUTH005) Too many bad auth attempts.", "Yahoo wants an app password"),
    (Stage.AUTH, 535, "5.7.0 (#MBR1212) Incorrect username or password.", "Yahoo wants an app password"),
    (Stage.RCPT, 452, "4.2.2 The email account that you tried to reach is over quota.", "mailbox is full"),
    (Stage.RCPT, 550, "Requested action not taken: mailbox unavailable", "no such mailbox"),
]


@pytest.mark.parametrize(
    ("outcome", "port", "part"),
    [
        (classify(Stage.DATA, 250, "ok"), None, "accepted"),
        (Outcome(Kind.UNKNOWN, Stage.DATA, None, None, ""), None, "may have been sent"),
        (classify(Stage.RCPT, 552, "5.2.2 over quota"), None, "mailbox is full"),
        (classify(Stage.RCPT, 452, "4.2.2 The email account is over quota"), None, "mailbox is full"),
        (classify(Stage.RCPT, 452, "4.5.3 too many"), None, "fewer recipients"),
        (classify(Stage.RCPT, 550, "5.1.1 unknown"), None, "no such mailbox"),
        (classify(Stage.RCPT, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound"), None, "no such mailbox"),
        (classify(Stage.RCPT, 556, "5.1.10 nullMX"), None, "domain of the recipient"),
        (classify(Stage.RCPT, 554, "5.7.1 Relay access denied"), None, "only for those who sign in"),
        (classify(Stage.RCPT, 450, "4.2.0 Greylisted, see you later"), None, "greylisting"),
        (classify(Stage.RCPT, 550, "5.7.1 whatever"), None, "which rule"),
        (classify(Stage.AUTH, 534, "5.7.9 Application-specific password required"), 587, "app password"),
        (classify(Stage.AUTH, 535, "5.7.8 Username and Password not accepted. x - gsmtp"), 587, "app password"),
        (
            classify(Stage.AUTH, 535, "5.7.139 Authentication unsuccessful, basic authentication is disabled."),
            587,
            "Authenticated SMTP",
        ),
        (classify(Stage.AUTH, 535, "5.7.3 Authentication unsuccessful"), 587, "Microsoft 365 did not accept"),
        (classify(Stage.AUTH, 535, "5.7.8 Error: authentication failed"), 587, "did not accept user name and password"),
        (classify(Stage.AUTH, 538, "encrypt"), 25, "encryption before sign-in"),
        *((classify(stage, code, words), 587, part) for stage, code, words, part in PROVIDERS_WORDS),
        (classify(Stage.AUTH, 454, "4.7.0 Temporary"), 587, "tries again by itself"),
        (_settings(Stage.AUTH, "The mail server offers no sign-in."), 25, "choose STARTTLS or TLS"),
        (_settings(Stage.AUTH, "The mail server offers only XOAUTH2."), 25, "mode Auto"),
        (classify(Stage.CONNECT, None, "No answer in time."), 25, "port 25, which many networks block"),
        (classify(Stage.CONNECT, None, "No answer in time."), 587, "firewall"),
        (classify(Stage.CONNECT, None, "The connection was refused."), 25, "no mail server listens"),
        (
            _settings(
                Stage.TLS, "The certificate is not accepted: Hostname mismatch, certificate is not valid for 'x'."
            ),
            587,
            "for another name",
        ),
        (_settings(Stage.TLS, "The certificate is not accepted: certificate has expired"), 587, "expired"),
        (_settings(Stage.TLS, "The certificate is not accepted: self-signed certificate"), 587, "does not know"),
        (_settings(Stage.TLS, "The mail server does not offer STARTTLS."), 587, "try TLS on port 465"),
        (_settings(Stage.TLS, "No encryption could be agreed on."), 587, "choose STARTTLS"),
        (_settings(Stage.NAME, "There is no mail server that the portal may connect to."), 587, "typing error"),
        (classify(Stage.NAME, None, "The name cannot be looked up just now."), 587, "just now"),
        (classify(Stage.MAIL, 550, "5.7.60 SMTP; Client does not have permissions"), 587, "may not send as"),
        (classify(Stage.MAIL, 530, "5.7.0 Authentication Required"), 587, "sign in first"),
        (classify(Stage.MAIL, 530, "5.7.0 Must issue a STARTTLS command first"), 587, "encryption first"),
        (classify(Stage.MAIL, 421, "4.3.0 closing"), 587, "busy"),
        (classify(Stage.MAIL, 451, "4.3.0 try later"), 587, "temporary fault"),
        (classify(Stage.DATA, 550, "go away"), 587, "own words"),
    ],
)
def test_advice_names_what_to_do(outcome: Outcome, port: int | None, part: str) -> None:
    assert part in advice(outcome, port)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("code", [None, 250, 421, 451, 550, 599])
def test_advice_is_one_sentence_for_every_outcome(kind: Kind, stage: Stage, code: int | None) -> None:
    sentence = advice(Outcome(kind, stage, code, None, "words"))
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert ". " not in sentence


def test_a_fault_carries_its_outcome() -> None:
    outcome = classify(Stage.CONNECT, None, "No answer in time.")
    assert Fault(outcome).outcome is outcome
