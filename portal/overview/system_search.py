"""The search of system administrators: tenants, people, emails and events of all tenants."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import selectinload

from portal.accounts.models import Account, Membership
from portal.database.scope import every_tenant
from portal.deliveries.models import Delivery, DeliveryRecipient, RecordedEvent
from portal.deliveries.search import id_in_message_id
from portal.extensions import db
from portal.notifications.models import Recipient
from portal.overview.tenant_list import ListedTenant, TenantFilter, TenantList
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web.pasted_emails import parse_email

MAX_FOUND: Final = 10
HEADER_NAME: Final = re.compile(r"message-id:\s*", re.IGNORECASE)
EVENT_COLUMNS: Final = (RecordedEvent.tenant_id, RecordedEvent.id, RecordedEvent.type, RecordedEvent.received_at)


class FoundAccount(NamedTuple):
    """An account and the ids of the tenants that it administers, by name."""

    account: Account
    tenant_ids: Sequence[int]


class FoundEvent(NamedTuple):
    """An event of a tenant."""

    tenant_id: int
    id: UUID
    type: str
    received_at: datetime


class FoundEmail(NamedTuple):
    """An email to a recipient, what became of it, and its event."""

    event: FoundEvent
    email: str
    status: str


class SearchResults(NamedTuple):
    """What was found, at most `MAX_FOUND` of each kind. `tenants` are all the others' tenants, by id."""

    listed: Sequence[ListedTenant]
    listed_count: int
    accounts: Sequence[FoundAccount]
    recipients: Sequence[Recipient]
    emails: Sequence[FoundEmail]
    events: Sequence[FoundEvent]
    tenants: Mapping[int, Tenant]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.listed or self.accounts or self.recipients or self.emails or self.events)


def search(text: str) -> SearchResults:
    """Return what has this text in its name or domain, or this email address, Message-ID or event ID."""
    text = HEADER_NAME.sub("", text.strip(), count=1)
    matching = TenantList(TenantFilter(text=text))
    events, emails = _events_with_id(text), _possible_emails(text)
    accounts, recipients, sent = _accounts(emails), _recipients(emails), _newest_emails_to(emails)
    tenant_ids = {event.tenant_id for event in events} | {found.event.tenant_id for found in sent}
    tenant_ids |= {recipient.tenant_id for recipient in recipients}
    tenant_ids |= {tenant_id for found in accounts for tenant_id in found.tenant_ids}
    return SearchResults(
        matching.page(size=MAX_FOUND).rows,
        matching.count(),
        accounts,
        recipients,
        sent,
        events,
        tenant_service.by_id(tenant_ids),
    )


def _possible_emails(text: str) -> Sequence[str]:
    """Return how an email address may be stored: with the capital letters that were typed, or without."""
    try:
        email = parse_email(text)
    except ValueError:
        return ()
    return sorted({email, email.lower()})


def _accounts(emails: Sequence[str]) -> Sequence[FoundAccount]:
    with_roles = select(Account).where(Account.email.in_(emails)).options(selectinload(Account.roles))
    accounts = db.session.scalars(with_roles).all() if emails else ()
    query = select(Membership.account_id, Membership.tenant_id).join(Tenant, Tenant.id == Membership.tenant_id)
    query = query.where(Membership.account_id.in_([account.id for account in accounts])).order_by(Tenant.name)
    administered = db.session.execute(query.limit(MAX_FOUND * len(accounts))).all() if accounts else ()
    return [
        FoundAccount(account, [tenant_id for account_id, tenant_id in administered if account_id == account.id])
        for account in accounts
    ]


def _recipients(emails: Sequence[str]) -> Sequence[Recipient]:
    if not emails:
        return ()
    query = select(Recipient).where(Recipient.email.in_(emails)).order_by(Recipient.tenant_id).limit(MAX_FOUND)
    with every_tenant():
        return db.session.scalars(query).all()


def _events_with_id(text: str) -> Sequence[FoundEvent]:
    """Return the events with this event ID, whoever gave it to them, or that an email with this Message-ID is about."""
    queries: list[Select[*tuple[Any, ...]]] = [
        select(*EVENT_COLUMNS).where(RecordedEvent.external_id == text).limit(MAX_FOUND)
    ]
    if (delivery_id := id_in_message_id(text)) is not None:
        of_delivery = select(Delivery.event_id).where(Delivery.id == delivery_id)
        queries.append(select(*EVENT_COLUMNS).where(RecordedEvent.id.in_(of_delivery)))
    with suppress(ValueError):  # the portal's own ID, as in the URL of the event's page
        queries.append(select(*EVENT_COLUMNS).where(RecordedEvent.id == UUID(text)))
    with every_tenant():
        found = {FoundEvent(*row) for query in queries for row in db.session.execute(query)}
    return sorted(found, key=lambda event: event.received_at, reverse=True)[:MAX_FOUND]


def _newest_emails_to(emails: Sequence[str]) -> Sequence[FoundEmail]:
    """Return the newest emails to any of these addresses, newest first."""
    found: list[Any] = []
    with every_tenant():
        for email in emails:
            newest = (
                select(DeliveryRecipient.delivery_id, DeliveryRecipient.email, DeliveryRecipient.status)
                .where(DeliveryRecipient.email == email)
                .order_by(DeliveryRecipient.delivery_id.desc())
                .limit(MAX_FOUND)
                .subquery()
            )
            query = (
                select(*EVENT_COLUMNS, newest.c.email, newest.c.status, newest.c.delivery_id)
                .join(Delivery, Delivery.id == newest.c.delivery_id)
                .join(RecordedEvent, RecordedEvent.id == Delivery.event_id)
            )
            found += db.session.execute(query)
    found.sort(key=lambda row: row.delivery_id, reverse=True)
    return [FoundEmail(FoundEvent(*row[:4]), row.email, row.status) for row in found[:MAX_FOUND]]
