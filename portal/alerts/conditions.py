"""What is wrong at the moment with a tenant or with the system: one list for the pages and for the emails.

Each kind takes one statement, however many tenants there are.
"""

import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, and_, func, or_, select, text

from portal import config
from portal.alerts.silence import silent_tenants
from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.database import clock
from portal.database.scope import every_tenant
from portal.deliveries.models import DUE_AT, HAS_DUE_TIME, Delivery
from portal.deliveries.status import HoldReason
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.client import AuthMode
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant


class AlertKind(StrEnum):
    """What an alert is about. The first four are about a tenant or the system, the others about the system alone."""

    MAIL_SERVER = "mail_server"
    HELD = "held"
    EXPIRY = "expiry"
    SILENCE = "silence"
    NO_WORKER = "no_worker"
    DISK = "disk"


class Everyone(Enum):
    """All tenants that are not suspended, and the system."""

    EVERYONE = "everyone"


Owner: TypeAlias = int | Everyone | None  # a tenant's id; None: the system
EVERYONE: Final = Everyone.EVERYONE
AT_ONCE: Final = timedelta()
HELD_FOR: Final = timedelta(hours=1)
NO_WORKER_FOR: Final = timedelta(minutes=5)
OVERDUE_AFTER: Final = timedelta(minutes=5)
DISK_FULL_FOR: Final = timedelta(minutes=15)
EXPIRY_WARNING: Final = timedelta(days=14)
EXPIRED_FOR: Final = timedelta(days=30)  # then nobody seems to miss the key or the secret
FULL, NOT_FULL = 0.10, 0.12  # the share of a disk that is free; in between, an alert stays as it is
LAST_TENANT: Final = 2**31 - 1
MAX_COUNT: Final = 10_000  # emails of one tenant, or overdue ones, that are counted
MAX_HELD: Final = 1000  # emails of each tenant and reason that are counted, when all are looked at
EMAILED_REASONS: Final = {  # the others are intended, or a summary lists the events
    *(HoldReason.NO_MAIL_SERVER, HoldReason.NO_RECIPIENTS, HoldReason.MAIL_SERVER_REJECTED),
    *(HoldReason.MAY_HAVE_BEEN_SENT, HoldReason.SHARED_SERVER_LIMIT),
    *(HoldReason.NO_RECIPIENT_WANTS_IT, HoldReason.SWITCHED_OFF),
}
CONNECTION, SECRET, KEY = "connection", "secret", "key"  # the subjects of EXPIRY; a key's has its id

# When a failing server last took or judged an email, if it has since it began to fail.
WORKED_AT: Final = """(
    SELECT max(sent.last_attempt_at)
    FROM (
        SELECT server.tenant_id AS id WHERE server.tenant_id IS NOT NULL
        UNION ALL SELECT id FROM tenants WHERE server.tenant_id IS NULL AND id > 0
    ) AS tenant, LATERAL (
        SELECT last_attempt_at FROM deliveries
        WHERE tenant_id = tenant.id AND last_attempt_at > server.failing_since AND status IN ('sent', 'failed')
            AND mail_server_label
                = CASE WHEN server.tenant_id IS NULL THEN :system_label ELSE server.host || ':' || server.port END
        ORDER BY last_attempt_at DESC LIMIT 1
    ) AS sent
)"""
FAILING: Final = f"""
    SELECT server.tenant_id, server.host, server.rejected_at, server.failing_since, server.last_failed_at,
        server.pause_reason
    FROM mail_servers AS server LEFT JOIN tenants ON tenants.id = server.tenant_id
    WHERE {{owner}} AND (
        server.rejected_at IS NOT NULL
        OR server.failing_since IS NOT NULL AND {WORKED_AT} IS NULL
    )
"""  # noqa: S608 (contains no input)
NOTE_SUCCESSES: Final = f"""
    UPDATE mail_servers SET (failing_since, last_failed_at) = (
        SELECT last_failed_at, last_failed_at WHERE last_failed_at > worked.at
    )
    FROM (
        SELECT id, {WORKED_AT} AS at FROM mail_servers AS server
        WHERE failing_since IS NOT NULL AND rejected_at IS NULL
    ) AS worked
    WHERE worked.id = mail_servers.id AND worked.at IS NOT NULL
"""  # noqa: S608 (contains no input)
# The reasons for which emails of each tenant are held: Postgres finds each by one look into the index, which has the
# number too. What an email is held for is found out when it is recorded, or when it was last attempted.
HELD: Final = """
    WITH RECURSIVE kind (tenant_id, reason) AS (
        (SELECT tenant_id, reason FROM deliveries
            WHERE reason IS NOT NULL AND tenant_id BETWEEN :first AND :last ORDER BY tenant_id, reason LIMIT 1)
        UNION ALL
        SELECT next.* FROM kind, LATERAL (
            SELECT tenant_id, reason FROM deliveries
            WHERE reason IS NOT NULL AND (tenant_id, reason) > (kind.tenant_id, kind.reason) AND tenant_id <= :last
            ORDER BY tenant_id, reason LIMIT 1
        ) AS next
    )
    SELECT kind.tenant_id, kind.reason, number.emails, oldest.since
    FROM kind, LATERAL (
        SELECT count(*) AS emails FROM (
            SELECT FROM deliveries WHERE tenant_id = kind.tenant_id AND reason = kind.reason LIMIT :most
        ) AS found
    ) AS number, LATERAL (
        SELECT coalesce(last_attempt_at, created_at) AS since FROM deliveries
        WHERE tenant_id = kind.tenant_id AND reason = kind.reason ORDER BY since LIMIT 1
    ) AS oldest
    WHERE :first = :last OR (SELECT suspended_at FROM tenants WHERE id = kind.tenant_id) IS NULL
"""
LAST_HEARTBEAT: Final = """
    SELECT max(last_heartbeat), max(last_heartbeat) > now() - interval '1 minute' FROM procrastinate_workers
    WHERE last_heartbeat > now() - interval '30 days'
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong with a tenant, or with the system (None).

    `subject` tells it from others of its kind, `details` are what its sentence is made from. `since` None means since
    it is first seen. Administrators are emailed once it has lasted for `delay`; None: never.
    """

    tenant_id: int | None
    kind: AlertKind
    subject: str
    since: datetime | None
    delay: timedelta | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """All conditions of an owner. Of the `unknown` kinds nothing can be said at the moment."""

    conditions: Sequence[Condition]
    unknown: frozenset[AlertKind] = frozenset()


