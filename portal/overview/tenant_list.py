"""The list of tenants: whether each one's email works, and if not, why. With filters, sorting and pages by key.

A page costs as much as its rows, unless it is sorted or filtered by what has to be looked up for each tenant: then it
costs a few index entries per tenant, however many events and emails there are.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

from flask_babel import gettext, ngettext
from sqlalchemy import ColumnElement, Subquery, bindparam, cast, extract, func, literal, select, text, tuple_
from sqlalchemy import types as sql_types
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import FromClause

from portal.accounts.models import ADMINISTRATOR, Account, Membership
from portal.alerts.conditions import MAX_COUNT
from portal.database import clock
from portal.database.scope import every_tenant
from portal.deliveries.status import HoldReason
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth import service as oauth_service
from portal.overview.alerts import RECENT_PERIOD
from portal.tenants import service as tenant_service
from portal.web import csv_export
from portal.web.filters import decimal
from portal.web.forms import has_control_characters
from portal.web.i18n import to_translate
from portal.web.pagination import Page

MAX_HELD: Final = 1000  # counted for a tenant
MAX_COUNTED: Final = 1000  # tenants that match
ANY_PROBLEM: Final = "problem"  # the filter that finds the tenants with problems
MAX_DIGITS: Final = 18  # of a number in a key: Postgres reads it as a bigint
SEPARATOR: Final = "~"  # in a key, between the value and the domain, which has no such character


class EmailProblem(IntEnum):
    """What is wrong with a tenant's email, the worst first."""

    REJECTED = 0
    NOT_CONNECTED = 1
    NO_SERVER = 2
    NO_RECIPIENTS = 3
    UNDELIVERED = 4
    HELD = 5
    PAUSED = 6


class Health(StrEnum):
    """Whether a tenant's email works: what its worst problem means."""

    NOT_SENDING = "not_sending"
    FAILING = "failing"
    DELAYED = "delayed"
    WORKING = "working"
    UNUSED = "unused"  # all events are off
    SUSPENDED = "suspended"


