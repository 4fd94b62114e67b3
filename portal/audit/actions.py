"""Everything that the audit trail tells of, in words. Each stands behind its actor's name."""

from collections.abc import Mapping

from portal.languages import to_translate

SYSTEM_MAIL_SERVER = to_translate("the system administrator's mail server")  # in the trail and in the log

# {} is what the entry is about.
ACTIONS: Mapping[str, str] = {
    "account.signed_in": to_translate("signed in"),
    "account.signed_out": to_translate("signed out"),
    "account.sign_in_failed": to_translate("failed to sign in as {}"),
    "account.added": to_translate("added the account {}"),
    "account.changed": to_translate("changed the account {}"),
    "account.removed": to_translate("removed the account {}"),
    "account.password_changed": to_translate("changed the password of {}"),
    "account.password_reset": to_translate("set a new password for {} with a link from a mail"),
    "account.made_system_administrator": to_translate("made {} a system administrator"),
    "account.session_ended": to_translate("ended a session of {}"),
    "sign_in_policy.changed": to_translate("changed what is asked of everybody who signs in"),
    "sign_in_policy.removed": to_translate("removed what is asked of everybody who signs in"),
    "membership.added": to_translate("made {} an administrator of the tenant"),
    "membership.removed": to_translate("ended that {} administers the tenant"),
    "tenant.added": to_translate("added the tenant {}"),
    "tenant.changed": to_translate("changed the tenant {}"),
    "tenant.suspended": to_translate("suspended the tenant {}"),
    "tenant.resumed": to_translate("let the suspended tenant {} send mail again"),
    "tenant.removed": to_translate("removed the tenant {}"),
    "mail_server.added": to_translate("set up the mail server"),
    "mail_server.changed": to_translate("changed the mail server"),
    "mail_server.removed": to_translate("removed the mail server"),
    "mail_server.tested": to_translate("sent a test e-mail through {}"),
    "mail_server.tried_now": to_translate("had the paused mail server tried again"),
    "recipients.changed": to_translate("changed the recipients"),
    "recipient.events_chosen": to_translate("chose which events {} gets"),
    "recipient.paused": to_translate("paused the mail to {}"),
    "recipient.resumed": to_translate("ended the pause of the mail to {}"),
    "notification.changed": to_translate("changed the notification {}"),
    "template.changed": to_translate("changed the mail template of {}"),
    "template.restored": to_translate("restored the default mail template of {}"),
    "template.used_version": to_translate("went back to an earlier mail template of {}"),
    "key.issued": to_translate("issued the key {}"),
    "key.changed": to_translate("changed the key {}"),
    "key.revoked": to_translate("revoked the key {}"),
    "key.removed": to_translate("removed the key {}"),
    "event.sample_sent": to_translate("sent a sample of the event {}"),
    "mail.sent_now": to_translate("had {} sent now"),
    "mail.sent_again": to_translate("had {} sent again"),
    "mail.discarded": to_translate("discarded {}"),
}
