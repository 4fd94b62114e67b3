"""Advice about the sender, the recipients and the message: first what a provider says at its own host."""

from typing import Final

from portal.mail_servers.advice import AMAZON, GOOGLE, MAILGUN, MICROSOFT, SENDGRID, ZOHO, Advice, at, enhanced
from portal.mail_servers.advice_on_connecting import HELO_NAME, IP_ADDRESS
from portal.web.i18n import to_translate

TRANSACTION: Final = ("mail", "rcpt", "data")
# A session's own limit, such as "Maximum number of messages per session exceeded": a new session starts from zero.
SESSION_LIMIT: Final = (
    r"(messages?|(e?mail)s?|count|transactions?|recipients?) (per|in|for) (one |a |this |the |each |single )?(smtp )?"
    r"(session|connection)"
)
# learn.microsoft.com, "Continuous error throttling for SMTP AUTH submissions in Exchange Online"
THROTTLED: Final = r"\d* 5\.2\.25[1-5] .*throttled"

# Advice that applies to some words wherever they are, and to weaker ones only if nothing else explains the reply: see
# `SENDING`.
SENDER_DOMAIN: Final = Advice(
    "The sender's domain has no valid SPF or DKIM record for this mail server: the domain's administrator has to set "
    "them up.",
    means="settings",
)
SPAM: Final = Advice(
    "The mail server treats the email, or the IP address that it came from, as spam: ask its operator to allow the "
    "sender.",
    kind="rejected",
)
TEMPORARY_ERROR: Final = Advice(
    "The mail server reported a temporary error; the portal will try again automatically.",
    without_retry=to_translate("The mail server reported a temporary error; try again in a minute."),
)