def find(owner: Owner) -> Findings:
    """Return what is wrong with the tenant in scope, with the system, or with everyone."""
    with nullcontext() if isinstance(owner, int) else every_tenant():
        connections = list(_connections(owner))
        unconnected = {condition.tenant_id for condition in connections if condition.subject == CONNECTION}
        found = [*_failing_servers(owner), *connections, *_held(owner, unconnected), *_keys(owner)]
        if owner is not None:
            found += _silent(owner)
        if isinstance(owner, int):
            return Findings(found)
        found += no_worker()
        free = free_disk_share()
        if free is not None and free < FULL:
            found.append(Condition(None, AlertKind.DISK, "", None, DISK_FULL_FOR, {"free": round(free, 2)}))
    is_unclear = free is None or FULL <= free < NOT_FULL
    return Findings(found, frozenset({AlertKind.DISK} if is_unclear else ()))


def note_successes() -> None:
    """Note, without a commit, which failing mail servers have sent email since."""
    db.session.execute(text(NOTE_SUCCESSES), {"system_label": SYSTEM_MAIL_SERVER})


def is_worker_running() -> bool:
    """Return whether a worker has given a sign of life within a minute."""
    return bool(db.session.execute(text(LAST_HEARTBEAT)).one()[1])


def overdue() -> int:
    """Return how many emails of all tenants should have been attempted minutes ago and were not."""
    is_late = text(f"{DUE_AT} <= :since").bindparams(since=clock.now() - OVERDUE_AFTER)
    late = select(Delivery.id).where(text(HAS_DUE_TIME), is_late).limit(MAX_COUNT).subquery()
    with every_tenant():
        return db.session.scalar(select(func.count()).select_from(late)) or 0


def _failing_servers(owner: Owner) -> Iterator[Condition]:
    condition = "server.tenant_id IS NULL" if owner is None else _tenants(owner, or_system="server.tenant_id IS NULL")
    values = {"tenant_id": owner, "system_label": SYSTEM_MAIL_SERVER}
    failing_for = timedelta(minutes=config.current().alert_after_minutes)
    for row in db.session.execute(text(FAILING.format(owner=condition)), _bound(values, owner)):
        details = {"host": row.host, "reason": row.pause_reason or "", "state": "rejected"}
        since, delay = row.rejected_at, failing_for if row.rejected_at else None
        if since is None:
            since, details["state"] = row.failing_since, "failing"
            if row.last_failed_at - since >= failing_for:  # each attempt from the first to the last one failed
                delay = failing_for
        yield Condition(row.tenant_id, AlertKind.MAIL_SERVER, "", since, delay, details)


