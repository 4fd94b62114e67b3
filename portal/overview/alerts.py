"""What needs attention in a tenant, each with a link to where it can be fixed; and which tenants are silent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from flask_babel import gettext, ngettext
from sqlalchemy import func, literal_column, or_, select
from sqlalchemy.orm import aliased

from portal.alerts.conditions import MAX_COUNT, AlertKind, Condition, find
from portal.alerts.recording import alert_key, last_told
from portal.alerts.texts import HELD_TEXTS, capped_number, describe
from portal.database import clock
from portal.database.scope import every_tenant
from portal.deliveries.models import Delivery
from portal.deliveries.status import HoldReason, Status
from portal.extensions import db
from portal.overview.checklist import TenantSetup
from portal.pbx import api_keys, rejections
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant

SILENT_AFTER: Final = timedelta(days=7)
MAX_TENANTS_SHOWN: Final = 10
LOG: Final = "deliveries.log"
RECENT_PERIOD: Final = timedelta(days=1)
# The conditions and times as the indexes are defined.
UNDELIVERED: Final = {
    Status.FAILED: (Delivery.status == literal_column("'failed'"), Delivery.last_attempt_at),
    Status.EXPIRED: (Delivery.status == literal_column("'expired'"), Delivery.expires_at),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """A sentence and its link: the link's text, the endpoint and the values of its URL.

    `told_at` is when administrators were last emailed about it.
    """

    tone: str
    text: str
    link: str = ""
    endpoint: str = ""
    url_values: Mapping[str, str] = field(default_factory=dict)
    told_at: datetime | None = None


def tenant_alerts(tenant: Tenant, setup: TenantSetup, *, is_new: bool) -> Sequence[Alert]:
    """Return the alerts of the tenant in scope, those that stop email first.

    For a new tenant the checklist shows what is missing, so these alerts leave it out.
    """
    conditions = find(tenant.id).conditions
    held = {condition.subject: condition for condition in conditions if condition.kind is AlertKind.HELD}
    found = [*_suspended(tenant, held)]
    if not is_new:
        found += _missing(setup, held)
    shown = [condition for condition in conditions if condition.subject not in held or condition.subject in HELD_TEXTS]
    found += [*condition_alerts(shown, tenant.id), *_undelivered()]
    if not is_new:
        found += _unused_keys(setup)
    return [*found, *_rejected_requests(tenant)]


def condition_alerts(conditions: Iterable[Condition], owner: int | None) -> Sequence[Alert]:
    """Return the alerts of these conditions, and when the owner's administrators were emailed about them."""
    told_at, found = last_told(owner), []
    for condition in conditions:
        is_system = condition.tenant_id is None
        text = describe(condition.kind, condition.subject, condition.details, is_system=is_system)
        sentences = f"{text.sentence} {text.reason}".strip()
        link = (text.link, text.endpoint, text.url_values)
        found.append(Alert(text.tone, sentences, *link, told_at.get(alert_key(condition))))
    return found


def held_emails(count: int) -> str:
    """Return the sentence "2 emails are held."."""
    number = capped_number(count, MAX_COUNT)
    return ngettext("%(number)s email is held.", "%(number)s emails are held.", count, number=number)


def _suspended(tenant: Tenant, held: Mapping[str, Condition]) -> Iterator[Alert]:
    if tenant.is_suspended:
        text = gettext("The tenant is suspended: events are recorded, but no email is sent.")
        waiting = held.get(HoldReason.TENANT_SUSPENDED)
        yield Alert("warn", f"{text} {held_emails(waiting.details['count'])}" if waiting else text)


def _missing(setup: TenantSetup, held: Mapping[str, Condition]) -> Iterator[Alert]:
    if setup.server is None and HoldReason.NO_MAIL_SERVER not in held:
        yield Alert("bad", gettext("No mail server is set up."), gettext("Set up a mail server"), "mail_servers.edit")
    if not setup.addresses and HoldReason.NO_RECIPIENTS not in held:
        yield Alert("bad", gettext("There are no recipients."), gettext("Add recipients"), "recipients.edit")
    if not setup.events_on:
        text = gettext("All events are off, so no email is sent.")
        yield Alert("bad", text, gettext("Turn on events"), "notifications.edit")
    if not setup.keys and not any(key.is_valid for key in api_keys.list_keys(None)):
        text = gettext("There is no valid PBX key, so no events can arrive.")
        yield Alert("bad", text, gettext("Connect a PBX"), "connect.show")


