"""Which PBX is silent although it normally reports: learned from its own rhythm.

The time since the last event is compared with the same days and hours of the last four weeks, in the tenant's time
zone. If at least ten events arrived then in three of the four weeks, and none now, the PBX is silent. So a night or a
weekend without events is nothing unusual where the others were like it, and one week with an outage or a holiday
changes nothing. The longer the silence lasts, the more events are missing: it remains a silence until an event arrives.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from portal.extensions import db
from portal.tenants.models import Tenant

WEEKS: Final = 4
WEEK_RANK: Final = 2  # of the weeks by their number of events: the second of four, so that one may be unusual
MIN_EVENTS: Final = 10  # in the same hours: if they arrive at random, none arrive by chance once in 22,000 times
# The lowest id of a moment, as `lowest_uuid7` makes it.
_ID_AT: Final = "(lpad(to_hex((extract(epoch FROM {}) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid"
_EARLIER: Final = "(({} AT TIME ZONE tenant.time_zone) - week * interval '7 days') AT TIME ZONE tenant.time_zone"
SILENT: Final = f"""
    WITH tenant AS MATERIALIZED (
        SELECT tenants.id, tenants.time_zone, last.received_at
        FROM tenants, LATERAL (
            SELECT received_at FROM events WHERE tenant_id = tenants.id AND NOT is_sample ORDER BY id DESC LIMIT 1
        ) AS last
        WHERE {{tenants}} AND tenants.alerts_on_silence
    )
    SELECT tenant.id, tenant.received_at
    FROM tenant, LATERAL (
        SELECT array_agg(events.count ORDER BY events.count) AS counts
        FROM generate_series(1, {WEEKS}) AS week, LATERAL (
            SELECT count(*) FROM (
                SELECT FROM events
                WHERE tenant_id = tenant.id AND NOT is_sample
                    AND id >= {_ID_AT.format(_EARLIER.format("tenant.received_at"))}
                    AND id < {_ID_AT.format(_EARLIER.format("now()"))}
                LIMIT {MIN_EVENTS}
            ) AS same_hours
        ) AS events
    ) AS usual
    WHERE usual.counts[{WEEK_RANK}] >= {MIN_EVENTS}
"""  # noqa: S608 (contains no input)


def silent_tenants(tenants: str, values: Mapping[str, Any]) -> Sequence[tuple[int, datetime]]:
    """Return the silent ones of the tenants that want to know, each with the time of its last event.

    `tenants` is a condition in SQL about the table of tenants, `values` are its parameters.
    """
    rows = db.session.execute(text(SILENT.format(tenants=tenants)), values)
    return [(tenant_id, received_at) for tenant_id, received_at in rows]


def watch(tenant: Tenant, *, on: bool) -> None:
    """Let the tenant's administrators be told when the PBX is silent, or no longer."""
    tenant.alerts_on_silence = on
    db.session.commit()
