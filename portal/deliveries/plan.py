"""Everything that settings decide about an event: loaded in one statement, and kept until a setting changes.

Triggers count the changes of a tenant's settings and of the system's. A plan has their revision, which the statement
that records an event compares: a plan that a process keeps is never used after a change.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from portal import config
from portal.database import clock, fast_sql
from portal.database.detached import detached
from portal.database.scope import every_tenant
from portal.extensions import Base
from portal.mail_servers.models import MailServer
from portal.mail_servers.service import sender_for
from portal.mail_servers.smtp.client import SmtpSettings
from portal.mail_servers.smtp.mime import Sender
from portal.mail_templates.placeholders import MailContext
from portal.notifications.decision import Decision, RecipientRules, decide
from portal.notifications.settings import Audience, EventSetting
from portal.tenants.models import Tenant


def _column_aliases(model: type[Base], prefix: str) -> Mapping[str, str]:
    """Return the model's columns, by the names that they have in the row."""
    return {f"{prefix}_{column.name}": column.name for column in model.__table__.columns if column.computed is None}


MAX_KEPT_PLANS: Final = 2_000  # each takes up to 50 kB

# Not for a recipient that is paused, or does not get this type of event.
IS_WANTED = "coalesce(paused_until <= now(), true) AND %(event_type)s::varchar <> ALL (excluded_event_types)"
HAS_RULES = "(queues <> '{}' OR quiet_days <> '{}')"
RULES = """
    json_build_object('email', email, 'queues', queues, 'quiet_days', quiet_days, 'quiet_from', quiet_from,
        'quiet_until', quiet_until, 'urgent_event_types', urgent_event_types)
"""
# Of the settings of the tenant and of the system: each only grows. NULL, which equals nothing, without the tenant's.
REVISION = """
    (SELECT number FROM settings_revisions WHERE tenant_id = {tenant_id})
    + coalesce((SELECT number FROM settings_revisions WHERE tenant_id IS NULL), 0)
"""
TENANT_COLUMNS, MAIL_SERVER_COLUMNS = _column_aliases(Tenant, "tenant"), _column_aliases(MailServer, "server")
PLAN_COLUMNS = f"""
    {", ".join(f"tenant.{name} AS {alias}" for alias, name in TENANT_COLUMNS.items())},
    {", ".join(f"server.{name} AS {alias}" for alias, name in MAIL_SERVER_COLUMNS.items())},
    setting.enabled, setting.audience, setting.template_id,
    recipient.emails, recipient.rules, recipient.pause_ends,
    {REVISION.format(tenant_id="tenant.id")} AS revision, clock_timestamp() AS database_time
"""
# The tenant's own mail server comes first, then the system's if it is shared. These are two lookups because Postgres
# would use no index for an OR.
PLAN_JOINS = f"""
    LEFT JOIN notification_settings AS setting ON setting.tenant_id = tenant.id AND setting.event_type = %(event_type)s
    LEFT JOIN LATERAL (
        SELECT * FROM mail_servers WHERE tenant_id = tenant.id
        UNION ALL SELECT * FROM mail_servers WHERE tenant_id IS NULL AND shared
        ORDER BY tenant_id NULLS LAST LIMIT 1
    ) AS server ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(CASE WHEN {IS_WANTED} AND NOT {HAS_RULES} THEN email END ORDER BY id) AS emails,
            json_agg({RULES} ORDER BY id) FILTER (WHERE {IS_WANTED} AND {HAS_RULES}) AS rules,
            min(paused_until) FILTER (WHERE paused_until > now()) AS pause_ends
        FROM recipients WHERE tenant_id = tenant.id
    ) AS recipient ON true
"""  # noqa: S608 (contains no input)
SELECT_PLAN = f"""
    SELECT {PLAN_COLUMNS} FROM tenants AS tenant {PLAN_JOINS} WHERE tenant.id = %(tenant_id)s
"""  # noqa: S608 (contains no input)


@dataclass(frozen=True)
class Plan:
    """Everything that settings decide about a type of event. Its rows belong to no session.

    `recipients` are the email addresses that get this type of event, without those that have rules. `has_recipients`
    tells whether the tenant has any recipients. From `pause_ends` on, another recipient may get it. `revision` is that
    of the settings from which it was loaded.
    """

    tenant: Tenant
    setting: EventSetting
    recipients: tuple[str, ...]
    has_recipients: bool
    mail_server: MailServer | None
    rules: tuple[RecipientRules, ...] = ()
    pause_ends: datetime | None = None
    revision: int | None = None

    def decide(self, event_type: str, queue: Collection[str]) -> Decision:
        """Decide who gets an event of the plan's type now, and who not before their quiet hours end."""
        return decide(self.recipients, self.rules, event_type, queue, clock.now(), self.tenant.time_zone)

    @cached_property
    def smtp_settings(self) -> SmtpSettings:
        """How to connect to its mail server. UnreadableSecret: the password cannot be read."""
        assert self.mail_server
        return self.mail_server.smtp_settings

    @cached_property
    def sender(self) -> Sender:
        """The sender of its emails."""
        assert self.mail_server
        return sender_for(self.tenant, self.mail_server.sender_email)

    @cached_property
    def log_url(self) -> str:
        """The URL of the tenant's delivery log."""
        return f"{config.current().portal_url}/tenants/{quote(self.tenant.domain)}/deliveries"

    @cached_property
    def mail_context(self) -> MailContext:
        """What its emails need to know about the tenant."""
        return MailContext.for_tenant(self.tenant)


_kept: dict[tuple[int, str], Plan] = {}  # by tenant and event type


def load_plan(tenant_id: int, event_type: str) -> Plan:
    """Return the plan of a type of event, for a tenant that exists."""
    with every_tenant():  # the mail server may be the system's
        row = fast_sql.run(SELECT_PLAN, {"tenant_id": tenant_id, "event_type": event_type})
    plan = plan_from_row(row) if row else None
    assert plan
    return plan


def current_plan(tenant_id: int, event_type: str, revision: int | None) -> Plan:
    """Return the plan that this process keeps if it has this revision of the settings, else load it."""
    plan = _kept.get((tenant_id, event_type))
    is_current = plan and plan.revision == revision and (plan.pause_ends is None or clock.now() < plan.pause_ends)
    if plan and is_current:
        return plan
    if len(_kept) >= MAX_KEPT_PLANS:
        _kept.clear()
    plan = _kept[tenant_id, event_type] = load_plan(tenant_id, event_type)
    return plan


def plan_from_row(row: Mapping[str, Any]) -> Plan | None:
    """Return the plan in a row of `PLAN_COLUMNS`, or None if the row has no tenant."""
    clock.note(row["database_time"])
    if row["tenant_id"] is None:
        return None
    return Plan(
        tenant=detached(Tenant, _values(row, TENANT_COLUMNS)),
        setting=EventSetting(row["enabled"], Audience(row["audience"]), row["template_id"])
        if row["audience"]
        else EventSetting(),
        recipients=tuple(filter(None, row["emails"] or ())),
        has_recipients=bool(row["emails"]),
        mail_server=None if row["server_id"] is None else detached(MailServer, _values(row, MAIL_SERVER_COLUMNS)),
        rules=tuple(map(RecipientRules.from_json, row["rules"] or ())),
        pause_ends=row["pause_ends"],
        revision=row["revision"],
    )


def _values(row: Mapping[str, Any], column_names: Mapping[str, str]) -> Mapping[str, Any]:
    return {name: row[alias] for alias, name in column_names.items()}
