"""Finding, adding, editing and suspending tenants."""

from collections.abc import Collection, Mapping, Sequence

from flask_babel import gettext
from sqlalchemy import ColumnElement, FromClause, and_, false, func, or_, select
from sqlalchemy.exc import IntegrityError

from portal.accounts.models import Account, Membership
from portal.database import clock
from portal.errors import Refusal
from portal.extensions import db
from portal.signals import notify_settings_changed
from portal.tenants.models import Tenant
from portal.web.forms import has_control_characters


def get(tenant_id: int) -> Tenant:
    """Return the tenant with this id, which exists."""
    return db.session.get_one(Tenant, tenant_id)


def find(domain: str) -> Tenant | None:
    """Return the tenant with this SIP domain, or None."""
    if has_control_characters(domain):
        return None
    return db.session.scalar(select(Tenant).where(Tenant.domain == domain.lower()))


def by_id(tenant_ids: Collection[int]) -> Mapping[int, Tenant]:
    """Return these tenants by id, without those that no longer exist."""
    tenants = db.session.scalars(select(Tenant).where(Tenant.id.in_(tenant_ids))) if tenant_ids else ()
    return {tenant.id: tenant for tenant in tenants}


def domains(tenant_ids: Collection[int]) -> Mapping[int, str]:
    """Return the SIP domains of these tenants by id, without tenants that no longer exist."""
    return {tenant_id: tenant.domain for tenant_id, tenant in by_id(tenant_ids).items()}


def contains_text(tenants: FromClause, text: str) -> ColumnElement[bool]:
    """Return the condition that a tenant's name or domain contains the text, for rows with the columns of `Tenant`."""
    if has_control_characters(text):
        return false()
    # The index finds texts of up to three characters, and narrows the search for longer ones.
    columns = tenants.c
    return and_(
        columns.search_trigrams.contains(func.trigrams(text)),
        or_(columns.name.icontains(text, autoescape=True), columns.domain.icontains(text, autoescape=True)),
    )


def tenants_of(account: Account) -> Sequence[Tenant]:
    """Return the tenants in which the account has a role, by name."""
    query = select(Tenant).join(Membership, Membership.tenant_id == Tenant.id)
    return db.session.scalars(query.where(Membership.account_id == account.id).order_by(Tenant.name)).all()


def add(name: str, domain: str, time_zone: str, realm: str | None = None, language: str = "en") -> Tenant | Refusal:
    """Return the new tenant, or why it cannot be added."""
    tenant = Tenant(name=name, domain=domain, realm=realm or None, time_zone=time_zone, language=language)
    db.session.add(tenant)
    return _save(tenant)


def newest_time_zone() -> str:
    """Return the time zone of the tenant that was added last: the next one is probably in the same."""
    return db.session.scalar(select(Tenant.time_zone).order_by(Tenant.id.desc()).limit(1)) or "UTC"


def edit(tenant: Tenant, name: str, domain: str, time_zone: str, realm: str | None = None) -> Tenant | Refusal:
    """Return the tenant with its new values, or why it cannot be saved."""
    tenant.name, tenant.domain, tenant.time_zone, tenant.realm = name, domain, time_zone, realm or None
    saved = _save(tenant)
    if isinstance(saved, Refusal):
        db.session.refresh(tenant)
    return saved


def suspend(tenant: Tenant) -> None:
    """Stop the tenant's email: its events are recorded, but nothing is sent."""
    tenant.suspended_at = tenant.suspended_at or clock.now()
    db.session.commit()


def resume(tenant: Tenant) -> Refusal | None:
    """Turn the tenant's email on again, unless it is being deleted."""
    if tenant.deletion_requested_at:
        return Refusal("", gettext("%(name)s is being deleted.", name=tenant.name))
    tenant.suspended_at = None
    notify_settings_changed(tenant.id)
    db.session.commit()
    return None


def _save(tenant: Tenant) -> Tenant | Refusal:
    try:
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if "uq_tenants_domain" in str(error.orig):
            return Refusal("domain", gettext("Another tenant already has this domain."))
        raise
    return tenant