# The ranks of `FACTS.rank`: a tenant's worst problem, or one of the last three.
HEALTH_OF_RANK: Final = (
    *(Health.NOT_SENDING,) * 4,
    Health.FAILING,
    *(Health.DELAYED,) * 2,
    Health.WORKING,
    Health.UNUSED,
    Health.SUSPENDED,
)
# How many emails of each tenant failed or expired since a time, of the newest up to a limit.
# The conditions and times as in `alerts.UNDELIVERED`.
UNDELIVERED_BY_TENANT: Final = """
    SELECT tenant_id, count(*) AS count FROM (
        (SELECT tenant_id FROM deliveries WHERE status = 'failed' AND last_attempt_at >= :since {of}
            ORDER BY last_attempt_at DESC LIMIT :most)
        UNION ALL
        (SELECT tenant_id FROM deliveries WHERE status = 'expired' AND expires_at >= :since {of}
            ORDER BY expires_at DESC LIMIT :most)
    ) AS found
    GROUP BY tenant_id
"""
# The unused joins of a query are not executed: Postgres sees that each finds one row at most. `{of}` limits those that
# look at all tenants first.
FACTS: Final = f"""
    SELECT tenants.id, tenants.name, tenants.domain, tenants.search_trigrams,
        server.kind AS server, server.host, server.state AS server_state,
        coalesce(held.count, 0) AS held, coalesce(undelivered.count, 0) AS undelivered,
        coalesce(administrators.count, 0) AS administrators, last_event.received_at AS last_event_at,
        problems.found AS problems,
        CASE WHEN tenants.suspended_at IS NOT NULL THEN 9
            ELSE coalesce(problems.found[1], CASE WHEN settings.events_on THEN 7 ELSE 8 END) END AS rank
    FROM tenants
    LEFT JOIN mail_servers AS own ON own.tenant_id = tenants.id
    LEFT JOIN oauth_connections AS connection ON connection.tenant_id = tenants.id
    LEFT JOIN ({UNDELIVERED_BY_TENANT}) AS undelivered ON undelivered.tenant_id = tenants.id
    CROSS JOIN LATERAL (
        SELECT own.host,
            CASE WHEN own.id IS NOT NULL THEN 'own' WHEN :shared_state <> 'none' THEN 'shared' ELSE 'none' END AS kind,
            CASE WHEN own.id IS NULL THEN :shared_state
                WHEN own.rejected_at IS NOT NULL THEN 'rejected'
                WHEN own.auth_mode = 'oauth' AND (connection.connected_at IS NULL OR connection.lapsed_at IS NOT NULL)
                    THEN 'not_connected'
                WHEN own.paused_until > now() THEN 'paused' ELSE 'working' END AS state
    ) AS server
    LEFT JOIN (
        SELECT tenant_id, true AS events_on, bool_or(audience <> 'user') AS need_recipients
        FROM notification_settings WHERE enabled {{of}} GROUP BY tenant_id
    ) AS settings ON settings.tenant_id = tenants.id
    LEFT JOIN LATERAL (
        SELECT count(*) AS count FROM (
            SELECT FROM deliveries
            WHERE deliveries.tenant_id = tenants.id AND reason IS NOT NULL AND reason <> '{HoldReason.QUIET_HOURS}'
            LIMIT :max_held
        ) AS found
    ) AS held ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS count FROM memberships JOIN accounts ON accounts.id = memberships.account_id
        WHERE memberships.tenant_id = tenants.id AND memberships.role = 'administrator' AND accounts.active
    ) AS administrators ON true
    LEFT JOIN LATERAL (
        SELECT max(received_at) AS received_at FROM (
            SELECT received_at FROM events WHERE events.tenant_id = tenants.id AND NOT is_sample
            ORDER BY events.tenant_id DESC, id DESC LIMIT 1
        ) AS newest
    ) AS last_event ON true
    CROSS JOIN LATERAL (
        SELECT array_remove(ARRAY[
            CASE WHEN server.state = 'rejected' AND (own.id IS NOT NULL OR settings.events_on) THEN 0 END,
            CASE WHEN server.state = 'not_connected' AND (own.id IS NOT NULL OR settings.events_on) THEN 1 END,
            CASE WHEN server.state = 'none' AND settings.events_on THEN 2 END,
            CASE WHEN settings.need_recipients AND (
                SELECT tenant_id FROM recipients WHERE recipients.tenant_id = tenants.id LIMIT 1
            ) IS NULL THEN 3 END,
            CASE WHEN undelivered.count > 0 THEN 4 END,
            CASE WHEN held.count > 0 THEN 5 END,
            CASE WHEN server.state = 'paused' AND (own.id IS NOT NULL OR settings.events_on) THEN 6 END
        ], NULL) AS found
    ) AS problems
"""  # noqa: S608 (contains no input)
OF_THESE: Final = "AND tenant_id = ANY(:ids)"
FACTS_OF_THESE: Final = "WHERE tenants.id = ANY(:ids)"
NUMBERS: Final = ("id", "held", "undelivered", "administrators", "rank")
# How the list can be sorted, with the names in the URL; "-" in front of one reverses it.
SORTABLE: Final = ("name", "health", "server", "held", "last_event", "administrators")
DEFAULT_SORT: Final = "name"
SENTENCES: Final = {  # for a tenant's own mail server, and for the system's
    EmailProblem.REJECTED: (
        to_translate("Its mail server rejects the settings."),
        to_translate("The system's mail server rejects its settings."),
    ),
    EmailProblem.NOT_CONNECTED: (
        to_translate("No mailbox is connected to its mail server."),
        to_translate("No mailbox is connected to the system's mail server."),
    ),
    EmailProblem.NO_SERVER: (to_translate("Events are on, but no mail server is set up."),) * 2,
    EmailProblem.NO_RECIPIENTS: (to_translate("Events are on, but there are no recipients."),) * 2,
    EmailProblem.PAUSED: (
        to_translate("Its mail server is not responding at the moment."),
        to_translate("The system's mail server is not responding at the moment."),
    ),
}


@dataclass(frozen=True, slots=True)
class TenantFilter:
    """Which tenants to list. An empty field finds all.

    `text` is part of the name or the domain, `health` a `Health` or `ANY_PROBLEM`, and `server` what sends the email:
    "own", "shared" or "none".
    """

    text: str = ""
    health: str = ""
    server: str = ""
    without_administrator: bool = False


@dataclass(frozen=True, slots=True)
class ListedTenant:
    """A tenant in the list. `held` is `MAX_HELD` + 1 if there are more emails than are counted."""

    id: int
    name: str
    domain: str
    health: Health
    problems: Sequence[tuple[str, str]]  # the tone and the sentence of each, the worst first
    server: str
    host: str
    held: int
    last_event_at: datetime | None
    administrators: Sequence[str]

    @property
    def held_number(self) -> str:
        """The number of held emails as it is shown."""
        return capped(self.held, MAX_HELD)


