"""The table of alerts: conditions that administrators are emailed about, from the first time seen until they end."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select, text

from portal import config
from portal.alerts import conditions
from portal.alerts.conditions import EVERYONE, EXPIRED_FOR, AlertKind, Condition
from portal.alerts.models import AlertNotice, RecordedAlert
from portal.database import clock
from portal.database.scope import every_tenant, scope_of_owner
from portal.extensions import db

# An alert that comes back within this time has not ended.
SETTLING_TIME: Final = timedelta(minutes=5)
# The time from which these last is when they were first seen.
SEEN_SINCE: Final = (AlertKind.NO_WORKER, AlertKind.DISK)
FOUND: Final = """
    jsonb_to_recordset(:found)
        AS found (tenant_id int, kind text, subject text, details jsonb, since timestamptz, delay float)
"""
# A tenant may be deleted meanwhile: its lock keeps it, or shows that it is gone.
RECORD: Final = f"""
    INSERT INTO alerts AS alert (tenant_id, kind, subject, details, began_at, tell_at)
    SELECT tenant_id, kind, subject, details, coalesce(since, now()),
        coalesce(since, now()) + delay * interval '1 second'
    FROM {FOUND}
    WHERE found.tenant_id IS NULL OR EXISTS (SELECT FROM tenants WHERE tenants.id = found.tenant_id FOR KEY SHARE)
    ON CONFLICT (tenant_id, kind, subject) WHERE ended_at IS NULL DO UPDATE SET
        details = excluded.details,
        absent_since = NULL,
        began_at = CASE WHEN excluded.kind = ANY(:seen_since) THEN alert.began_at ELSE excluded.began_at END,
        tell_at = CASE WHEN excluded.kind = ANY(:seen_since) THEN alert.tell_at ELSE excluded.tell_at END
    WHERE (alert.details, alert.began_at, alert.tell_at) IS DISTINCT FROM
            (excluded.details, excluded.began_at, excluded.tell_at)
        OR alert.absent_since IS NOT NULL
"""  # noqa: S608 (contains no input)
END: Final = f"""
    UPDATE alerts SET absent_since = coalesce(absent_since, now()),
        ended_at = CASE WHEN absent_since <= now() - :settling_time THEN absent_since END
    WHERE ended_at IS NULL AND kind <> ALL(:unknown) AND NOT EXISTS (
        SELECT FROM {FOUND}
        WHERE (found.kind, found.subject) = (alerts.kind, alerts.subject)
            AND found.tenant_id IS NOT DISTINCT FROM alerts.tenant_id
    )
"""  # noqa: S608 (contains no input)
# What is no longer watched has not ended well: nobody is told that it is over.
FORGET: Final = """
    DELETE FROM alerts USING alerts AS alert LEFT JOIN tenants AS tenant ON tenant.id = alert.tenant_id
    WHERE alerts.id = alert.id AND alerts.ended_at IS NULL AND (
        tenant.suspended_at IS NOT NULL
        OR alerts.kind = 'silence' AND NOT tenant.alerts_on_silence
        OR (alerts.details ->> 'expires_at')::timestamptz <= now() - :expired_for
    )
"""


def record_all() -> None:
    """Record what is wrong with everyone and what is no longer, in one transaction."""
    with every_tenant():
        conditions.note_successes()
        findings = conditions.find(EVERYONE)
        found = [_values(condition) for condition in findings.conditions if condition.delay is not None]
        values = {"found": json.dumps(found)}
        db.session.execute(text(RECORD), values | {"seen_since": list(SEEN_SINCE)})
        db.session.execute(text(FORGET), {"expired_for": EXPIRED_FOR})
        unknown = [str(kind) for kind in findings.unknown]
        db.session.execute(text(END), values | {"unknown": unknown, "settling_time": SETTLING_TIME})
        db.session.commit()


def _values(condition: Condition) -> dict[str, object]:
    assert condition.delay is not None
    return {
        "tenant_id": condition.tenant_id,
        "kind": condition.kind,
        "subject": condition.subject,
        "details": condition.details,
        "since": condition.since.isoformat() if condition.since else None,
        "delay": condition.delay.total_seconds(),
    }


def alert_key(alert: Condition | RecordedAlert) -> tuple[int | None, str, str]:
    """Return what tells an alert from all others that are open."""
    return alert.tenant_id, str(alert.kind), alert.subject


def last_told(owner: int | None) -> Mapping[tuple[int | None, str, str], datetime]:
    """Return when administrators were last emailed about the open alerts of the tenant in scope, or of the system."""
    query = (
        select(RecordedAlert, func.max(AlertNotice.told_at))
        .join(AlertNotice, AlertNotice.alert_id == RecordedAlert.id)
        .where(RecordedAlert.ended_at.is_(None), RecordedAlert.tenant_id == owner)
        .group_by(RecordedAlert.id)
    )
    with scope_of_owner(owner):
        return {alert_key(alert): told_at for alert, told_at in db.session.execute(query) if told_at}


def delete_old(_sender: object = None) -> None:
    """Delete the alerts that ended before the retention period."""
    oldest = clock.now() - timedelta(days=config.current().retention_days)
    with every_tenant():
        db.session.execute(delete(RecordedAlert).where(RecordedAlert.ended_at < oldest))
        db.session.commit()
