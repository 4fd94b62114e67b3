"""Inviting the people of an import: its transaction adds the invitations, a worker emails them.

The limits of single invitations do not apply to them: only system administrators import, and see before how many emails
that sends.
"""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select

from portal.accounts import emails
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.audit.log import record
from portal.crypto import hash_token, new_token
from portal.database import clock, process_locks
from portal.database.scope import every_tenant
from portal.extensions import db
from portal.mail_servers import account_email
from portal.mail_servers.smtp.mime import MessageContent
from portal.people import invitations
from portal.people.models import Invitation
from portal.signals import transfer_due
from portal.tenants.models import Tenant
from portal.web.i18n import translated

LOCK = 0x1E7A1  # of Postgres; no other lock of a process has this number
MAX_EMAILS = 50  # of one run in a worker, which has other work too


class Invited(NamedTuple):
    """Who is invited to a tenant, in which role."""

    tenant: Tenant
    email: str
    role: str


def init_app() -> None:
    """Send the emails whenever a worker says so."""
    transfer_due.connect(send_due)


def invite_later(people: Collection[Invited], *, by: Account | None) -> None:
    """Invite people, without committing it. None is the command line.

    Nothing leads to an invitation before a worker has emailed it.
    """
    addresses = {person.email for person in people}
    with_account = set(db.session.scalars(select(Account.email).where(Account.email.in_(addresses))))
    for email in sorted(addresses - with_account):
        account_service.new(email)
    with every_tenant():
        query = select(Invitation).where(Invitation.tenant_id.in_({person.tenant.id for person in people}))
        known = {(row.tenant_id, row.email): row for row in db.session.scalars(query)}
        for tenant, email, role in people:
            invitation = known.get((tenant.id, email)) or Invitation(tenant_id=tenant.id, email=email)
            invitation.role, invitation.invited_by_id, invitation.is_due = role, by.id if by else None, True
            invitation.invited_by = (
                invitations.name_of_inviter(by) if by else translated(tenant.language, "The system administrator")
            )
            invitation.token_hash, invitation.expires_at = hash_token(new_token()), clock.now() + invitations.VALID_FOR
            db.session.add(invitation)
            record("invitation.sent", email, tenant_id=tenant.id, changes={"role": [None, role]})


def send_due(_sender: object = None) -> None:
    """Send the emails of added invitations. If the system's mail server does not work, they stay due."""
    with every_tenant():
        due = db.session.scalars(select(Invitation.id).where(Invitation.is_due).limit(MAX_EMAILS)).all()
        lock = process_locks.take_any([LOCK]) if due and account_email.obstacle() is None else None
        if lock is None:
            return
        try:
            for invitation_id in due:
                if not _send(invitation_id):
                    break
        finally:
            lock.release()


def _send(invitation_id: int) -> bool:
    """Send the email of an invitation, and return whether the mail server can be used for others."""
    invitation = db.session.get(Invitation, invitation_id, populate_existing=True)
    if invitation is None or not invitation.is_due:  # withdrawn meanwhile, or sent
        return True
    account, tenant = account_service.find(invitation.email), db.session.get_one(Tenant, invitation.tenant_id)
    token = invitations.renew(invitation)
    if account is None:
        db.session.commit()
        return True
    invitation.is_due = True  # until it is sent
    message, values = invitations.message_of(invitation, tenant, token)
    content, email = MessageContent.of(*emails.render(message, account, **values)), invitation.email
    db.session.commit()
    failed = account_email.send(content, email)
    if failed and failed.is_about_server:
        return False
    invitation.is_due = False
    db.session.commit()
    return True