CSV_COLUMNS: Final[Mapping[str, Callable[[ListedTenant], Any]]] = {
    "domain": lambda tenant: tenant.domain,
    "name": lambda tenant: tenant.name,
    "health": lambda tenant: tenant.health,
    "problems": lambda tenant: " ".join(sentence for _, sentence in tenant.problems),
    "mail_server": lambda tenant: tenant.server,
    "host": lambda tenant: tenant.host,
    "held": lambda tenant: tenant.held,
    "last_event_at": lambda tenant: (
        tenant.last_event_at.astimezone(UTC).isoformat(timespec="seconds") if tenant.last_event_at else ""
    ),
    "administrators": lambda tenant: ", ".join(tenant.administrators),
}


class TenantList:
    """The tenants that match a filter, in an order."""

    def __init__(self, filters: TenantFilter, sort: str = DEFAULT_SORT) -> None:
        self.is_descending = sort.startswith("-")
        self.sorted_by = sort.removeprefix("-") if sort.removeprefix("-") in SORTABLE else DEFAULT_SORT
        self._facts = _facts()
        self._conditions = _conditions(filters, self._facts)

    def count(self, most: int | None = None) -> int:
        """Return how many tenants match, or `most` if there are more."""
        matching = select(self._facts.c.id).where(*self._conditions).limit(most).subquery()
        with every_tenant():
            return db.session.scalar(select(func.count()).select_from(matching)) or 0

    def page(self, after: str = "", *, size: int) -> Page[ListedTenant, str]:
        """Return the tenants after the one with this key. A key that is none begins with the first tenant."""
        value, domain = _sort_value(self.sorted_by, self._facts), self._facts.c.domain
        query = select(self._facts.c.id, value, domain).where(*self._conditions).limit(size + 1)
        key = _parse_key(after, value)
        if key is not None:
            here = tuple_(value, domain)
            query = query.where(here < key if self.is_descending else here > key)
        order = (value.desc(), domain.desc()) if self.is_descending else (value, domain)
        with every_tenant():
            rows = db.session.execute(query.order_by(*order)).all()
        found = Page.of(rows, size, lambda row: f"{row[1]}{SEPARATOR}{row[2]}")
        return Page(load([row[0] for row in found.rows]), found.next_key)

    def read_cells(self, after: str | None) -> Page[Sequence[Any], str]:
        """Return the cells of `CSV_COLUMNS` of the tenants after the one with this key."""
        page = self.page(after or "", size=csv_export.BATCH_SIZE)
        return Page([[cell(tenant) for cell in CSV_COLUMNS.values()] for tenant in page.rows], page.next_key)


def load(ids: Sequence[int]) -> Sequence[ListedTenant]:
    """Return those of these tenants that exist, in this order."""
    if not ids:
        return []
    with every_tenant():
        rows = {row.id: row for row in db.session.execute(select(_facts(ids)))}
        administrators = administrators_of(ids)
    return [_listed(rows[tenant_id], administrators[tenant_id]) for tenant_id in ids if tenant_id in rows]


def find_worst(size: int) -> tuple[Sequence[int], int]:
    """Return the ids of the tenants with the worst problems, the worst first, and how many tenants have any."""
    facts = _facts()
    query = select(facts.c.id, func.count().over()).where(*_conditions(TenantFilter(health=ANY_PROBLEM), facts))
    with every_tenant():
        rows = db.session.execute(query.order_by(facts.c.rank, facts.c.domain).limit(size)).all()
    return [row[0] for row in rows], rows[0][1] if rows else 0


def administrators_of(tenant_ids: Collection[int]) -> Mapping[int, Sequence[str]]:
    """Return the email addresses of the administrators of each of these tenants, without deactivated ones."""
    query = (
        select(Membership.tenant_id, Account.email)
        .join(Account, Account.id == Membership.account_id)
        .where(Membership.tenant_id.in_(tenant_ids), Membership.role == ADMINISTRATOR, Account.active)
        .order_by(Account.email)
    )
    found = defaultdict[int, list[str]](list)
    for tenant_id, email in db.session.execute(query):
        found[tenant_id].append(email)
    return found


def count_dependent() -> int:
    """Return how many tenants send email only through the shared mail server: events are on, and they have no own."""
    query = """
        SELECT count(*) FROM tenants WHERE suspended_at IS NULL
            AND EXISTS (SELECT FROM notification_settings AS on_ WHERE on_.tenant_id = tenants.id AND enabled)
            AND NOT EXISTS (SELECT FROM mail_servers AS own WHERE own.tenant_id = tenants.id)
    """
    with every_tenant():
        return db.session.scalar(text(query)) or 0


