"""The keys of PBXs: issuing, finding, revoking. A key is shown once, then only its hash is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from portal import statements
from portal.crypto import hash_token, new_token
from portal.database import every_tenant
from portal.deliveries import circumstances
from portal.deliveries.circumstances import Circumstances
from portal.errors import Refusal
from portal.extensions import db
from portal.notifications.events import Event, Problem
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant

PREFIX = "pbx_"
SHOWN = len(PREFIX) + 6  # characters that tell keys apart without giving them away
LARGEST_ID = 2**31 - 1
USE_NOTED_EVERY = timedelta(minutes=1)


# The key, the tenant that it belongs to or that the event names, and what decides about the event: one round trip.
FIND = f"""
    SELECT key.id AS key_id, key.last_used_at, {circumstances.COLUMNS}
    FROM pbx_keys AS key
    LEFT JOIN tenants AS tenant
        ON tenant.id = coalesce(key.tenant_id, (SELECT id FROM tenants WHERE domain = %(domain)s))
    {circumstances.JOINS}
    WHERE key.key_hash = %(hash)s AND key.revoked_at IS NULL
"""  # noqa: S608 (nothing of it comes from outside)


@dataclass(frozen=True, slots=True)
class Caller:
    """A PBX, known by its key, and the circumstances of its event: None where the event belongs to no tenant."""

    key_id: int
    last_used_at: datetime | None
    circumstances: Circumstances | None


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


def find(secret: str, event: Event | Problem | None = None) -> Caller | None:
    """Return who calls with this secret to report the event, None where no live key has it.

    The comparison is of hashes by the database's index: it tells no time.
    """
    domain, kind = (event.tenant, event.kind.type) if isinstance(event, Event) else (None, None)
    with every_tenant():
        row = statements.run(FIND, {"hash": hash_token(secret), "domain": domain, "event_type": kind})
    return Caller(row["key_id"], row["last_used_at"], circumstances.of_row(row)) if row else None


def note_use(caller: Caller) -> None:
    """Remember that the key was used, to the minute."""
    if caller.last_used_at is None or datetime.now(UTC) - caller.last_used_at > USE_NOTED_EVERY:
        with every_tenant():  # the key may be the system's
            statements.run("UPDATE pbx_keys SET last_used_at = now() WHERE id = %(id)s", {"id": caller.key_id})


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
