"""Everything that decides how an event is emailed, loaded in one query."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from portal.database import clock, fast_sql
from portal.database.detached import detached
from portal.database.scope import every_tenant
from portal.extensions import Base
from portal.mail_servers.models import MailServer
from portal.notifications.decision import Decision, RecipientRules, decide
from portal.notifications.settings import Audience, EventSetting
from portal.tenants.models import Tenant


def _column_aliases(model: type[Base], prefix: str) -> Mapping[str, str]:
    """Return the model's columns, by the names that they have in the row."""
    return {f"{prefix}_{column.name}": column.name for column in model.__table__.columns if column.computed is None}


# Not for a recipient that is paused, or does not get this type of event.
IS_WANTED = "coalesce(paused_until <= now(), true) AND %(event_type)s::varchar <> ALL (excluded_event_types)"
HAS_RULES = "(queues <> '{}' OR quiet_days <> '{}')"
RULES = """
    json_build_object('email', email, 'queues', queues, 'quiet_days', quiet_days, 'quiet_from', quiet_from,
        'quiet_until', quiet_until, 'urgent_event_types', urgent_event_types)
"""
TENANT_COLUMNS, MAIL_SERVER_COLUMNS = _column_aliases(Tenant, "tenant"), _column_aliases(MailServer, "server")
CONTEXT_COLUMNS = f"""
    {", ".join(f"tenant.{name} AS {alias}" for alias, name in TENANT_COLUMNS.items())},
    {", ".join(f"server.{name} AS {alias}" for alias, name in MAIL_SERVER_COLUMNS.items())},
    setting.enabled, setting.audience, setting.template_id,
    recipient.emails, recipient.rules, clock_timestamp() AS database_time
"""
# The tenant's own mail server comes first, then the system's if it is shared. These are two lookups because Postgres
# would use no index for an OR.
CONTEXT_JOINS = f"""
    LEFT JOIN notification_settings AS setting ON setting.tenant_id = tenant.id AND setting.event_type = %(event_type)s
    LEFT JOIN LATERAL (
        SELECT * FROM mail_servers WHERE tenant_id = tenant.id
        UNION ALL SELECT * FROM mail_servers WHERE tenant_id IS NULL AND shared
        ORDER BY tenant_id NULLS LAST LIMIT 1
    ) AS server ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(CASE WHEN {IS_WANTED} AND NOT {HAS_RULES} THEN email END ORDER BY id) AS emails,
            json_agg({RULES} ORDER BY id) FILTER (WHERE {IS_WANTED} AND {HAS_RULES}) AS rules
        FROM recipients WHERE tenant_id = tenant.id
    ) AS recipient ON true
"""  # noqa: S608 (contains no input)
SELECT_CONTEXT = f"""
    SELECT {CONTEXT_COLUMNS} FROM tenants AS tenant {CONTEXT_JOINS} WHERE tenant.id = %(tenant_id)s
"""  # noqa: S608 (contains no input)


@dataclass(frozen=True, slots=True)
class EventContext:
    """Everything that decides how an event is emailed. Its rows belong to no session.

    `recipients` are the email addresses that get this type of event, without those that have rules. `has_recipients`
    tells whether the tenant has any recipients.
    """

    tenant: Tenant
    setting: EventSetting
    recipients: tuple[str, ...]
    has_recipients: bool
    mail_server: MailServer | None
    rules: tuple[RecipientRules, ...] = ()

    def decide(self, event_type: str, queue: Collection[str]) -> Decision:
        """Decide who gets an event of the context's type now, and who not before their quiet hours end."""
        return decide(self.recipients, self.rules, event_type, queue, clock.now(), self.tenant.time_zone)


def load_context(tenant_id: int, event_type: str) -> EventContext:
    """Return the context of a type of event, for a tenant that exists."""
    with every_tenant():  # the mail server may be the system's
        row = fast_sql.run(SELECT_CONTEXT, {"tenant_id": tenant_id, "event_type": event_type})
    context = context_from_row(row) if row else None
    assert context
    return context


def context_from_row(row: Mapping[str, Any]) -> EventContext | None:
    """Return the context in a row of `CONTEXT_COLUMNS`, or None if the row has no tenant."""
    clock.note(row["database_time"])
    if row["tenant_id"] is None:
        return None
    return EventContext(
        tenant=detached(Tenant, _values(row, TENANT_COLUMNS)),
        setting=EventSetting(row["enabled"], Audience(row["audience"]), row["template_id"])
        if row["audience"]
        else EventSetting(),
        recipients=tuple(filter(None, row["emails"] or ())),
        has_recipients=bool(row["emails"]),
        mail_server=None if row["server_id"] is None else detached(MailServer, _values(row, MAIL_SERVER_COLUMNS)),
        rules=tuple(map(RecipientRules.from_json, row["rules"] or ())),
    )


def _values(row: Mapping[str, Any], column_names: Mapping[str, str]) -> Mapping[str, Any]:
    return {name: row[alias] for alias, name in column_names.items()}
