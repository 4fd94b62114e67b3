"""The keys of PBXs: issuing, finding, revoking. A key is shown once, then only its hash is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from portal.crypto import hash_token, new_token
from portal.database import every_tenant
from portal.errors import Refusal
from portal.extensions import db
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant

PREFIX = "pbx_"
SHOWN = len(PREFIX) + 6  # characters that tell keys apart without giving them away
LARGEST_ID = 2**31 - 1
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key: its row, and the secret itself, which is nowhere else."""

    row: PbxKey
    secret: str


def issue(tenant: Tenant | None) -> IssuedKey:
    """Return a new key that reports events of the tenant, or of every tenant for None."""
    secret = PREFIX + new_token()
    row = PbxKey(tenant_id=tenant.id if tenant else None, key_hash=hash_token(secret), prefix=secret[:SHOWN])
    with every_tenant():
        db.session.add(row)
        db.session.commit()
    return IssuedKey(row, secret)


def find(secret: str) -> PbxKey | None:
    """Return the live key with this secret. The comparison is of hashes by the database's index: it tells no time."""
    live = select(PbxKey).where(PbxKey.key_hash == hash_token(secret), PbxKey.revoked_at.is_(None))
    with every_tenant():
        return db.session.scalar(live)


def note_use(key: PbxKey) -> None:
    """Remember that the key was used, to the minute, with the caller's commit."""
    now = datetime.now(UTC)
    if key.last_used_at is None or now - key.last_used_at > USE_NOTED_EVERY:
        with every_tenant():
            db.session.execute(
                update(PbxKey)
                .where(PbxKey.id == key.id)
                .values(last_used_at=now)
                .execution_options(synchronize_session=False)
            )


def of_tenant(tenant: Tenant) -> Sequence[PbxKey]:
    """Return the tenant's keys, the newest first."""
    return db.session.scalars(select(PbxKey).where(PbxKey.tenant_id == tenant.id).order_by(PbxKey.id.desc())).all()


def every_key() -> Sequence[tuple[PbxKey, str | None]]:
    """Return all keys with their tenants' domains, None for the system's."""
    query = select(PbxKey, Tenant.domain).outerjoin(Tenant, Tenant.id == PbxKey.tenant_id).order_by(PbxKey.id)
    with every_tenant():
        return [(key, domain) for key, domain in db.session.execute(query)]


def revoke(key_id: int) -> PbxKey | Refusal:
    """Return the key, which is refused from now on. In a tenant's scope only its own keys are found."""
    key = db.session.scalar(select(PbxKey).where(PbxKey.id == key_id)) if key_id <= LARGEST_ID else None
    if key is None:
        return Refusal("id", "There is no key with this number.")
    key.revoked_at = key.revoked_at or datetime.now(UTC)
    db.session.commit()
    return key
