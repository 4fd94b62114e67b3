"""Who has trouble, and who is silent, among all tenants: the worst first, and never more than a page of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from flask_babel import gettext, ngettext
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import aliased

from portal.database import every_tenant
from portal.deliveries import unsent
from portal.extensions import db
from portal.mail_servers import selection
from portal.mail_servers.models import MailServer
from portal.notifications.models import NotificationSwitch
from portal.overview.attention import SILENT_AFTER, held_mails, number
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant

SHOWN: Final = 10
MOST: Final = 1000  # of a kind of trouble


class Severity(IntEnum):
    """How bad a trouble is, the worst first."""

    REJECTED = 0
    NO_SERVER = 1
    UNDELIVERED = 2
    HELD = 3
    PAUSED = 4


@dataclass(frozen=True, slots=True)
class Trouble:
    """A tenant, and what is wrong there, each with its tone."""

    tenant: Tenant
    findings: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Silence:
    """A tenant whose PBX does not call any more: `since` its last call or, where there was `never` one, its key."""

    tenant: Tenant
    since: datetime
    never: bool


@dataclass(frozen=True, slots=True)
class Worst:
    """The first of a list, and how many more there are."""

    shown: Sequence[Trouble]
    more: int


def worst() -> Worst:
    """Return the tenants in trouble."""
    found: dict[int, dict[Severity, int]] = defaultdict(dict)
    for severity, counts in _counts().items():
        for tenant_id, count in counts.items():
            found[tenant_id][severity] = count
    ranked = sorted(found, key=lambda each: (min(found[each]), -max(found[each].values()), each))
    tenants = _tenants(ranked[:SHOWN])
    shown = [
        Trouble(tenants[each], [_words(*finding) for finding in sorted(found[each].items())])
        for each in ranked[:SHOWN]
        if each in tenants
    ]
    return Worst(shown, max(0, len(ranked) - SHOWN))


def silent() -> Sequence[Silence]:
    """Return the tenants with a live key with which nobody has called for a week, those that fell silent last first."""
    now = datetime.now(UTC)
    other = aliased(PbxKey)
    quiet_since = func.greatest(PbxKey.last_used_at, PbxKey.created_at)
    live = or_(PbxKey.expires_at.is_(None), PbxKey.expires_at > now)
    used_later = select(func.count()).where(
        other.tenant_id == PbxKey.tenant_id,
        other.revoked_at.is_(None),
        func.greatest(other.last_used_at, other.created_at) > quiet_since,
    )
    query = (
        select(PbxKey.tenant_id, quiet_since, PbxKey.last_used_at.is_(None))
        .where(PbxKey.tenant_id.is_not(None), PbxKey.revoked_at.is_(None), live, used_later.scalar_subquery() == 0)
        .where(quiet_since < now - SILENT_AFTER)
        .order_by(quiet_since.desc())
        .limit(SHOWN)
    )
    with every_tenant():
        rows = {tenant_id: (since, never) for tenant_id, since, never in db.session.execute(query) if tenant_id}
    tenants = _tenants(rows)
    return [Silence(tenants[each], *rows[each]) for each in rows if each in tenants]


def _counts() -> Mapping[Severity, Mapping[int, int]]:
    with every_tenant():
        return {
            Severity.REJECTED: _servers(MailServer.rejected_at.is_not(None)),
            Severity.NO_SERVER: _without_server(),
            Severity.UNDELIVERED: unsent.undelivered_by_tenant(),
            Severity.HELD: unsent.held_by_tenant(),
            Severity.PAUSED: _servers(MailServer.paused_until > func.now(), MailServer.rejected_at.is_(None)),
        }


def _servers(*conditions: ColumnElement[bool]) -> dict[int, int]:
    query = select(MailServer.tenant_id).where(MailServer.tenant_id.is_not(None), *conditions).limit(MOST)
    return {tenant_id: 0 for tenant_id in db.session.scalars(query) if tenant_id is not None}


def _without_server() -> dict[int, int]:
    if selection.shared() is not None:
        return {}
    on = select(NotificationSwitch.tenant_id).where(NotificationSwitch.enabled).distinct().subquery()
    own = select(MailServer.id).where(MailServer.tenant_id == on.c.tenant_id).scalar_subquery()
    query = select(on.c.tenant_id).where(own.is_(None)).limit(MOST)
    return dict.fromkeys(db.session.scalars(query), 0)


def _words(severity: Severity, count: int) -> tuple[str, str]:
    match severity:
        case Severity.REJECTED:
            return "bad", gettext("Its mail server rejects the settings.")
        case Severity.NO_SERVER:
            return "bad", gettext("Events are on, and there is no mail server.")
        case Severity.UNDELIVERED:
            return "bad", _undelivered(count)
        case Severity.HELD:
            return "warn", held_mails(count)
        case Severity.PAUSED:
            return "warn", gettext("Its mail server does not answer just now.")


def _undelivered(count: int) -> str:
    return ngettext(
        "%(number)s mail was not delivered in the last 24 hours.",
        "%(number)s mails were not delivered in the last 24 hours.",
        count,
        number=number(count),
    )


def _tenants(ids: Iterable[int]) -> Mapping[int, Tenant]:
    return {each.id: each for each in db.session.scalars(select(Tenant).where(Tenant.id.in_(list(ids))))}
