"""What a tenant's administrator can do about an outcome: one list, the first entry that fits is told.

Enhanced codes are those of RFC 3463 and its registry; the words are what the providers' servers were seen to say.
"""

import re
from typing import NamedTuple

from portal.languages import to_translate


class Remedy(NamedTuple):
    """A sentence, which is found for the catalogues, and when it fits: each condition that is given must hold."""

    sentence: str
    stages: tuple[str, ...] = ()
    reply: str = ""  # a regular expression for "code enhanced-code text", without regard to case
    port: int | None = None
    kind: str | None = None
    by_hand: str = ""  # in place of the sentence where nothing is tried again by itself

    def fits(self, kind: str, stage: str, reply: str, port: int | None) -> bool:
        """Return whether the sentence is about this outcome."""
        return (
            (not self.stages or stage in self.stages)
            and self.port in (None, port)
            and self.kind in (None, kind)
            and re.search(self.reply, reply, re.IGNORECASE) is not None
        )


REMEDIES = (
    # name and connect
    Remedy(
        "There is no such mail server on the internet: check address and port for a typing error; "
        "a tenant's mail server has port 25, 465, 587 or 2525, "
        "and one on an internal network has to be allowed by the portal's operator.",
        ("name",),
        kind="settings",
    ),
    Remedy(
        "The name of the mail server cannot be looked up just now; the portal tries again by itself.",
        ("name",),
        by_hand=to_translate("The name of the mail server cannot be looked up just now; try again in a minute."),
    ),
    Remedy(
        "Nothing answers on port 25, which many networks block: "
        "use port 587 with STARTTLS, or port 465 with TLS, and sign in.",
        ("connect",),
        r"no answer|unreachable",
        port=25,
    ),
    Remedy(
        "Nothing answers at this address and port: check both, and whether a firewall lets the portal through.",
        ("connect",),
        r"no answer|unreachable",
    ),
    Remedy(
        "The machine answers, but no mail server listens on this port: "
        "587 is usual with STARTTLS, 465 with TLS, 25 with no encryption.",
        ("connect",),
        r"refused",
    ),
    # TLS
    Remedy(
        "The certificate is for another name than this SMTP server address: use the name that the certificate has.",
        ("tls",),
        r"certificate.*(hostname|IP address|not valid for)",
    ),
    Remedy(
        "The mail server's certificate has expired: its operator has to renew it.", ("tls",), r"certificate.*expired"
    ),
    Remedy(
        "The mail server's certificate comes from an authority that the portal does not know: "
        "its operator has to install one that is publicly trusted with its whole chain, "
        "or the portal's operator has to add that authority.",
        ("tls",),
        r"certificate",
    ),
    Remedy(
        "The mail server does not offer STARTTLS on this port: try TLS on port 465, or STARTTLS on port 587.",
        ("tls",),
        r"STARTTLS",
        kind="settings",
    ),
    Remedy(
        "The mail server does not speak TLS at once on this port: choose STARTTLS, or port 465 with TLS.",
        ("tls",),
        kind="settings",
    ),
    Remedy(
        "The mail server hung up or kept silent while encryption was agreed on; the portal tries again by itself.",
        ("tls",),
        r"no answer|closed|broke",
        by_hand=to_translate(
            "The mail server hung up or kept silent while encryption was agreed on; try again in a minute."
        ),
    ),
    # greeting and EHLO
    Remedy(
        "Something answers on this port, but not in a mail server's language: check the port, "
        "and choose TLS if the port is 465.",
        ("greeting",),
        r"not SMTP",
    ),
    Remedy(
        "The mail server says nothing: where the port is 465, choose TLS as encryption.",
        ("greeting",),
        r"no answer",
    ),
    Remedy(
        "The mail server does not talk to the portal's network address: "
        "ask its operator to allow it, or use port 587 and sign in.",
        ("greeting", "ehlo"),
        kind="settings",
    ),
    # AUTH
    Remedy(
        "The portal sends no password without encryption: choose STARTTLS or TLS.",
        ("auth",),
        r"without encryption",
    ),
    Remedy(
        "The password is missing: type it again and save.",
        ("auth",),
        r"no user name or no password",
    ),
    Remedy(
        "The mail server offers no sign-in here: choose STARTTLS or TLS as encryption, or None as authentication mode.",
        ("auth",),
        r"offers no sign-in|^503 ",
    ),
    Remedy(
        "The mail server does not offer this way to sign in: choose the authentication mode Auto.",
        ("auth",),
        r"offers only|^504 ",
    ),
    Remedy(
        "Too many sign-ins were tried: wait some minutes; the portal tries again by itself.",
        ("auth",),
        r"too many (login|bad auth) attempts|too many failed",
        kind="temporary",
        by_hand=to_translate("Too many sign-ins were tried: wait some minutes; try again in a minute."),
    ),
    Remedy(
        "Google wants an app password here: turn on 2-Step Verification in the Google account, "
        "create an app password and use it in place of the usual one.",
        ("auth",),
        r"^534 .*(5\.7\.9 |application-specific)|5\.7\.9 .*application-specific",
    ),
    Remedy(
        "Google wants to see a sign-in in a browser first: sign in to the account there, "
        "and use an app password in the portal.",
        ("auth",),
        r"^534 5\.7\.14 |web ?browser",
    ),
    Remedy(
        "Google did not accept user name and password: Gmail needs the whole address "
        "and an app password, not the account's usual password.",
        ("auth",),
        r"gsmtp|support\.google\.com",
    ),
    Remedy(
        "Microsoft 365 did not accept user name and password: check both; "
        "an account with multi-factor authentication needs an app password.",
        ("auth",),
        r"user credentials were incorrect",
    ),
    Remedy(
        "Microsoft 365 has SMTP sign-in switched off for this mailbox or organisation: an administrator has to "
        "switch on Authenticated SMTP for the mailbox in the Microsoft 365 admin centre, and security defaults "
        "must not forbid it.",
        ("auth",),
        r"SmtpClientAuthentication is disabled|basic authentication is (disabled|not supported)|5\.7\.(139|30) ",
    ),
    Remedy(
        "Microsoft 365 did not accept user name and password: check both; "
        "an account with multi-factor authentication needs an app password.",
        ("auth",),
        r"prod\.outlook\.com|^535 5\.7\.3 ",
    ),
    Remedy(
        "Amazon SES did not accept user name and password: it wants its own SMTP credentials of this region, "
        "which are made in the SES console and are neither an access key nor its secret.",
        ("auth",),
        r"^535 +Authentication Credentials Invalid",
    ),
    Remedy(
        "SendGrid did not accept user name and password: the user name is the word apikey, "
        "and the password is an API key that may send mail.",
        ("auth",),
        r"authorization grant is invalid|Bad username / password",
    ),
    Remedy(
        "Mailgun did not accept user name and password: it wants the SMTP credentials of the sending domain, "
        "not an API key.",
        ("auth",),
        r"Mailgun is not loving",
    ),
    Remedy(
        "Brevo lets only authorised network addresses sign in: add the portal's address to the authorised IPs "
        "in Brevo's security settings.",
        ("auth",),
        r"^525 .*unauthorized IP",
    ),
    Remedy(
        "Yahoo wants an app password: create one in the account's security settings and use it in place of the "
        "usual password.",
        ("auth",),
        r"#AUTH00\d|#MBR12\d\d",
    ),
    Remedy(
        "The mail server wants encryption before sign-in: choose STARTTLS or TLS.",
        ("auth",),
        r"^538 |5\.7\.11 |^530 .*(starttls|tls|encrypt)",
    ),
    Remedy("The mail server wants a stronger way to sign in than the portal used.", ("auth",), r"^534 "),
    Remedy(
        "The mail server did not accept user name and password: type both again and save; "
        "the portal does not try again before that, so that the account is not locked.",
        ("auth",),
        kind="settings",
    ),
    Remedy(
        "The mail server cannot check passwords just now; the portal tries again by itself.",
        ("auth",),
        kind="temporary",
        by_hand=to_translate("The mail server cannot check passwords just now; try again in a minute."),
    ),
    # MAIL, RCPT, DATA
    Remedy(
        "The provider's sending limit is reached: wait until it is lifted, usually a day, or ask for a higher one.",
        ("mail", "rcpt", "data"),
        r"5\.4\.5 |5\.1\.90 |throttling failure|(sending|relay|message|daily|hourly)\b.*\b(limit|quota)",
    ),
    Remedy(
        "Amazon SES sends only from addresses or domains that are verified in this region, and while the account is "
        "in the sandbox only to verified ones: verify them in the SES console.",
        ("mail", "rcpt", "data"),
        r"email address is not verified",
    ),
    Remedy(
        "SendGrid sends only from verified senders: verify this address or its domain under Sender Authentication.",
        ("mail", "rcpt", "data"),
        r"verified Sender Identity",
    ),
    Remedy(
        "Mailgun's sandbox domain sends only to authorised recipients: add the address there, "
        "or use a domain of your own.",
        ("mail", "rcpt", "data"),
        r"Sandbox subdomains are for test",
    ),
    Remedy(
        "Zoho has blocked outgoing mail of this account: sign in to Zoho Mail in a browser, "
        "where it says how to unblock it.",
        ("auth", "mail", "rcpt", "data"),
        r"^554 5\.1\.8 .*(outgoing blocked|sender address blocked)",
    ),
    Remedy(
        "Microsoft 365 does not take this organisation's mail, as is usual for a new or trial one: "
        "its administrator has to ask Microsoft's support to lift that.",
        ("mail", "rcpt", "data"),
        r"5\.7\.70[58] ",
    ),
    Remedy(
        "The mail server wants encryption first: choose STARTTLS or TLS.",
        ("mail", "rcpt"),
        r"^530 .*starttls|^530 5\.7\.10 ",
    ),
    Remedy(
        "The mail server wants the portal to sign in first: "
        "choose the authentication mode Auto and give user name and password.",
        ("mail", "rcpt", "data"),
        r"^530 |5\.7\.57 |authentication (is )?required|not authenticated",
    ),
    Remedy(
        "The account that signs in may not send as this sender: use its own address as sender email, "
        "or let the provider allow it to send as that address.",
        ("mail", "rcpt", "data"),
        r"5\.7\.60 |5\.2\.252 |SendAsDenied|not owned by user|send as this sender|relaying disallowed as"
        r"|sender address is not allowed",
    ),
    Remedy(
        "The mail server does not accept the sender email: use an address that belongs to this mail server's account.",
        ("mail",),
        kind="settings",
    ),
    Remedy(
        "The mail server passes mail to this address on only for those who sign in: "
        "choose the authentication mode Auto and give user name and password.",
        ("rcpt", "data"),
        r"relay|5\.7\.54 ",
    ),
    Remedy(
        "The mail server says that there is no such mailbox: correct the recipient's address.",
        ("rcpt", "data"),
        r"[45]\.1\.(1|6) |user unknown|no such user|unknown (user|recipient)|RecipientNotFound|mailbox unavailable",
    ),
    Remedy(
        "The domain of the recipient's address does not exist or takes no mail: correct the address.",
        ("rcpt", "data"),
        r"[45]\.1\.(2|3|10) |[45]\.4\.4 |domain not found|host not found",
    ),
    Remedy(
        "The mail server says that the mailbox is full: its owner has to make room.",
        ("rcpt", "data"),
        r"[45]\.2\.2 |(mailbox|quota).*(full|exceeded)|over ?quota",
    ),
    Remedy(
        "The mail server says that the mailbox is switched off: ask its owner, or take the address out.",
        ("rcpt", "data"),
        r"[45]\.2\.1 |disabled|inactive",
    ),
    Remedy(
        "The mail server puts strangers off for some minutes (greylisting); the portal tries again by itself.",
        ("rcpt", "data"),
        r"gr[ae]y-?list",
        by_hand=to_translate(
            "The mail server puts strangers off for some minutes (greylisting); try again in a minute."
        ),
    ),
    Remedy(
        "The provider's sending limit is reached: wait until it is lifted, usually a day, or ask for a higher one.",
        ("mail", "rcpt", "data"),
        r"limit exceeded|rate limit|too many messages",
    ),
    Remedy(
        "The mail server takes fewer recipients at once; the portal sends to the others later by itself.",
        ("rcpt",),
        r"^(452|552) |[45]\.5\.3 |too many recipients",
        kind="temporary",
    ),
    Remedy(
        "The sender's domain lacks what proves its mail genuine: its administrator has to set up SPF and DKIM "
        "for this mail server.",
        ("mail", "rcpt", "data"),
        r"5\.7\.(20|21|22|23|24|25|26|27) |\bSPF\b|\bDKIM\b|\bDMARC\b",
    ),
    Remedy(
        "The mail server takes the mail, or the network address that it comes from, for spam: "
        "ask its operator to allow the sender.",
        ("rcpt", "data"),
        r"spam|blocklist|blacklist|block list|reputation|5\.7\.(50\d|70\d) ",
        kind="refused",
    ),
    Remedy(
        "The mail server says that the mail is too large.", ("mail", "rcpt", "data"), r"[45]\.3\.4 |too (large|big)"
    ),
    Remedy(
        "The mail server does not allow this mail: ask its operator which rule it broke.",
        ("rcpt", "data"),
        r"5\.7\.\d+ ",
        kind="refused",
    ),
    # anywhere
    Remedy(
        "The mail server is busy or about to restart; the portal tries again by itself in a while.",
        reply=r"^421 ",
        by_hand=to_translate("The mail server is busy or about to restart; try again in a minute."),
    ),
    Remedy(
        "The mail server did not answer in time; the portal tries again by itself.",
        reply=r"no answer",
        by_hand=to_translate("The mail server did not answer in time; try again in a minute."),
    ),
    Remedy(
        "The mail server hung up in the middle; the portal tries again by itself.",
        reply=r"closed the connection|connection broke",
        by_hand=to_translate("The mail server hung up in the middle; try again in a minute."),
    ),
    Remedy(
        "The mail server has a temporary fault; the portal tries again by itself.",
        kind="temporary",
        by_hand=to_translate("The mail server has a temporary fault; try again in a minute."),
    ),
    Remedy(
        "The mail server does not work with these settings: compare them with your provider's instructions.",
        kind="settings",
    ),
    Remedy("The mail server refused the mail for good: its own words say why.", kind="refused"),
)
