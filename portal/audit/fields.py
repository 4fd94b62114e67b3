"""The fields that the audit trail tells of, under the labels that the pages give them."""

from collections.abc import Mapping

from portal.languages import to_translate

LABELS: Mapping[str, str] = {
    # a mail server
    "provider": to_translate("Email Service Provider"),
    "host": to_translate("SMTP Server Address"),
    "port": to_translate("SMTP Server Port"),
    "encryption": to_translate("Encryption"),
    "auth_mode": to_translate("Authentication Mode"),
    "username": to_translate("Username"),
    "password": to_translate("Password"),
    "sender_email": to_translate("Sender email"),
    "shared": to_translate("Apply the mail server settings to all tenants"),
    "to": to_translate("Recipients"),
    # a tenant and its mails
    "name": to_translate("Name"),
    "domain": to_translate("SIP domain"),
    "time_zone": to_translate("Time zone"),
    "locale": to_translate("Language"),
    "sender_name": to_translate("Sender name"),
    "mail_colour": to_translate("Colour"),
    "mail_footer": to_translate("Footer"),
    "reply_to": to_translate("Reply-To"),
    "storm_limit": to_translate("Mails before a digest"),
    "storm_minutes": to_translate("Minutes before a digest"),
    # an event's notification, its template and its recipients
    "enabled": to_translate("Switch"),
    "audience": to_translate("Who gets it"),
    "subject": to_translate("Subject"),
    "format": to_translate("Format"),
    "body": to_translate("Body"),
    "version": to_translate("Version"),
    "until": to_translate("Until"),
    "message_ids": "Message-ID",
    # a key, an account, and what is asked of everybody
    "expires_at": to_translate("End"),
    "signing_secret": to_translate("Signing secret"),
    "email": to_translate("Email"),
    "active": to_translate("Active"),
    "totp_secret": to_translate("Authenticator app"),
    "two_factor_required": to_translate("Require two-factor authentication"),
}
MOMENTS = ("expires_at", "version")  # stored as ISO 8601
DAYS = ("until",)
