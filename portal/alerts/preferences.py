"""Which alerts an account gets by email: all for an administrator and none for a viewer, unless it has chosen."""

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from portal.accounts.models import ADMINISTRATOR, Account
from portal.alerts.conditions import AlertKind
from portal.alerts.models import AlertPreference
from portal.audit.log import record
from portal.extensions import db

ABOUT_SYSTEM = (AlertKind.NO_WORKER, AlertKind.DISK)


def chosen(account: Account) -> Mapping[AlertKind, bool]:
    """Return the kinds of alerts that the account may get, and whether it gets each."""
    query = select(AlertPreference.kind, AlertPreference.enabled).where(AlertPreference.account_id == account.id)
    saved = dict(db.session.execute(query).all())
    kinds = [kind for kind in AlertKind if account.is_system_administrator or kind not in ABOUT_SYSTEM]
    return {kind: saved.get(kind, _administers(account)) for kind in kinds}


def _administers(account: Account) -> bool:
    """Return whether the account administers the system or any tenant."""
    roles = {membership.role for membership in account.memberships}
    return account.is_system_administrator or ADMINISTRATOR in roles


def choose(account: Account, kinds: Collection[str]) -> None:
    """Let the account get these kinds of alerts, and no others."""
    before = chosen(account)
    after = {kind: kind in kinds for kind in before}
    rows = [{"account_id": account.id, "kind": kind, "enabled": enabled} for kind, enabled in after.items()]
    statement = insert(AlertPreference).values(rows)
    keys = ["account_id", "kind"]
    updated = {"enabled": statement.excluded.enabled}
    db.session.execute(statement.on_conflict_do_update(index_elements=keys, set_=updated))
    old, new = ([str(kind) for kind, enabled in choice.items() if enabled] for choice in (before, after))
    record("account.alerts_chosen", account.email, changes={"alerts": [old, new]})
    db.session.commit()
