"""The search of system administrators: tenants, people, emails and events of all tenants."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from portal.accounts.models import Account, Membership
from portal.database.scope import every_tenant
from portal.deliveries import lookup
from portal.deliveries.lookup import MAX_FOUND, FoundEmail, FoundEvent
from portal.extensions import db
from portal.notifications.models import Recipient
from portal.overview.tenant_list import ListedTenant, TenantFilter, TenantList
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.web.pasted_emails import parse_email

HEADER_NAME: Final = re.compile(r"message-id:\s*", re.IGNORECASE)


class FoundAccount(NamedTuple):
    """An account and the ids of the tenants that it administers, by name."""

    account: Account
    tenant_ids: Sequence[int]


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
    events, emails = lookup.events_with_id(text), _possible_emails(text)
    accounts, recipients = _accounts(emails), _recipients(emails)
    sent = lookup.newest_emails_to(emails)
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
