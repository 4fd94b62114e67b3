"""Signals from rooms to those above them, which they may not import."""

from blinker import Namespace

_signals = Namespace()

mended = _signals.signal("mended", doc="What kept mail back was changed, within the sender's transaction.")


def mend(tenant_id: int | None, *, server_changed: bool = False) -> None:
    """Tell that the held mail of a tenant, or of every tenant for None, may go on. The caller commits.

    Where the mail server itself changed, mail that waits for its next attempt may go on too.
    """
    mended.send(tenant_id, server_changed=server_changed)


purging = _signals.signal("purging", doc="It is time to delete what is too old. Who hears it commits.")
