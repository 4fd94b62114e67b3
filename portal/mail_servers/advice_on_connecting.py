"""Advice about connecting, encryption and signing in."""

from typing import Final

from portal.mail_servers.advice import AMAZON, BREVO, GOOGLE, MAILGUN, MICROSOFT, SENDGRID, YAHOO, Advice, at
from portal.web.i18n import to_translate

HELO_NAME: Final = Advice(
    "The mail server does not accept the portal's own host name: the portal's operator has to set SMTP_HELO_NAME to a "
    "full host name that leads to the portal.",
    means="settings",
)
IP_ADDRESS: Final = Advice(
    "The mail server rejects connections from the portal's IP address: ask its operator to allow it, or use port 587 "
    "and sign in.",
    means="settings",
)
# A sign-in with OAuth 2.0: the reply ends with the mechanism, see `SmtpSession.sign_in_with_token`.
OAUTH_REJECTED: Final = r"53[45] .*\((XOAUTH2|OAUTHBEARER)[:)]"

CONNECTING: Final = (
    *at(
        ("name",),
        Advice(
            "No such mail server was found on the internet: check the address and the port; a tenant's mail server "
            "uses port 25, 465, 587 or 2525, and the portal's operator has to allow one on an internal network.",
            kind="settings",
        ),
        Advice(
            "The name of the mail server could not be looked up; the portal will try again automatically.",
            without_retry=to_translate("The name of the mail server could not be looked up; try again in a minute."),
        ),
        field="host",
    ),
    *at(
        ("connect",),
        Advice(
            "Nothing responds on port 25, which many networks block: use port 587 with STARTTLS or port 465 with TLS, "
            "and sign in.",
            words=r"no response|unreachable",
            port=25,
            field="port",
        ),
        Advice(
            "Nothing responds at this address and port: check both, and whether a firewall blocks the portal.",
            words=r"no response|unreachable",
        ),
        Advice(
            "The host responds, but no mail server listens on this port: usual ports are 587 with STARTTLS, 465 with "
            "TLS and 25 without encryption.",
            words=r"refused",
            field="port",
        ),
        Advice(
            "Other emails of the portal are being sent through this mail server; the portal will try again "
            "automatically.",
            words=r"busy with other emails",
            kind="temporary",
            without_retry=to_translate(
                "Other emails of the portal are being sent through this mail server; try again in a minute."
            ),
        ),
        field="host",
    ),
    *at(
        ("tls",),
        Advice(
            "The certificate is for a different name than this SMTP server address: enter the name in the certificate.",
            words=r"(hostname|IP address) mismatch|certificate is not accepted: it is not valid",
            field="host",
        ),
        Advice(
            "The mail server's certificate has expired: its operator has to renew it.", words=r"certificate has expired"
        ),
        Advice(
            "The portal does not trust the certificate that the mail server made itself: its operator has to install "
            "one from a public authority, or the portal's operator has to add it to the file that MAIL_CA_FILE names.",
            words=r"self.signed certificate$",
        ),
        Advice(
            "The mail server's certificate is from an authority that the portal does not trust: the mail server's "
            "operator has to install a publicly trusted certificate with its whole chain, or the portal's operator "
            "has to add the authority to the file that MAIL_CA_FILE names.",
            words=r"certificate is not accepted",
        ),
        Advice(
            "The mail server does not offer STARTTLS on this port: try TLS on port 465 or STARTTLS on port 587.",
            words=r"STARTTLS",
            kind="settings",
        ),
        Advice(
            "The mail server does not accept TLS connections on this port: choose STARTTLS, or port 465 with TLS.",
            kind="settings",
        ),
        Advice(
            "The mail server closed the connection or did not respond while encryption was negotiated; the portal will "
            "try again automatically.",
            words=r"no response|closed|lost",
            kind="temporary",
            without_retry=to_translate(
                "The mail server closed the connection or did not respond while encryption was negotiated; try again "
                "in a minute."
            ),
        ),
        field="encryption",
    ),
    *at(
        ("greeting", "ehlo"),
        Advice(
            "What responds on this port is not a mail server: check the port, and choose TLS if it is 465.",
            ("greeting",),
            words=r"not SMTP",
        ),
        Advice(
            "The mail server sends no greeting: if the port is 465, choose TLS as the encryption.",
            ("greeting",),
            words=r"no response",
        ),
        Advice(
            "The mail server is an old one without encryption and sign-in: choose None for both, or use another mail "
            "server.",
            ("ehlo",),
            code=r"50[02] ",
            kind="settings",
            field="encryption",
        ),
        HELO_NAME._replace(
            code=r"50[14] ",
            words=r"\b(helo|ehlo)\b|(host|domain) ?name|fully.qualified",
            kind="settings",
        ),
        IP_ADDRESS._replace(kind="settings"),
        field="port",
    ),
    *at(
        ("auth",),
        Advice(
            "The portal does not send a password without encryption: choose STARTTLS or TLS.",
            words=r"without encryption",
            field="encryption",
        ),
        Advice(
            "The password is missing: enter it again and save.",
            words=r"username or the password is missing",
            kind="settings",
            without_retry=to_translate("The username or the password is missing: enter both."),
        ),
        Advice(
            "The mail server offers no sign-in here: choose STARTTLS or TLS as the encryption, or None as the "
            "authentication mode.",
            code=r"50[023] ",
            words=r"offers no sign-in",
            field="encryption",
        ),
        Advice(
            "The mail server does not offer this sign-in method: choose Auto as the authentication mode.",
            words=r"offers only (\S+, )*(PLAIN|LOGIN|CRAM-MD5)[,.]",
            field="auth_mode",
        ),
        Advice(
            "The mail server accepts no password, only OAuth 2.0: connect a mailbox of Microsoft or Google with it; "
            "elsewhere the administrator has to turn on sign-in with a password (PLAIN or LOGIN).",
            words=r"offers only (\S+, )*(XOAUTH2|OAUTHBEARER)[,.]",
            field="auth_mode",
        ),
        Advice(
            "The mail server does not offer OAuth 2.0: check its address, or sign in with a password.",
            words=r"does not offer OAuth",
            field="host",
        ),
        Advice(
            "The portal supports none of these sign-in methods: the mail server's administrator has to turn on PLAIN "
            "or LOGIN, which Exchange calls basic authentication.",
            words=r"offers only ",
            field="auth_mode",
        ),
        Advice(
            "The mail server does not accept this sign-in method: choose another authentication mode.",
            code=r"504 ",
            field="auth_mode",
        ),
        Advice(
            "There were too many sign-in attempts: wait some minutes; the portal will try again automatically.",
            words=r"too many (login|bad auth|failed)",
            kind="temporary",
            without_retry=to_translate("There were too many sign-in attempts: wait some minutes, then try again."),
        ),
        Advice(
            "Google requires an app password: turn on 2-Step Verification in the Google account, create an app "
            "password and enter it instead of the usual one.",
            code=r"53\d 5\.7\.9 ",
            words=r"application-specific",
            hosts=GOOGLE,
            url="https://myaccount.google.com/apppasswords",
        ),
        Advice(
            "Google requires a sign-in in a browser first: sign in to the account there, and use an app password in "
            "the portal.",
            code=r"534 5\.7\.14 ",
            words=r"web ?browser",
            hosts=GOOGLE,
        ),
        Advice(
            "Google does not let the portal sign in to this mailbox: it must be the mailbox that signed in, or the "
            "service account must be allowed to act for it.",
            code=OAUTH_REJECTED,
            hosts=GOOGLE,
        ),
        Advice(
            "Google rejected the username or password: Gmail needs the full email address and an app password, not "
            "the account's usual password.",
            code=r"53[45] ",
            hosts=GOOGLE,
            url="https://myaccount.google.com/apppasswords",
        ),
        Advice(
            "Microsoft 365 accepts no password for this mailbox: connect it with OAuth 2.0 instead.",
            code=r"\d* 5\.7\.(30 |139 .*(basic authentication|security defaults))",
            hosts=MICROSOFT,
            field="auth_mode",
        ),
        Advice(
            "A Conditional Access policy of the Microsoft 365 organisation blocks this sign-in: its administrator has "
            "to allow it for the mailbox, or the mailbox has to be connected with OAuth 2.0.",
            code=r"\d* 5\.7\.139 .*(did not meet the criteria|conditional access)",
            hosts=MICROSOFT,
        ),
        Advice(
            "SMTP sign-in is off for this Microsoft 365 mailbox or organisation: an administrator has to turn on "
            "Authenticated SMTP for the mailbox in the Microsoft 365 admin centre.",
            code=r"\d* 5\.7\.139 (?!.*user credentials were incorrect)",
            hosts=MICROSOFT,
            url="https://admin.microsoft.com/",
        ),
        Advice(
            "Microsoft 365 does not let the portal sign in to this mailbox: it must be the mailbox that signed in, or "
            "the enterprise application must have been given access to it; a change takes up to two hours.",
            code=OAUTH_REJECTED,
            hosts=MICROSOFT,
        ),
        Advice(
            "Microsoft 365 rejected the username or password: check both; an account with multi-factor authentication "
            "needs an app password.",
            code=r"535 ",
            hosts=MICROSOFT,
        ),
        Advice(
            "Amazon SES rejected the username or password: it needs SMTP credentials for this region, which are "
            "created in the SES console and are not an access key and its secret.",
            code=r"535 ",
            hosts=AMAZON,
            url="https://console.aws.amazon.com/ses/",
        ),
        Advice(
            "SendGrid rejected the username or password: the username is the word apikey, and the password is an API "
            "key that may send email.",
            code=r"535 ",
            hosts=SENDGRID,
            url="https://app.sendgrid.com/settings/api_keys",
        ),
        Advice(
            "Mailgun rejected the username or password: it needs the SMTP credentials of the sending domain, not an "
            "API key.",
            code=r"535 ",
            hosts=MAILGUN,
            url="https://app.mailgun.com/",
        ),
        Advice(
            "Brevo accepts sign-ins only from authorised IP addresses: add the portal's IP address to the authorised "
            "IPs in Brevo's security settings.",
            code=r"525 ",
            hosts=BREVO,
            url="https://app.brevo.com/",
        ),
        Advice(
            "Yahoo requires an app password: create one in the account's security settings and enter it instead of "
            "the usual password.",
            code=r"535 ",
            hosts=YAHOO,
        ),
        Advice(
            "The mail server rejected the access token: the mailbox must be the one that signed in; sign in again.",
            code=OAUTH_REJECTED,
        ),
        Advice(
            "The mail server requires encryption before sign-in: choose STARTTLS or TLS.",
            code=r"538 |\d* 5\.7\.1[01] ",
            words=r"\b(starttls|tls|ssl|encrypt(ed|ion))\b",
            kind="settings",
            field="encryption",
        ),
        Advice("The mail server requires a stronger sign-in method than the portal used.", code=r"534 "),
        Advice(
            "The mail server rejected the username or password: enter both again and save; the portal does not try "
            "again before that, so that the account is not locked.",
            kind="settings",
            without_retry=to_translate(
                "The mail server rejected the username or password: check both; too many wrong attempts can lock the "
                "account."
            ),
        ),
        Advice(
            "The mail server cannot check passwords at the moment; the portal will try again automatically.",
            kind="temporary",
            without_retry=to_translate("The mail server cannot check passwords at the moment; try again in a minute."),
        ),
        field="password",
    ),
)
