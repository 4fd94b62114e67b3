"""What needs attention in a tenant, each with a link to where it can be fixed; and which tenants are silent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from flask_babel import gettext, ngettext
from sqlalchemy import func, or_, select
from sqlalchemy.orm import aliased

from portal.database import clock
from portal.database.scope import every_tenant
from portal.deliveries import counts as deliveries_counts
from portal.deliveries.status import HoldReason, Status
from portal.extensions import db
from portal.mail_servers.oauth.service import MailboxStatus
from portal.overview.checklist import TenantSetup
from portal.pbx import api_keys, rejections
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant
from portal.web.filters import decimal
from portal.web.i18n import to_translate

EXPIRY_WARNING: Final = timedelta(days=14)
SILENT_AFTER: Final = timedelta(days=7)
MAX_TENANTS_SHOWN: Final = 10
SETTINGS: Final = "mail_servers.edit"
RECIPIENTS: Final = "recipients.edit"
EVENTS: Final = "notifications.edit"
LOG: Final = "deliveries.log"
CONNECTION: Final = "oauth.show"


@dataclass(frozen=True, slots=True)
class Alert:
    """A sentence and its link: the link's text, the endpoint and the values of its URL."""

    tone: str
    text: str
    link: str = ""
    endpoint: str = ""
    url_values: Mapping[str, str] = field(default_factory=dict)


# For each reason to hold email: the sentence, the link's text and its endpoint.
HELD_ALERTS: Final = {
    HoldReason.NO_MAIL_SERVER: (
        to_translate("%(held)s: no mail server is set up."),
        to_translate("Set up a mail server"),
        SETTINGS,
    ),
    HoldReason.NO_RECIPIENTS: (
        to_translate("%(held)s: there are no recipients."),
        to_translate("Add recipients"),
        RECIPIENTS,
    ),
    HoldReason.MAIL_SERVER_REJECTED: (
        to_translate("%(held)s: the mail server rejects the settings."),
        to_translate("Check the settings"),
        SETTINGS,
    ),
    HoldReason.MAY_HAVE_BEEN_SENT: (to_translate("%(held)s: possibly sent already."), to_translate("Decide"), LOG),
    HoldReason.THROTTLED: (to_translate("%(held)s: too many at once."), to_translate("View them"), LOG),
    HoldReason.SHARED_SERVER_LIMIT: (
        to_translate("%(held)s: the limit of the shared mail server is reached. They will be sent later."),
        to_translate("View them"),
        LOG,
    ),
    HoldReason.NO_RECIPIENT_WANTS_IT: (
        to_translate("%(held)s: all recipients are paused or have not chosen the event."),
        to_translate("Choose recipients"),
        RECIPIENTS,
    ),
    HoldReason.SWITCHED_OFF: (to_translate("%(held)s: the event is off."), to_translate("Turn it on"), EVENTS),
}


def tenant_alerts(tenant: Tenant, setup: TenantSetup, *, is_new: bool) -> Sequence[Alert]:
    """Return the alerts of the tenant in scope, those that stop email first.

    For a new tenant the checklist shows what is missing, so these alerts leave it out.
    """
    held = deliveries_counts.held_by_reason()
    connection = setup.mailbox if setup.server and not setup.server.is_system else None
    found = [*_suspended(tenant, held)]
    if not is_new:
        found += _missing(setup, held)
    found += connection_alerts(connection, CONNECTION)
    found += [*_held(setup, held, connection), *_undelivered()]
    if not is_new:
        found += _unused_keys(setup)
    return [*found, *_expiring_keys(setup), *_rejected_requests(tenant)]


def connection_alerts(connection: MailboxStatus | None, endpoint: str) -> Iterator[Alert]:
    """Yield what a mail server's OAuth connection needs: a sign-in, or a new secret soon."""
    if connection is None:
        return
    if connection.problem:
        link = gettext("Connect the mailbox") if connection.state == "missing" else gettext("Sign in again")
        yield Alert("bad", connection.problem, link, endpoint)
    if connection.warning:
        tone = "bad" if connection.is_urgent else "warn"
        yield Alert(tone, connection.warning, gettext("Renew it"), endpoint)


def capped_number(count: int) -> str:
    """Return "1" or "1,204"; from the counting limit on, "More than …"."""
    number = decimal(count)
    return gettext("More than %(count)s", count=number) if count >= deliveries_counts.MAX_COUNT else number


