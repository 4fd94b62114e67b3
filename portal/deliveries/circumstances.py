"""What decides about an event's mails, as it is at this moment: in one round trip."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from portal import statements
from portal.database import every_tenant
from portal.extensions import Base
from portal.mail_servers.models import MailServer
from portal.notifications.switches import Audience, Switch
from portal.tenants.models import Tenant

Row = TypeVar("Row", bound=Base)


def _names(model: type[Base], alias: str) -> Mapping[str, str]:
    """Return the columns by their names in the row."""
    return {f"{alias}_{each.name}": each.name for each in model.__table__.columns if each.computed is None}


# NULL for a recipient that is paused, or does without this event.
ADDRESS = """
    CASE WHEN coalesce(paused_until <= now(), true) AND %(event_type)s::varchar <> ALL (excluded_events)
        THEN address END
"""
OF_TENANT, OF_SERVER = _names(Tenant, "tenant"), _names(MailServer, "server")
COLUMNS = f"""
    {", ".join(f"tenant.{name} AS {alias}" for alias, name in OF_TENANT.items())},
    {", ".join(f"server.{name} AS {alias}" for alias, name in OF_SERVER.items())}, switch.enabled, switch.audience,
    switch.template_id,
    ARRAY(SELECT {ADDRESS} FROM recipients WHERE tenant_id = tenant.id ORDER BY id) AS addresses
"""  # noqa: S608 (nothing of it comes from outside)
# The tenant's own mail server wins, else the system's where that is shared: two look-ups, as an OR would use no index.
JOINS = """
    LEFT JOIN notification_switches AS switch ON switch.tenant_id = tenant.id AND switch.event_type = %(event_type)s
    LEFT JOIN LATERAL (
        SELECT * FROM mail_servers WHERE tenant_id = tenant.id
        UNION ALL SELECT * FROM mail_servers WHERE tenant_id IS NULL AND shared
        ORDER BY tenant_id NULLS LAST LIMIT 1
    ) AS server ON true
"""
FIND = f"SELECT {COLUMNS} FROM tenants AS tenant {JOINS} WHERE tenant.id = %(tenant_id)s"  # noqa: S608 (nor here)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides about an event's mails. Its rows belong to no session.

    `addresses` are the recipients that want it now, `has_recipients` tells whether there are any at all.
    """

    tenant: Tenant
    switch: Switch
    addresses: tuple[str, ...]
    has_recipients: bool
    server: MailServer | None


def find(tenant_id: int, event_type: str) -> Circumstances:
    """Return the circumstances of an event type of a tenant that exists."""
    with every_tenant():  # the mail server may be the system's
        row = statements.run(FIND, {"tenant_id": tenant_id, "event_type": event_type})
    found = of_row(row) if row else None
    assert found is not None
    return found


def of_row(row: Mapping[str, Any]) -> Circumstances | None:
    """Return the circumstances in a row of `COLUMNS`, None where no tenant was found."""
    if row["tenant_id"] is None:
        return None
    return Circumstances(
        tenant=_made(Tenant, OF_TENANT, row),
        switch=Switch() if row["audience"] is None else _switch(row),
        addresses=tuple(filter(None, row["addresses"])),
        has_recipients=bool(row["addresses"]),
        server=None if row["server_id"] is None else _made(MailServer, OF_SERVER, row),
    )


def _switch(row: Mapping[str, Any]) -> Switch:
    return Switch(row["enabled"], Audience(row["audience"]), row["template_id"])


def _made(model: type[Row], names: Mapping[str, str], row: Mapping[str, Any]) -> Row:
    """Return a row to be read, and nothing else: SQLAlchemy, which takes its time, need not know of it."""
    made = model.__new__(model)
    vars(made).update({name: row[alias] for alias, name in names.items()})
    return made
