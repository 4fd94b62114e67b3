"""Everything that the audit trail tells of, in words. Each stands behind its actor's name."""

from collections.abc import Mapping

# {} is what the entry is about.
ACTIONS: Mapping[str, str] = {
    "account.signed_in": "signed in",
    "account.signed_out": "signed out",
    "account.sign_in_failed": "failed to sign in as {}",
    "account.added": "added the account {}",
    "account.changed": "changed the account {}",
    "account.removed": "removed the account {}",
    "account.password_changed": "changed the password of {}",
    "account.password_reset": "set a new password for {} with a link from a mail",
    "account.made_system_administrator": "made {} a system administrator",
    "account.session_ended": "ended a session of {}",
    "sign_in_policy.changed": "changed what is asked of everybody who signs in",
    "sign_in_policy.removed": "removed what is asked of everybody who signs in",
    "membership.added": "made {} an administrator of the tenant",
    "membership.removed": "ended that {} administers the tenant",
    "tenant.added": "added the tenant {}",
    "tenant.changed": "changed the tenant {}",
    "tenant.suspended": "suspended the tenant {}",
    "tenant.resumed": "let the suspended tenant {} send mail again",
    "tenant.removed": "removed the tenant {}",
    "mail_server.added": "set up the mail server",
    "mail_server.changed": "changed the mail server",
    "mail_server.removed": "removed the mail server",
    "mail_server.tried_now": "had the paused mail server tried again",
    "recipients.changed": "changed the recipients",
    "notification.changed": "changed the notification {}",
    "key.issued": "issued the key {}",
    "key.changed": "changed the key {}",
    "key.revoked": "revoked the key {}",
    "key.removed": "removed the key {}",
    "mail.sent_now": "had {} sent now",
    "mail.sent_again": "had {} sent again",
    "mail.discarded": "discarded {}",
}
