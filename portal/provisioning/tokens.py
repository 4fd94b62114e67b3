"""One-time tokens: each gives its SIP account to the first softphone that asks, and to no other."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Row, Select, select, update
from sqlalchemy import delete as delete_from
from uuid_utils.compat import uuid7

from portal import crypto
from portal.database import clock
from portal.database.prepared import Statement
from portal.database.scope import every_tenant
from portal.extensions import db
from portal.provisioning.models import ProvisioningToken, encryption_context
from portal.provisioning.sip_account import SipAccount
from portal.tenants.models import Tenant

# This file uses `every_tenant` because a token is looked up before its tenant is known.
ISSUE_SQL = """
    WITH older AS (
        UPDATE provisioning_tokens SET sip_account_encrypted = NULL
        WHERE {condition} AND tenant_id = %(tenant_id)s AND address_of_record = %(address_of_record)s
            AND sip_account_encrypted IS NOT NULL AND NOT (event_id = %(event_id)s AND audience <> %(audience)s)
    )
    INSERT INTO provisioning_tokens (id, tenant_id, token_hash, address_of_record, event_id, audience,
        sip_account_encrypted, expires_at)
    SELECT %(id)s::uuid, %(tenant_id)s::int, %(token_hash)s::bytea, %(address_of_record)s, %(event_id)s::uuid,
        %(audience)s, %(sip_account_encrypted)s::bytea, %(expires_at)s
    WHERE {condition}
"""
SAMPLE = "sample"  # in place of a token; its page says that it is a sample
BATCH_SIZE = 1000
_TokenRow = Row[ProvisioningToken, Tenant]


class TokenState(StrEnum):
    """The state of a token. Only an unspent one gives out its SIP account."""

    UNSPENT = "unspent"
    SPENT = "spent"
    EXPIRED = "expired"
    SUSPENDED = "suspended"  # the tenant is suspended
    UNKNOWN = "unknown"
    SAMPLE = "sample"


class NewToken(NamedTuple):
    """A token, and the statement that stores it."""

    token: str
    statement: Statement


def new(
    tenant_id: int,
    account: SipAccount,
    expires_at: datetime,
    event_id: UUID,
    audience: str,
    condition: Statement = ("true", {}),
) -> NewToken:
    """Return a new token for the account, which is valid once its statement was run and if its condition was true.

    Only its hash is stored, so it cannot be read again. The user's older unspent tokens become invalid, except the one
    in the same event's email to the other audience.
    """
    token = crypto.new_token()
    values = {
        "id": uuid7(),
        "tenant_id": tenant_id,
        "token_hash": crypto.hash_token(token),
        "address_of_record": account.address_of_record,
        "event_id": event_id,
        "audience": audience,
        "sip_account_encrypted": crypto.keyring().encrypt(account.to_json(), encryption_context(tenant_id)),
        "expires_at": expires_at,
    }
    return NewToken(token, (ISSUE_SQL.format(condition=condition[0]), {**values, **condition[1]}))


def check(token: str) -> tuple[TokenState, Tenant | None]:
    """Return the state of a token, without changing it, and its tenant if it has one."""
    if token == SAMPLE:
        return TokenState.SAMPLE, None
    with every_tenant():
        found = db.session.execute(_select_token(token)).one_or_none()
        return _state(found), found[1] if found else None


def spend(token: str) -> SipAccount | TokenState:
    """Return the token's account and erase it, or return the state why not. Of two simultaneous requests one gets it.

    Raises:
        crypto.UnreadableSecret: the encryption key is no longer in the key ring. The token stays unspent.
    """
    with every_tenant():
        # A second request waits for the first one's commit and then reads the new state.
        query = _select_token(token).with_for_update(of=ProvisioningToken).execution_options(populate_existing=True)
        found = db.session.execute(query).one_or_none()
        state = _state(found)
        if found is None or state is not TokenState.UNSPENT or (encrypted := found[0].sip_account_encrypted) is None:
            return state
        row = found[0]
        account = SipAccount.from_json(crypto.keyring().decrypt(encrypted, encryption_context(row.tenant_id)))
        row.sip_account_encrypted, row.spent_at = None, clock.now()
        db.session.commit()
        return account


def erase_expired() -> None:
    """Erase the SIP accounts of all expired tokens. Called by a periodic task."""
    expired = (
        update(ProvisioningToken)
        .where(ProvisioningToken.expires_at <= clock.now(), ProvisioningToken.sip_account_encrypted.is_not(None))
        .values(sip_account_encrypted=None)
    )
    with every_tenant():
        db.session.execute(expired)
        db.session.commit()


def delete_old(before: UUID) -> None:
    """Delete the tokens with older ids that no longer have a SIP account. Each batch is a separate transaction."""
    conditions = (ProvisioningToken.id < before, ProvisioningToken.sip_account_encrypted.is_(None))
    batch = select(ProvisioningToken.id).where(*conditions).order_by(ProvisioningToken.id).limit(BATCH_SIZE)
    deletion = delete_from(ProvisioningToken).where(ProvisioningToken.id.in_(batch.scalar_subquery()))
    deleted = BATCH_SIZE
    with every_tenant():
        while deleted == BATCH_SIZE:
            deleted = db.session.execute(deletion).rowcount  # type: ignore[attr-defined]
            db.session.commit()


def _select_token(token: str) -> Select[ProvisioningToken, Tenant]:
    return (
        select(ProvisioningToken, Tenant)
        .join(Tenant, Tenant.id == ProvisioningToken.tenant_id)
        .where(ProvisioningToken.token_hash == crypto.hash_token(token))
    )


def _state(found: _TokenRow | None) -> TokenState:
    if found is None:
        return TokenState.UNKNOWN
    row, tenant = found
    if row.spent_at is not None:
        return TokenState.SPENT
    if row.sip_account_encrypted is None or row.expires_at <= clock.now():
        return TokenState.EXPIRED
    return TokenState.SUSPENDED if tenant.is_suspended else TokenState.UNSPENT