SENDING: Final = (
    *at(  # what a provider says about the account
        TRANSACTION,
        Advice(
            "Amazon SES sends only from addresses or domains that are verified in this region and, while the account "
            "is in the sandbox, only to verified ones: verify them in the SES console.",
            words=r"email address is not verified",
            hosts=AMAZON,
            means="settings",
            url="https://console.aws.amazon.com/ses/",
        ),
        Advice(
            "The Amazon SES user of these SMTP credentials may not send this email: allow it the action "
            "ses:SendRawEmail for the sender in its IAM policy.",
            words=r"not authorized to perform\W+ses:",
            hosts=AMAZON,
            means="settings",
        ),
        Advice(
            "SendGrid sends only from verified senders: verify this address or its domain under Sender Authentication.",
            words=r"verified Sender Identity",
            hosts=SENDGRID,
            means="settings",
            url="https://app.sendgrid.com/settings/sender_auth",
        ),
        Advice(
            "Google's SMTP relay does not recognise the portal: allow the portal's IP address under “SMTP relay "
            "service” in the Google Admin console, and use a sender email in a domain of the organisation.",
            words=r"invalid credentials for relay|relay (is )?denied|not registered for relay",
            hosts=GOOGLE,
            means="settings",
            url="https://admin.google.com/",
        ),
        Advice(
            "Mailgun's sandbox domain sends only to authorised recipients: add the address there, or use your own "
            "domain.",
            words=r"Sandbox subdomains are for test",
            hosts=MAILGUN,
            means="settings",
            url="https://app.mailgun.com/",
        ),
        Advice(
            "Zoho has blocked this account's outgoing email: sign in to Zoho Mail in a browser to see how to unblock "
            "it.",
            ("auth", *TRANSACTION),
            code=r"\d* 5\.(1\.8|4\.6 unusual sending activity)",
            hosts=ZOHO,
            means="settings",
        ),
        Advice(
            "The Microsoft 365 mailbox that sends is full: make room in it; a retention policy for its Sent Items does "
            "so regularly.",
            ("rcpt", "data"),
            code=r"55[024] 5\.2\.2 .*STOREDRV\.Submission",
            hosts=MICROSOFT,
            means="temporary",
        ),
        Advice(
            "Microsoft 365 does not accept this organisation's email, which is usual for a new or trial one: its "
            "administrator has to ask Microsoft's support to lift the block.",
            code=r"\d* 5\.7\.70[58] ",
            hosts=MICROSOFT,
            means="settings",
        ),
    ),
    *at(  # about the server or the account, not about the message
        TRANSACTION,
        Advice(
            "The mail server says that the email is too large.",
            code=enhanced(r"3\.4", r"2\.3"),
            words=r"too (large|big)\b|\bsize (exceeds|limit)|exceeds .{0,30}\b(size|databytes)\b"
            r"|message exceeded .{0,40}size",
            means="rejected",
        ),
        Advice(
            "The mail server's limit for one session was reached; the portal will try again automatically.",
            code=r"452 4\.4\.5 ",
            words=SESSION_LIMIT,
            means="temporary",
            without_retry=to_translate("The mail server's limit for one session was reached; try again in a minute."),
        ),
        Advice(
            "The mail server has too many connections from the portal; the portal will try again automatically.",
            ("auth", *TRANSACTION),
            words=r"(concurrent|simultaneous) .{0,20}(connections|sessions)|too many (connections|sessions)"
            r"|sender thread limit",
            means="temporary",
            without_retry=to_translate(
                "The mail server has too many connections from the portal; try again in a minute."
            ),
        ),
        Advice(
            "The mail server has stopped accepting this account's email for a while, because the same error came again "
            "and again: fix what its reply names, then send the email again.",
            code=THROTTLED,
            means="settings",
        ),
        Advice(
            "The provider's sending limit is reached: wait until it is lifted, usually within a day, or ask for a "
            "higher limit.",
            code=r"\d* 5\.(4\.5|1\.90|7\.23[2-6]|7\.28) |\d* [45]\.2\.[02] .*submission ?quota",
            words=r"throttling failure|submission ?quota|credits exceeded|policy rejection. quota"
            r"|(sending|sent|send|relay|daily|hourly|outgoing|outbound|(e?mail|message)s)\b.{0,60}\b(limits?|quota)\b"
            r"|(limit|quota)\b.{0,60}\b(sending|sent|outgoing|outbound|(e?mail|message)s)\b"
            r"|exceeded .{0,40}per (hour|day|minute)|rate limit|too many messages|unusual rate of"
            r"|(ip|domain|sender|connection) frequency limited",
            means="temporary",
        ),
        Advice(
            "The recipient is getting too many emails at the moment; the portal will try again automatically.",
            code=enhanced(r"2\.1") + r".*receiving (e?mail at a rate|e?mail too quickly)",
            words=r"mailbox unavailable or access denied",  # Tencent's words for it
            means="temporary",
            without_retry=to_translate("The recipient is getting too many emails at the moment; try again later."),
        ),
        Advice(
            "The mail server has no space or memory left: its operator has to look after it; the portal will try "
            "again automatically.",
            code=enhanced(r"3\.1"),
            words=r"insufficient (system|disk)|out of memory|no space left|queue file write error",
            means="temporary",
            without_retry=to_translate(
                "The mail server has no space or memory left: its operator has to look after it."
            ),
        ),
        Advice(
            "The mail server requires encryption: choose STARTTLS or TLS.",
            code=enhanced(r"7\.10", r"7\.51"),
            words=r"\bstarttls\b|encryption (is )?required|requires? (tls|encryption)|\btls (is )?required",
            means="settings",
            field="encryption",
        ),
        Advice(
            "The mail server requires sign-in: choose Auto as the authentication mode, and enter username and "
            "password.",
            code=r"530 (?!.*starttls)|\d* 5\.7\.57 ",
            words=r"(authentication|authorization|auth|sign.in|log.?in) (is )?(required|needed|first)"
            r"|not (authenticated(?! by)|logged in)|requires? (smtp )?auth|smtp authentication"
            r"|without authentication|unauthenticated senders"
            r"|(must|please) (authenticate|log.?in)",
            means="settings",
            field="auth_mode",
        ),
        IP_ADDRESS._replace(
            code=r"\d* [45]\.7\.(25|6[0-4]\d|511|70[58]) ",
            words=r"client host|\bclient \[|blocked using|reverse (dns|hostname)|invalid credentials for relay"
            r"|messages from \[|part of (their|your) network|reputation of the sending ip|suspected spam ip",
        ),
        HELO_NAME._replace(
            code=r"501 5\.5\.4 .*invalid domain name|\d* 5\.7\.506 ",
            words=r"\b(helo|ehlo) command rejected|invalid (helo|ehlo)\b",
        ),
        SENDER_DOMAIN._replace(
            code=enhanced(r"7\.2[0-46]", r"7\.509", r"7\.515"),
            words=r"authentication checks|unauthenticated e?mail|\b(spf|dkim|dmarc) check failed",
        ),
        Advice(
            "The account that signs in may not send as this sender: use the account's own address as the sender "
            "email, or have the provider allow it to send as that address.",
            code=r"\d* 5\.(7\.60|2\.252) ",
            words=r"SendAsDenied|not owned by user|(send|relaying disallowed) as\b|address is not verified"
            r"|verified sender|sandbox|(sender|from)( address)? (is )?not (allowed|authori[sz]ed|permitted)"
            r"|not (allowed|authori[sz]ed|permitted) to (send|use) .{0,20}(from|address|sender)"
            r"|not one of your addresses|not authori[sz]ed to perform",
            means="settings",
            field="sender_email",
        ),
        Advice(
            "The mail server does not accept the sender email: use an address that belongs to this mail server's "
            "account.",
            code=enhanced(r"1\.7", r"1\.8", r"7\.27", r"7\.750"),
            words=r"sender (address )?(verify|rejected|denied|refused|blocked)|(invalid|bad|unknown) sender|badmailfrom"
            r"|sender.{0,20}(does not exist|not (accepted|exist))",
            means="settings",
            field="sender_email",
        ),
        Advice(
            "The mail server has blocked this account's outgoing email: ask the provider how to unblock it.",
            ("auth", *TRANSACTION),
            code=r"\d* 5\.7\.13 ",
            words=r"outgoing .{0,40}(blocked|suspended|disabled)|your (account|domain) .{0,40}(blocked|suspended|"
            r"disabled)|unusual sending activity|sending (is |was |has been )?(paused|suspended|disabled|blocked)"
            r"|\bmail sending denied",
            means="settings",
        ),
        Advice(
            "The mail server accepts email to this address only after sign-in: choose Auto as the authentication "
            "mode, and enter username and password.",
            ("rcpt", "data"),
            code=r"\d* 5\.7\.54 ",
            words=r"(?<![\w.-])relay(ing|ed)?(?![\w-]|\.\w)|rcpthosts",
            means="settings",
            field="auth_mode",
        ),
        Advice(
            "The mail server does not accept the sender email: use an address that belongs to this mail server's "
            "account.",
            ("mail",),
            kind="settings",
            field="sender_email",
        ),
        Advice(
            "The mail server delays email from unknown senders for some minutes (greylisting); the portal will try "
            "again automatically.",
            words=r"gr[ae]y-?list",
            means="temporary",
            without_retry=to_translate(
                "The mail server delays email from unknown senders for some minutes (greylisting); try again in a few "
                "minutes."
            ),
        ),
    ),
    *at(  # about the recipient and the message
        ("rcpt", "data"),
        SPAM._replace(
            code=r"\d* 5\.7\.50\d ",
            # Not the name of a block list, such as zen.spamhaus.org.
            words=r"(?<![\w.-])spam(?!haus|cop|[\w-]*\.\w)|\bvirus|phishing|malware|unsolicited"
            r"|\b(content|attachments?)\b",
        ),
        Advice(
            "The mail server says that the mailbox is full: its owner has to make room.",
            code=enhanced(r"2\.2"),
            words=r"\b(mail)?box\b.{0,40}\b(full|exceeded|quota)|over ?quota|quota\b.{0,20}(exceeded|full)"
            r"|exceed(s|ed) .{0,30}(quota|storage)|out of storage",
            means="temporary",
        ),
        TEMPORARY_ERROR._replace(
            stages=TRANSACTION,
            code=r"\d* 5\.(3\.5|4\.[23]) ",
            words=r"(try|retry|come back).{0,20} (later|in \d+)|resources?( is| are)? temporarily unavailable"
            r"|temporar(y|ily) (deferred|failure|error|rejected|system|server|local)",
            means="temporary",
        ),
        Advice(
            "The mail server does not accept the recipient's address as it is written: correct it.",
            code=enhanced(r"1\.3"),
        ),
        Advice(
            "The domain of the recipient's address does not exist or does not accept email: correct the address.",
            code=r"\d* [45]\.(1\.2|4\.4) |\d* [45]\.1\.10 (?!.*RecipientNotFound)",
            words=r"(domain|host)( name)? (not found|unknown|does not exist)|null ?mx|no mx\b"
            r"|need fully-qualified address",
        ),
        Advice(
            "The mail server says that this mailbox does not exist: correct the recipient's address.",
            code=enhanced(r"1\.1", r"1\.6", r"1\.10") + r"|550 5\.4\.1 recipient address rejected: access denied",
            words=r"user unknown|no such (user|mailbox|recipient|address|person)|(unknown|invalid) (user|recipient"
            r"|mailbox)|(recipient|mailbox|user|address) ?(not ?found|does(n.t| not) exist)|mailbox unavailable",
            kind="rejected",
        ),
        Advice(
            "The mail server says that the mailbox is disabled: ask its owner, or remove the address.",
            code=r"\d* 5\.2\.1 ",  # Gmail's 4.2.1 is about too many emails
            words=r"\b(mailbox|account|user|recipient|address)\b.{0,40}\b(disabled|inactive|suspended|deactivated)",
            kind="rejected",
        ),
        Advice(
            "The mail server accepts fewer recipients at once; the portal will send to the others later.",
            ("rcpt",),
            code=enhanced(r"5\.3"),
            words=r"too many recipients",
            general_code=r"552 ",  # RFC 5321, section 4.5.3.1.10: at RCPT, it means the same as 452
            means="temporary",
        ),
        *at(  # words that may only be mentioned: whatever else is said explains more
            TRANSACTION,
            HELO_NAME._replace(words=r"\b(helo|ehlo)\b"),
            SENDER_DOMAIN._replace(words=r"\b(spf|dkim|dmarc)\b"),
            IP_ADDRESS._replace(
                words=r"\b(your|sending|sender|client) ip\b|\bip address|\b(ptr|rdns|the ip)\b|connection denied",
            ),
        ),
        SPAM._replace(words=r"block ?list|black ?list|reputation"),
        Advice(
            "A rule of the mail server does not allow this email: ask its operator which one.",
            code=r"\d* 5\.7\.1(2[3-9]|3[3-6]) ",
            general_code=r"\d* 5\.7\.",
            kind="rejected",
        ),
    ),
    # anything else, at any stage
    Advice(
        "The mail server is busy or restarting; the portal will try again automatically.",
        code=r"\d* 5\.3\.2 ",
        general_code=r"421 ",
        means="temporary",
        without_retry=to_translate("The mail server is busy or restarting; try again in a minute."),
    ),
    Advice(
        "The mail server did not respond in time; the portal will try again automatically.",
        words=r"no response",
        means="temporary",
        without_retry=to_translate("The mail server did not respond in time; try again in a minute."),
    ),
    Advice(
        "The mail server closed the connection early; the portal will try again automatically.",
        words=r"closed the connection|connection was lost",
        means="temporary",
        without_retry=to_translate("The mail server closed the connection early; try again in a minute."),
    ),
    # It did not understand a command, which is neither the recipient's nor the message's fault.
    TEMPORARY_ERROR._replace(stages=("rcpt", "data"), general_code=r"50[023] ", means="temporary"),
    TEMPORARY_ERROR._replace(kind="temporary"),
    Advice(
        "The mail server does not work with these settings: compare them with your provider's instructions.",
        kind="settings",
    ),
    Advice(
        "The mail server permanently rejected the email: see its reply for the reason.",
        words=r"\bline (is )?too long",
        general_code=r".*",
        kind="rejected",
    ),
)
