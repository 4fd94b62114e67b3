"""One-time tokens: each hands out its line to the first softphone that asks, and to nobody after it."""

from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Row, Select, select, update
from sqlalchemy import delete as delete_from
from uuid_utils.compat import uuid7

from portal import crypto, statements
from portal.database import every_tenant
from portal.extensions import db
from portal.provisioning.lines import Line
from portal.provisioning.models import ProvisioningToken, place
from portal.tenants.models import Tenant

# A token is looked up before its tenant is known, hence `every_tenant` in this file.
ISSUE = """
    WITH older AS (
        UPDATE provisioning_tokens SET line_encrypted = NULL
        WHERE tenant_id = %(tenant_id)s AND address_of_record = %(address_of_record)s AND line_encrypted IS NOT NULL
            AND NOT (event_id = %(event_id)s AND audience <> %(audience)s)
    )
    INSERT INTO provisioning_tokens (id, tenant_id, token_hash, address_of_record, event_id, audience, line_encrypted,
        expires_at)
    VALUES (%(id)s, %(tenant_id)s, %(token_hash)s, %(address_of_record)s, %(event_id)s, %(audience)s,
        %(line_encrypted)s, %(expires_at)s)
"""
SAMPLE = "sample"  # stands where a token would, and opens a page that says so
BATCH = 1000
_Found = Row[ProvisioningToken, Tenant]


class State(StrEnum):
    """What a token is worth. Only an unspent one hands out its line."""

    UNSPENT = "unspent"
    SPENT = "spent"
    EXPIRED = "expired"
    SUSPENDED = "suspended"  # its tenant is
    UNKNOWN = "unknown"
    SAMPLE = "sample"  # it never was one


def issue(tenant_id: int, line: Line, expires_at: datetime, event_id: UUID, audience: str) -> str:
    """Return a new token for the line, within the session's transaction: the caller commits.

    Only its hash is stored, so it cannot be read again. What the user has not used yet of older tokens dies, except
    the token in the same event's mail to the other audience.
    """
    token = crypto.new_token()
    statements.run_within_session(
        ISSUE,
        {
            "id": uuid7(),
            "tenant_id": tenant_id,
            "token_hash": crypto.hash_token(token),
            "address_of_record": line.address_of_record,
            "event_id": event_id,
            "audience": str(audience),
            "line_encrypted": crypto.keyring().encrypt(line.to_json(), place(tenant_id)),
            "expires_at": expires_at,
        },
    )
    return token


def look(token: str) -> State:
    """Return what the token is worth, and leave it as it is."""
    if token == SAMPLE:
        return State.SAMPLE
    with every_tenant():
        return _state(db.session.execute(_with(token)).one_or_none())


def spend(token: str) -> Line | State:
    """Return the token's line and erase it, or say why there is none: of two that ask at once, one gets it.

    Raises:
        crypto.UnreadableSecret: the key that encrypted the line left the ring. The token stays unspent.
    """
    with every_tenant():
        # Who comes second waits for the first one's commit, then reads what it left.
        locked = _with(token).with_for_update(of=ProvisioningToken).execution_options(populate_existing=True)
        found = db.session.execute(locked).one_or_none()
        state = _state(found)
        if found is None or state is not State.UNSPENT or (sealed := found[0].line_encrypted) is None:
            return state
        row = found[0]
        line = Line.from_json(crypto.keyring().decrypt(sealed, place(row.tenant_id)))
        row.line_encrypted, row.spent_at = None, datetime.now(UTC)
        db.session.commit()
        return line


def erase_expired() -> None:
    """Erase the lines of all tokens that expired unspent. For a task that runs from time to time."""
    expired = (
        update(ProvisioningToken)
        .where(ProvisioningToken.expires_at <= datetime.now(UTC), ProvisioningToken.line_encrypted.is_not(None))
        .values(line_encrypted=None)
    )
    with every_tenant():
        db.session.execute(expired)
        db.session.commit()


def delete(before: UUID) -> None:
    """Delete the tokens with older keys that hand out nothing any more. Each batch is a transaction of its own."""
    gone = (ProvisioningToken.id < before, ProvisioningToken.line_encrypted.is_(None))
    batch = select(ProvisioningToken.id).where(*gone).order_by(ProvisioningToken.id).limit(BATCH)
    deletion = delete_from(ProvisioningToken).where(ProvisioningToken.id.in_(batch.scalar_subquery()))
    deleted = BATCH
    with every_tenant():
        while deleted == BATCH:
            deleted = db.session.execute(deletion).rowcount  # type: ignore[attr-defined]
            db.session.commit()


def _with(token: str) -> Select[ProvisioningToken, Tenant]:
    return (
        select(ProvisioningToken, Tenant)
        .join(Tenant, Tenant.id == ProvisioningToken.tenant_id)
        .where(ProvisioningToken.token_hash == crypto.hash_token(token))
    )


def _state(found: _Found | None) -> State:
    if found is None:
        return State.UNKNOWN
    row, tenant = found
    if row.spent_at is not None:
        return State.SPENT
    if row.line_encrypted is None or row.expires_at <= datetime.now(UTC):
        return State.EXPIRED
    return State.SUSPENDED if tenant.is_suspended else State.UNSPENT