def _facts(ids: Sequence[int] | None = None) -> Subquery:
    """Return the facts of all tenants, or of these."""
    values: dict[str, Any] = {
        "shared_state": _state_of_shared_server(),
        "max_held": MAX_HELD + 1,
        "since": clock.now() - RECENT_PERIOD,
        "most": MAX_COUNT,
    }
    arrays = [] if ids is None else [bindparam("ids", list(ids), type_=ARRAY(sql_types.Integer))]
    columns: dict[str, Any] = dict.fromkeys(("name", "domain", "server", "host", "server_state"), sql_types.Text())
    columns |= dict.fromkeys(NUMBERS, sql_types.BigInteger())
    columns |= {"last_event_at": sql_types.DateTime(timezone=True), "problems": ARRAY(sql_types.Integer)}
    columns["search_trigrams"] = ARRAY(sql_types.Text())
    facts = text(FACTS.format(of="") if ids is None else FACTS.format(of=OF_THESE) + FACTS_OF_THESE)
    return facts.bindparams(*arrays, **values).columns(**columns).subquery("facts")


def _state_of_shared_server() -> str:
    server = mail_server_service.shared_server()
    connection = oauth_service.status(server)
    state = mail_server_service.server_status(server).state
    return "not_connected" if connection and connection.problem and state != "rejected" else state


def _conditions(filters: TenantFilter, facts: FromClause) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.text:
        found.append(tenant_service.contains_text(facts, filters.text))
    if filters.health == ANY_PROBLEM:
        found.append(facts.c.rank <= int(max(EmailProblem)))
    elif filters.health:
        ranks = [rank for rank, health in enumerate(HEALTH_OF_RANK) if health == filters.health]
        found.append(facts.c.rank.in_(ranks))
    if filters.server:
        found.append(facts.c.server == filters.server)
    if filters.without_administrator:
        found.append(facts.c.administrators == 0)
    return found


def _sort_value(name: str, facts: FromClause) -> ColumnElement[Any]:
    columns = facts.c
    match name:
        case "health":
            return columns.rank
        case "server":
            return func.concat(columns.server, " ", columns.host)
        case "last_event":
            microseconds = extract("epoch", columns.last_event_at) * literal(1_000_000)
            return func.coalesce(cast(microseconds, sql_types.BigInteger()), 0)
        case "held" | "administrators":
            return columns[name]
        case _:
            return func.lower(columns.name)


def _parse_key(key: str, value: ColumnElement[Any]) -> ColumnElement[Any] | None:
    if not key or has_control_characters(key):
        return None
    last, _, domain = key.rpartition(SEPARATOR)
    if isinstance(value.type, sql_types.Integer):
        is_number = last.isascii() and last.isdigit() and len(last) <= MAX_DIGITS
        return tuple_(literal(int(last)), literal(domain)) if is_number else None
    return tuple_(literal(last), literal(domain))


def _listed(row: Any, administrators: Sequence[str]) -> ListedTenant:
    health = HEALTH_OF_RANK[row.rank]
    problems = [] if health is Health.SUSPENDED else [_describe(EmailProblem(problem), row) for problem in row.problems]
    shown = (row.server, row.host or "", row.held, row.last_event_at, administrators)
    return ListedTenant(row.id, row.name, row.domain, health, problems, *shown)


def _describe(problem: EmailProblem, row: Any) -> tuple[str, str]:
    """Return the tone and the sentence of a problem."""
    tone = "warn" if problem in (EmailProblem.HELD, EmailProblem.PAUSED) else "bad"
    if problem is EmailProblem.UNDELIVERED:
        sentence = ngettext(
            "%(number)s email was not delivered in the last 24 hours.",
            "%(number)s emails were not delivered in the last 24 hours.",
            row.undelivered,
            number=capped(row.undelivered, MAX_COUNT - 1),
        )
        return tone, sentence
    if problem is EmailProblem.HELD:
        number = capped(row.held, MAX_HELD)
        return tone, ngettext("%(number)s email is held.", "%(number)s emails are held.", row.held, number=number)
    of_own, of_shared = SENTENCES[problem]
    sentence = of_own if row.server == "own" else of_shared
    return tone, gettext(sentence)


def capped(count: int, most: int) -> str:
    """Return the number, or "More than …" if it is more than are counted."""
    return gettext("More than %(count)s", count=decimal(most)) if count > most else decimal(count)
