"""Which account a person of the provider has. A sign-in never adds an account.

At the first sign-in a verified email address finds the account, which is then bound to the person's subject at the
provider. From then on the subject decides: whoever gets the email address later does not get the account.
"""

from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from portal import config
from portal.accounts import service as account_service
from portal.accounts.models import Account, AccountIdentity
from portal.accounts.single_sign_on.id_token import Claims, verified_email
from portal.audit.labels import UNKNOWN_ACCOUNT
from portal.audit.log import record
from portal.extensions import db
from portal.signals import first_sign_in


class NoAccess(NamedTuple):
    """Why a person has no access, for the log, and the account that was meant, for the audit trail."""

    reason: str
    account: str = UNKNOWN_ACCOUNT


def find_account(claims: Claims) -> Account | NoAccess:
    """Return the active account of the person whom the provider describes, or why there is none."""
    account = _bound_account(claims["sub"])
    if account is None:
        email = verified_email(claims, config.current())
        if email is None:
            return NoAccess("the provider did not verify an email address of an allowed domain")
        account = account_service.find(email)
        if account is None:
            return NoAccess("no account has this email address")
        if _identity(account) is not None:
            return NoAccess("the account is bound to another subject", account.email)
    return account if account.active else NoAccess("the account is deactivated", account.email)


def bind(account: Account, subject: str) -> None:
    """Bind the account to the person of the provider who has just signed in, unless it is bound already."""
    values = {"account_id": account.id, "issuer": config.current().sso_issuer, "subject": subject}
    added = db.session.execute(
        insert(AccountIdentity).values(values).on_conflict_do_nothing().returning(AccountIdentity.id)
    )
    if added.scalar_one_or_none() is not None:
        record("account.bound", account.email)
        _accept_invitation(account)
    db.session.commit()


def unbind(account: Account) -> None:
    """Forget the account's subjects: the next sign-in finds it by its email address again."""
    deleted = delete(AccountIdentity).where(AccountIdentity.account_id == account.id).returning(AccountIdentity.id)
    if db.session.scalars(deleted).all():
        record("account.unbound", account.email)
    db.session.commit()


def _accept_invitation(account: Account) -> None:
    """Accept the invitations of an account that nobody has used: the sign-in proves what their links would."""
    if account.last_sign_in_at is None and not account.password:
        first_sign_in.send(account)


def _bound_account(subject: str) -> Account | None:
    query = select(Account).join(AccountIdentity).where(AccountIdentity.issuer == config.current().sso_issuer)
    return db.session.scalar(query.where(AccountIdentity.subject == subject))


def _identity(account: Account) -> AccountIdentity | None:
    query = select(AccountIdentity).where(AccountIdentity.account_id == account.id)
    return db.session.scalar(query.where(AccountIdentity.issuer == config.current().sso_issuer))
