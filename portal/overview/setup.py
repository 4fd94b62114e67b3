"""What a tenant has set up: what the first steps and the list of concerns both ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

from portal.mail_servers import selection
from portal.mail_servers.models import MailServer
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Setup:
    """The mail server in force, the recipients, the events that are on among all kinds, and the keys that are live."""

    server: MailServer | None
    addresses: Sequence[str]
    events_on: int
    events: int
    keys: Sequence[PbxKey]


def of_tenant(tenant: Tenant) -> Setup:
    """Return the setup of the tenant in scope."""
    on = [switch for switch in switches.switches(KINDS).values() if switch.enabled]
    live = [key for key in keys.of_owner(tenant) if key.is_live]
    return Setup(selection.in_force(tenant.id), recipients.addresses(), len(on), len(KINDS), live)
