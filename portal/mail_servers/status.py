"""The mail server of a tenant at a glance: which one is used, and whether it works."""

from dataclasses import dataclass
from datetime import datetime

from portal.mail_servers.models import MailServer
from portal.mail_servers.pause import paused_until, why
from portal.mail_servers.selection import in_force
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class MailServerStatus:
    """Which mail server a tenant's mail goes through, and its state.

    `state` is `none`, `rejected` (until its settings are saved again), `paused` (until `paused_until`) or `working`;
    `reason` says why, for the two in the middle: the mail server's own words, or ours. `label` is its name in
    the log.
    """

    state: str
    host: str = ""
    is_system: bool = False
    reason: str = ""
    paused_until: datetime | None = None
    label: str = ""


def of_tenant(tenant: Tenant) -> MailServerStatus:
    """Return the status of the mail server in force for the tenant."""
    return of_server(in_force(tenant.id))


def of_server(server: MailServer | None) -> MailServerStatus:
    """Return the status of a mail server, or of none."""
    if server is None:
        return MailServerStatus("none")
    until = paused_until(server)
    state = "rejected" if server.rejected_at else "paused" if until else "working"
    reason = why(server) if state != "working" else ""
    return MailServerStatus(state, server.host, server.is_system, reason, until, server.label)