def held_emails(count: int) -> str:
    """Return the sentence "2 emails are held."."""
    return ngettext("%(number)s email is held.", "%(number)s emails are held.", count, number=capped_number(count))


def _suspended(tenant: Tenant, held: Mapping[HoldReason, int]) -> Iterator[Alert]:
    if tenant.is_suspended:
        count = held.get(HoldReason.TENANT_SUSPENDED, 0)
        text = gettext("The tenant is suspended: events are recorded, but no email is sent.")
        yield Alert("warn", f"{text} {held_emails(count)}" if count else text)


def _missing(setup: TenantSetup, held: Mapping[HoldReason, int]) -> Iterator[Alert]:
    if setup.server is None and HoldReason.NO_MAIL_SERVER not in held:
        yield Alert("bad", gettext("No mail server is set up."), gettext("Set up a mail server"), SETTINGS)
    if not setup.addresses and HoldReason.NO_RECIPIENTS not in held:
        yield Alert("bad", gettext("There are no recipients."), gettext("Add recipients"), RECIPIENTS)
    if not setup.events_on:
        text = gettext("All events are off, so no email is sent.")
        yield Alert("bad", text, gettext("Turn on events"), EVENTS)
    if not setup.keys and not any(key.is_valid for key in api_keys.list_keys(None)):
        text = gettext("There is no valid PBX key, so no events can arrive.")
        yield Alert("bad", text, gettext("Connect a PBX"), "connect.show")


def _held(setup: TenantSetup, held: Mapping[HoldReason, int], connection: MailboxStatus | None) -> Iterator[Alert]:
    for reason, (sentence, link, endpoint) in HELD_ALERTS.items():
        if reason not in held:
            continue
        if reason is HoldReason.NO_RECIPIENTS and not setup.addresses:
            link, endpoint = to_translate("Enter recipients"), RECIPIENTS
        if reason is HoldReason.MAIL_SERVER_REJECTED and connection and connection.state != "connected":
            sentence = to_translate("%(held)s: the mailbox is not connected.")
            link, endpoint = to_translate("Sign in again"), CONNECTION
        count = held[reason]
        emails = ngettext("%(number)s email is held", "%(number)s emails are held", count, number=capped_number(count))
        url_values = {"outcome": str(Status.HELD)} if endpoint == LOG else {}
        yield Alert("warn", gettext(sentence, held=emails), gettext(link), endpoint, url_values)


def _undelivered() -> Iterator[Alert]:
    counts = deliveries_counts.undelivered()
    failed, expired = counts[Status.FAILED], counts[Status.EXPIRED]
    sentences = {
        Status.FAILED: ngettext(
            "%(number)s email failed in the last 24 hours.",
            "%(number)s emails failed in the last 24 hours.",
            failed,
            number=capped_number(failed),
        ),
        Status.EXPIRED: ngettext(
            "%(number)s email expired in the last 24 hours.",
            "%(number)s emails expired in the last 24 hours.",
            expired,
            number=capped_number(expired),
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


def _expiring_keys(setup: TenantSetup) -> Iterator[Alert]:
    now = clock.now()
    for key in setup.keys:
        if key.expires_at and key.expires_at - now <= EXPIRY_WARNING and not _has_successor(key, setup.keys):
            days = (key.expires_at - now).days
            soon = {
                0: gettext("Key “%(name)s” expires today.", name=key.name),
                1: gettext("Key “%(name)s” expires tomorrow.", name=key.name),
            }
            text = soon.get(days) or gettext("Key “%(name)s” expires in %(days)s days.", name=key.name, days=days)
            yield Alert("warn", text, gettext("Rotate the key"), "api_keys.list_keys")


def _has_successor(key: ApiKey, live: Sequence[ApiKey]) -> bool:
    return any(
        other.name == key.name and (other.expires_at is None or other.expires_at > (key.expires_at or other.expires_at))
        for other in live
        if other is not key
    )


def _rejected_requests(tenant: Tenant) -> Iterator[Alert]:
    if total := rejections.count_recent(tenant):
        text = ngettext(
            "%(number)s request was rejected in the last 7 days.",
            "%(number)s requests were rejected in the last 7 days.",
            total,
            number=capped_number(total),
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
