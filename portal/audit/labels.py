"""What the pages call the actions and fields of the audit trail."""

from collections.abc import Mapping

from portal.web.i18n import to_translate

# Who acts without an account, as it is stored.
PORTAL_ACTOR = to_translate("portal")
UNKNOWN_ACTOR = to_translate("somebody")
SYSTEM_MAIL_SERVER = to_translate("the system administrator's mail server")  # the subject of some entries
UNKNOWN_ACCOUNT = to_translate("an email address without an account")  # likewise

# What an actor did, as it reads after their name. {} is the entry's subject.
ACTIONS: Mapping[str, str] = {
    "account.signed_in": to_translate("signed in"),
    "account.signed_in_through": to_translate("signed in through {}"),
    "account.bound": to_translate("connected the account {} with single sign-on"),
    "account.unbound": to_translate("disconnected the account {} from single sign-on"),
    "account.signed_out": to_translate("signed out"),
    "account.sign_in_failed": to_translate("failed to sign in as {}"),
    "account.confirmation_failed": to_translate("failed to confirm the password of {}"),
    "account.added": to_translate("added the account {}"),
    "account.changed": to_translate("changed the account {}"),
    "account.removed": to_translate("removed the account {}"),
    "account.password_changed": to_translate("changed the password of {}"),
    "account.password_reset": to_translate("set a new password for {} with a link from an email"),
    "account.made_system_administrator": to_translate("made {} a system administrator"),
    "account.removed_as_system_administrator": to_translate("removed {} as a system administrator"),
    "account.unlocked": to_translate("cleared the rate limits of {}"),
    "account.alerts_chosen": to_translate("chose the alerts that {} gets by email"),
    "account.session_ended": to_translate("ended a session of {}"),
    "sign_in_policy.changed": to_translate("changed the sign-in policy"),
    "sign_in_policy.removed": to_translate("removed the sign-in policy"),
    "membership.added": to_translate("made {} an administrator of the tenant"),
    "membership.removed": to_translate("removed {} as an administrator of the tenant"),
    "tenant.added": to_translate("added the tenant {}"),
    "tenant.changed": to_translate("changed the tenant {}"),
    "tenant.suspended": to_translate("suspended the tenant {}"),
    "tenant.resumed": to_translate("resumed the tenant {}"),
    "tenant.removed": to_translate("removed the tenant {}"),
    "mail_server.added": to_translate("set up the mail server"),
    "mail_server.changed": to_translate("changed the mail server"),
    "mail_server.removed": to_translate("removed the mail server"),
    "mail_server.tested": to_translate("requested a test email through {}"),
    "mail_server.tried_now": to_translate("ended the pause of the mail server"),
    "oauth_connection.added": to_translate("set up the sign-in with OAuth 2.0"),
    "oauth_connection.changed": to_translate("changed the sign-in with OAuth 2.0"),
    "oauth_connection.removed": to_translate("removed the sign-in with OAuth 2.0"),
    "oauth_connection.connected": to_translate("connected the mailbox"),
    "oauth_connection.disconnected": to_translate("disconnected the mailbox"),
    "recipients.changed": to_translate("changed the recipients"),
    "recipient.events_chosen": to_translate("chose which events {} gets"),
    "recipient.changed": to_translate("changed what {} gets"),
    "recipient.paused": to_translate("paused email to {}"),
    "recipient.resumed": to_translate("resumed email to {}"),
    "notification.changed": to_translate("changed the notification {}"),
    "template.changed": to_translate("changed the email template of {}"),
    "template.restored": to_translate("restored the default email template of {}"),
    "template.used_version": to_translate("restored an earlier email template of {}"),
    "key.issued": to_translate("issued the key {}"),
    "key.changed": to_translate("changed the key {}"),
    "key.revoked": to_translate("revoked the key {}"),
    "key.removed": to_translate("removed the key {}"),
    "event.sample_sent": to_translate("requested a sample of the event {}"),
    "mail.sent_now": to_translate("released {} to be sent now"),
    "mail.sent_again": to_translate("queued {} to be sent again"),
    "mail.discarded": to_translate("discarded {}"),
}

FIELD_LABELS: Mapping[str, str] = {
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
    "grant_type": to_translate("Sign-in method"),
    "client_id": to_translate("Client ID"),
    "client_secret": to_translate("Client secret"),
    "private_key": to_translate("Private key"),
    "directory": to_translate("Directory (tenant) ID"),
    "mailbox": to_translate("Mailbox"),
    "credential_expires_at": to_translate("Secret expires on"),
    "to": to_translate("Recipients"),
    "recipients": to_translate("Recipients"),
    # a tenant and its emails
    "name": to_translate("Name"),
    "domain": to_translate("SIP domain"),
    "time_zone": to_translate("Time zone"),
    "realm": to_translate("Realm"),
    "language": to_translate("Language"),
    "sender_name": to_translate("Sender name"),
    "brand_color": to_translate("Colour"),
    "email_footer": to_translate("Footer"),
    "reply_to": to_translate("Reply-To"),
    "storm_limit": to_translate("Emails before a summary"),
    "storm_minutes": to_translate("Minutes before a summary"),
    "alerts_on_silence": to_translate("Alert when the PBX is silent"),
    "alerts": to_translate("Alerts by email"),
    # an event's notification, its template and its recipients
    "enabled": to_translate("Enabled"),
    "events": to_translate("Events"),
    "audience": to_translate("Send it to"),
    "subject": to_translate("Subject"),
    "format": to_translate("Format"),
    "body": to_translate("Body"),
    "version": to_translate("Version"),
    "until": to_translate("Until"),
    "queues": to_translate("Queues"),
    "quiet_hours": to_translate("Quiet hours"),
    "urgent_events": to_translate("Urgent events"),
    "message_ids": "Message-ID",
    # an API key, an account, and the sign-in policy
    "expires_at": to_translate("Expiry date"),
    "signing_secret": to_translate("Signing secret"),
    "email": to_translate("Email"),
    "break_glass": to_translate("Break-glass account"),
    "active": to_translate("Active"),
    "totp_secret": to_translate("Authenticator app"),
    "two_factor_required": to_translate("Require two-factor authentication"),
}
TIME_FIELDS = ("expires_at", "credential_expires_at", "version")  # stored as ISO 8601
DAY_FIELDS = ("until",)
EVENT_TYPE_SUBJECTS = ("notification.", "template.", "event.")  # the beginnings of actions on an event type