def _held(owner: Owner, unconnected: Collection[int | None]) -> Iterator[Condition]:
    if owner is None:
        return
    is_tenant = isinstance(owner, int)
    first, last, limit = (owner, owner, MAX_COUNT) if is_tenant else (1, LAST_TENANT, MAX_HELD)
    for row in db.session.execute(text(HELD), {"first": first, "last": last, "most": limit}):
        delay = HELD_FOR if row.reason in EMAILED_REASONS else None
        details = {"count": row.emails, "limit": limit, "connected": row.tenant_id not in unconnected}
        yield Condition(row.tenant_id, AlertKind.HELD, row.reason, row.since, delay, details)


def _connections(owner: Owner) -> Iterator[Condition]:
    same_owner = OAuthConnection.tenant_id.is_not_distinct_from(MailServer.tenant_id)
    query = (
        select(MailServer, OAuthConnection)
        .outerjoin(OAuthConnection, and_(same_owner, _is_owned(OAuthConnection.tenant_id, owner)))
        .where(MailServer.auth_mode == AuthMode.OAUTH, _is_owned(MailServer.tenant_id, owner))
    )
    for server, connection in db.session.execute(query):
        status = oauth_service.status_of(server, connection)
        if status is None:
            continue
        values = (server.tenant_id, AlertKind.EXPIRY)
        details = {"provider": status.provider.key, "mailbox": status.mailbox, "state": status.state}
        if status.state == "missing":
            yield Condition(*values, CONNECTION, None, None, details)
        elif status.state == "lapsed":
            yield Condition(*values, CONNECTION, connection.lapsed_at, AT_ONCE, details)
        if status.days_left is not None and (end := connection.credential_expires_at):
            yield Condition(*values, SECRET, *_expiry(end), details | {"expires_at": end.isoformat()})


def _keys(owner: Owner) -> Iterator[Condition]:
    now = clock.now()
    columns = (ApiKey.id, ApiKey.tenant_id, ApiKey.name, ApiKey.expires_at, ApiKey.revoked_at)
    query = select(*columns).where(_is_owned(ApiKey.tenant_id, owner))
    ends = defaultdict(list)  # of all keys with the same name
    rows = [row for row in db.session.execute(query) if row.revoked_at is None]
    for row in rows:
        ends[row.tenant_id, row.name].append(row.expires_at)
    for row in rows:
        end = row.expires_at
        if end is None or not now - EXPIRED_FOR < end <= now + EXPIRY_WARNING:
            continue
        if not any(other is None or other > end for other in ends[row.tenant_id, row.name]):
            details = {"name": row.name, "expires_at": end.isoformat()}
            yield Condition(row.tenant_id, AlertKind.EXPIRY, f"{KEY} {row.id}", *_expiry(end), details)


def _expiry(at: datetime) -> tuple[datetime, timedelta | None]:
    since = at - EXPIRY_WARNING
    return since, AT_ONCE if since <= clock.now() < at + EXPIRED_FOR else None


def _silent(owner: int | Everyone) -> Iterator[Condition]:
    for tenant_id, last_event_at in silent_tenants(_tenants(owner), _bound({"tenant_id": owner}, owner)):
        yield Condition(tenant_id, AlertKind.SILENCE, "", last_event_at, AT_ONCE, {})


def no_worker() -> Iterator[Condition]:
    """Yield the condition that no worker is running, if that is so."""
    last_heartbeat, is_running = db.session.execute(text(LAST_HEARTBEAT)).one()
    if not is_running:
        yield Condition(None, AlertKind.NO_WORKER, "", last_heartbeat, NO_WORKER_FOR, {})


def free_disk_share() -> float | None:
    """Return which share of the database's disk is free, or None if this host does not have it."""
    settings = config.current()
    folder = settings.database_disk or (settings.var_dir if settings.uses_embedded_postgres else None)
    if folder is None:
        return None
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free / usage.total if usage.total else None


def _tenants(owner: int | Everyone, *, or_system: str = "") -> str:
    """Return the condition of a statement that reads `tenants` for the owner."""
    if isinstance(owner, int):
        return "tenants.id = :tenant_id"
    condition = "tenants.id > 0 AND tenants.suspended_at IS NULL"
    return f"({condition} OR {or_system})" if or_system else condition


def _bound(values: dict[str, Any], owner: Owner) -> dict[str, Any]:
    return values if isinstance(owner, int) else {name: value for name, value in values.items() if name != "tenant_id"}


def _is_owned(tenant_id: Any, owner: Owner) -> ColumnElement[bool]:
    if isinstance(owner, Everyone):
        suspended = select(Tenant.id).where(Tenant.id == tenant_id, Tenant.suspended_at.is_not(None))
        return or_(tenant_id.is_(None), ~suspended.exists())
    owned: ColumnElement[bool] = tenant_id == owner  # IS NULL for None
    return owned
