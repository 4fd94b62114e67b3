"""The tenants of the PBX: finding, adding, editing, suspending."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import available_timezones

from flask_babel import gettext
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError

from portal.accounts.models import Account, Membership
from portal.errors import Refusal
from portal.extensions import db
from portal.forms import has_control_characters
from portal.signals import mend
from portal.tenants.models import Tenant

PAGE = 50


def get(tenant_id: int) -> Tenant:
    """Return the tenant with this id, which exists."""
    return db.session.get_one(Tenant, tenant_id)


def find(domain: str) -> Tenant | None:
    """Return the tenant with this SIP domain, or None."""
    if has_control_characters(domain):
        return None
    return db.session.scalar(select(Tenant).where(Tenant.domain == domain.lower()))


def domains(tenant_ids: Collection[int]) -> Mapping[int, str]:
    """Return the SIP domains of these tenants, by id; of a tenant that is gone there is none."""
    tenants = db.session.scalars(select(Tenant).where(Tenant.id.in_(tenant_ids)))
    return {each.id: each.domain for each in tenants}


def search(text: str = "", after: str = "") -> tuple[Sequence[Tenant], bool]:
    """Return a page of tenants in the order of their domains, behind the domain `after`, and whether more follow."""
    if has_control_characters(text + after):
        return [], False
    query = select(Tenant).where(Tenant.domain > after).order_by(Tenant.domain).limit(PAGE + 1)
    if text:
        # The index knows all that is up to three characters long, and so nearly all that is longer.
        query = query.where(
            Tenant.grams.contains(func.grams(text)),
            or_(Tenant.name.icontains(text, autoescape=True), Tenant.domain.icontains(text, autoescape=True)),
        )
    tenants = db.session.scalars(query).all()
    return tenants[:PAGE], len(tenants) > PAGE


def administered_by(account: Account) -> Sequence[Tenant]:
    """Return the tenants that the account administers, by name."""
    query = select(Tenant).join(Membership, Membership.tenant_id == Tenant.id)
    return db.session.scalars(query.where(Membership.account_id == account.id).order_by(Tenant.name)).all()


def add(name: str, domain: str, time_zone: str) -> Tenant | Refusal:
    """Return the new tenant."""
    tenant = Tenant(name=name, domain=domain, time_zone=time_zone, locale="en")
    db.session.add(tenant)
    return _save(tenant)


def edit(tenant: Tenant, name: str, domain: str, time_zone: str) -> Tenant | Refusal:
    """Return the tenant with its new values."""
    tenant.name, tenant.domain, tenant.time_zone = name, domain, time_zone
    return _save(tenant)


def suspend(tenant: Tenant) -> None:
    """Stop the tenant's mails: its events are recorded and ignored."""
    tenant.suspended_at = tenant.suspended_at or datetime.now(UTC)
    db.session.commit()


def resume(tenant: Tenant) -> None:
    """Let the tenant's events send mail again."""
    tenant.suspended_at = None
    mend(tenant.id)
    db.session.commit()


def is_time_zone(name: str) -> bool:
    """Return whether the name is in the IANA time zone database."""
    return name in available_timezones()


def _save(tenant: Tenant) -> Tenant | Refusal:
    try:
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if "uq_tenants_domain" in str(error.orig):
            return Refusal("domain", gettext("Another tenant has this domain already."))
        raise
    return tenant
