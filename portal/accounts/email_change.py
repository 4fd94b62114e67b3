"""Changing an account's email address: it changes when the owners of the old and the new address have confirmed it.

Whether another account has the new address is checked only after its owner has confirmed it: otherwise the form would
reveal who has an account.
"""

from datetime import timedelta
from typing import Final
from uuid import uuid4

from flask_babel import gettext
from sqlalchemy import Select, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from portal.accounts import emails, rate_limits
from portal.accounts.models import Account, AccountSession, EmailChange
from portal.accounts.rate_limits import ACCOUNT, HOUR, Limit, Rule
from portal.accounts.service import find, lock_access
from portal.audit.log import record
from portal.crypto import hash_token, new_token
from portal.database import clock, fast_sql
from portal.errors import Refusal
from portal.extensions import db

VALID_FOR: Final = timedelta(hours=24)
REQUESTS: Final = Rule("change email", (Limit(5, HOUR, ACCOUNT),))
EMAILS_TO_AN_ADDRESS: Final = Rule("confirm email", (Limit(5, 24 * HOUR, ACCOUNT),))


def start(account: Account, new_email: str) -> Refusal | None:
    """Email a link to the account's email address and to the new one, in place of earlier links."""
    lock_access(account)
    if not account.active:
        return Refusal("", gettext("Your account is deactivated. Ask your system administrator."))
    if new_email == account.email:
        return Refusal("email", gettext("This is your email address already."))
    # By id: a changed email address starts no new count.
    if rate_limits.count(REQUESTS, account=str(account.id)) or rate_limits.count(
        EMAILS_TO_AN_ADDRESS, account=new_email
    ):
        return Refusal("email", gettext("Too many requests to change an email address. Try again tomorrow."))
    old_token, new_email_token = new_token(), new_token()
    db.session.execute(delete(EmailChange).where(EmailChange.account_id == account.id))
    db.session.add(
        EmailChange(
            account_id=account.id,
            new_email=new_email,
            old_token_hash=hash_token(old_token),
            new_token_hash=hash_token(new_email_token),
            expires_at=clock.now() + VALID_FOR,
        )
    )
    record("account.email_change_requested", account.email, changes={"email": [account.email, new_email]})
    db.session.commit()
    for message, to, token in (
        (emails.CONFIRM_OLD_EMAIL, account.email, old_token),
        (emails.CONFIRM_NEW_EMAIL, new_email, new_email_token),
    ):
        link = emails.portal_link("account.show_email_change", token=token)
        emails.send(message, account, to=to, link=link, valid_for=VALID_FOR, old=account.email, new=new_email)
    return None


def pending(account: Account) -> EmailChange | None:
    """Return the change that still has to be confirmed, or None."""
    return db.session.scalar(_valid().where(EmailChange.account_id == account.id))


def find_by_token(token: str, *, for_update: bool = False) -> EmailChange | None:
    """Return the change that one of its links leads to, or None if the link has expired or was replaced."""
    hashed = hash_token(token)
    query = _valid().where(or_(EmailChange.old_token_hash == hashed, EmailChange.new_token_hash == hashed))
    if for_update:
        query = query.with_for_update(of=EmailChange).execution_options(populate_existing=True)
    return db.session.scalar(query)


def confirm(token: str) -> EmailChange | Refusal:
    """Confirm one of the two addresses. After the second one the account has the new address, and no session."""
    lock_access()  # before the row, as deactivating does
    change = find_by_token(token, for_update=True)
    if change is None:
        return Refusal("", gettext("This link is not valid or was already used."))
    if hash_token(token) == change.new_token_hash:
        change.new_confirmed = True
    else:
        change.old_confirmed = True
    if change.old_confirmed and change.new_confirmed:
        return _finish(change)
    db.session.commit()
    return change


def cancel(account: Account) -> None:
    """Forget the change that still has to be confirmed."""
    db.session.execute(delete(EmailChange).where(EmailChange.account_id == account.id))
    db.session.commit()


def delete_expired() -> None:
    """Delete the changes that were not confirmed in time."""
    fast_sql.run("DELETE FROM email_changes WHERE expires_at < now()", {})


def _finish(change: EmailChange) -> EmailChange | Refusal:
    account, old = change.account, change.account.email
    db.session.delete(change)
    if (other := find(change.new_email)) is not None:
        lock_access(other)
        if not (other.is_only_invited and other.active):
            db.session.commit()
            return _taken()
        db.session.delete(other)  # its invitations are for the address, so the account with this address has them now
        db.session.flush()
    account.email, account.fs_uniquifier = change.new_email, uuid4().hex  # ends links for a new password, too
    db.session.execute(delete(AccountSession).where(AccountSession.account_id == account.id))
    try:
        db.session.commit()
    except IntegrityError:  # another account has taken it at this moment
        db.session.rollback()
        return _taken()
    for to in (old, account.email):
        emails.send(emails.EMAIL_CHANGED, account, to=to, old=old, new=account.email)
    return change


def _taken() -> Refusal:
    return Refusal("", gettext("Another account has this email address. Nothing was changed."))


def _valid() -> Select[EmailChange]:
    return select(EmailChange).where(EmailChange.expires_at > clock.now()).options(joinedload(EmailChange.account))
