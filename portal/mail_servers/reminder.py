"""The pop-up that asks to configure a mail server where none can be used."""

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert

from portal.accounts.models import Account
from portal.extensions import db
from portal.mail_servers.models import ReminderDismissal
from portal.mail_servers.selection import in_force
from portal.tenants.models import Tenant


def is_due(tenant: Tenant, account: Account) -> bool:
    """Return whether the tenant has no mail server to use and the account wants to be told."""
    dismissed = select(
        exists().where(ReminderDismissal.tenant_id == tenant.id, ReminderDismissal.account_id == account.id)
    )
    return in_force(tenant.id) is None and not db.session.scalar(dismissed)


def dismiss(tenant: Tenant, account: Account) -> None:
    """Never show the pop-up to this account in this tenant's workspace again."""
    row = {"tenant_id": tenant.id, "account_id": account.id}
    db.session.execute(insert(ReminderDismissal).values(row).on_conflict_do_nothing())
    db.session.commit()
