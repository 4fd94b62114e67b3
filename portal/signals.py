"""Signals to rooms higher up, which the sender may not import."""

from blinker import Namespace

_signals = Namespace()

settings_changed = _signals.signal("settings-changed", doc="Settings that may release held email changed.")
first_sign_in = _signals.signal("first-sign-in", doc="An invited account signs in without ever having had a password.")
alerts_due = _signals.signal("alerts-due", doc="It is time to look for alerts. Receivers commit themselves.")
transfer_due = _signals.signal(
    "transfer-due", doc="It is time to continue deletions and imports. Receivers commit themselves."
)
retention_due = _signals.signal("retention-due", doc="It is time to delete old rows. Receivers commit themselves.")


def notify_settings_changed(tenant_id: int | None, *, server_changed: bool = False) -> None:
    """Release the held email of a tenant, or of every tenant for None, in the caller's transaction.

    Where the mail server itself changed, email that waits for its next attempt is released too.
    """
    settings_changed.send(tenant_id, server_changed=server_changed)