def _undelivered() -> Iterator[Alert]:
    since = clock.now() - RECENT_PERIOD
    queries = {
        status: select(func.count(Delivery.id)).where(has_status, at >= since)
        for status, (has_status, at) in UNDELIVERED.items()
    }
    counts = {status: db.session.scalar(query) or 0 for status, query in queries.items()}
    failed, expired = counts[Status.FAILED], counts[Status.EXPIRED]
    sentences = {
        Status.FAILED: ngettext(
            "%(number)s email failed in the last 24 hours.",
            "%(number)s emails failed in the last 24 hours.",
            failed,
            number=capped_number(failed, MAX_COUNT),
        ),
        Status.EXPIRED: ngettext(
            "%(number)s email expired in the last 24 hours.",
            "%(number)s emails expired in the last 24 hours.",
            expired,
            number=capped_number(expired, MAX_COUNT),
        ),
    }
    for status, text in sentences.items():
        if counts[status]:
            yield Alert("bad", text, gettext("View details"), LOG, {"outcome": str(status)})


def _unused_keys(setup: TenantSetup) -> Iterator[Alert]:
    last_used = max((key.last_used_at for key in setup.keys if key.last_used_at), default=None)
    if last_used and clock.now() - last_used > SILENT_AFTER:
        text = gettext("The PBX has sent no event for %(days)s days.", days=(clock.now() - last_used).days)
        yield Alert("warn", text, gettext("View its keys"), "api_keys.list_keys")
    for key in setup.keys:
        if key.last_used_at is None:
            text = gettext("Key “%(name)s” has never been used.", name=key.name)
            yield Alert("info", text, gettext("Connect the PBX"), "connect.show")


def _rejected_requests(tenant: Tenant) -> Iterator[Alert]:
    if total := rejections.count_recent(tenant):
        text = ngettext(
            "%(number)s request was rejected in the last 7 days.",
            "%(number)s requests were rejected in the last 7 days.",
            total,
            number=capped_number(total, MAX_COUNT),
        )
        yield Alert("warn", text, gettext("View details"), "api_keys.list_keys", {"_anchor": "rejected-requests"})


class SilentTenant(NamedTuple):
    """A tenant without events: `since` its last event, or since its key was issued if there was `never` one."""

    tenant: Tenant
    since: datetime
    never: bool


def silent_tenants() -> Sequence[SilentTenant]:
    """Return the tenants whose valid keys have not been used for a week, the most recently used first."""
    now = clock.now()
    other = aliased(ApiKey)
    quiet_since = func.greatest(ApiKey.last_used_at, ApiKey.created_at)
    live = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    used_later = select(func.count()).where(
        other.tenant_id == ApiKey.tenant_id,
        other.revoked_at.is_(None),
        func.greatest(other.last_used_at, other.created_at) > quiet_since,
    )
    query = (
        select(ApiKey.tenant_id, quiet_since, ApiKey.last_used_at.is_(None))
        .where(ApiKey.tenant_id.is_not(None), ApiKey.revoked_at.is_(None), live, used_later.scalar_subquery() == 0)
        .where(quiet_since < now - SILENT_AFTER)
        .order_by(quiet_since.desc())
        .limit(MAX_TENANTS_SHOWN)
    )
    with every_tenant():
        rows = {tenant_id: (since, never) for tenant_id, since, never in db.session.execute(query) if tenant_id}
    return [SilentTenant(tenant, *rows[tenant.id]) for tenant in _tenants(rows)]


def _tenants(ids: Iterable[int]) -> Sequence[Tenant]:
    """Return those of these tenants that exist, in the same order."""
    order = list(ids)
    found = db.session.scalars(select(Tenant).where(Tenant.id.in_(order))).all()
    return sorted(found, key=lambda tenant: order.index(tenant.id))
