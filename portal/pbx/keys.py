"""The keys of PBXs: issuing, finding, rotating, revoking. A key is shown once, then only its hash is known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select

from portal import statements
from portal.crypto import hash_token, new_token
from portal.database import every_tenant, scope_of
from portal.deliveries import circumstances
from portal.deliveries.circumstances import Circumstances
from portal.errors import Refusal
from portal.extensions import db
from portal.languages import to_translate
from portal.notifications.events import Event
from portal.pbx import signatures
from portal.pbx.models import PbxKey, opened, sealed
from portal.pbx.reasons import Reason
from portal.tenants.models import Tenant

PREFIX = "pbx_"
SHOWN = len(PREFIX) + 6  # characters that tell keys apart without giving them away
LARGEST_ID = 2**31 - 1
MOST_LISTED = 100
USE_NOTED_EVERY = timedelta(minutes=1)
NOT_LIVE = Refusal("id", to_translate("This key is not live any more. Issue a new one."))


# The key, the tenant that it belongs to or that the event names, and what decides about the event: one round trip.
FIND = f"""
    SELECT key.id AS key_id, key.tenant_id AS owner_id, key.last_used_at, key.revoked_at IS NOT NULL AS is_revoked,
        coalesce(key.expires_at <= now(), false) AS is_expired, key.signing_secret_encrypted AS signing_secret,
        CASE WHEN key.previous_secret_until > now() THEN key.previous_secret_encrypted END AS previous_secret,
        {circumstances.COLUMNS}
    FROM pbx_keys AS key
    LEFT JOIN tenants AS tenant
        ON tenant.id = coalesce(key.tenant_id, (SELECT id FROM tenants WHERE domain = %(domain)s))
    {circumstances.JOINS}
    WHERE key.key_hash = %(hash)s
"""  # noqa: S608 (nothing of it comes from outside)
NOTE_USE = "UPDATE pbx_keys SET last_used_at = now(), last_used_from = %(address)s WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class Caller:
    """A PBX, known by its key, and the circumstances of its event: None where the event belongs to no tenant.

    Where there are signing secrets, one of them has to have signed the call.
    """

    key_id: int
    owner_id: int | None
    last_used_at: datetime | None
    secrets: tuple[str, ...] = field(repr=False)
    circumstances: Circumstances | None


@dataclass(frozen=True, slots=True)
class DeadKey:
    """A key of the portal that is not accepted any more."""

    key_id: int
    owner_id: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, a new signing secret, or both: the row, and the secrets themselves, which are nowhere else."""

    row: PbxKey
    secret: str = field(default="", repr=False)
    signing_secret: str = field(default="", repr=False)


def issue(tenant: Tenant | None, name: str = "PBX", last_day: date | None = None, *, signed: bool = False) -> IssuedKey:
    """Return a new key that reports events of the tenant, or of every tenant for None.

    Args:
        tenant: whose events.
        name: which PBX has it.
        last_day: in the tenant's time zone, UTC for the system; the key is refused from the next day on.
        signed: whether it accepts signed calls only.
    """
    owner_id = tenant.id if tenant else None
    signing_secret = signatures.new_secret() if signed else ""
    row = PbxKey(
        tenant_id=owner_id,
        name=name,
        expires_at=_end_of(last_day, tenant),
        signing_secret_encrypted=sealed(signing_secret, owner_id) if signed else None,
    )
    secret = _new_secret(row)
    _save(row)
    return IssuedKey(row, secret, signing_secret)


def rotate(tenant: Tenant | None, key: PbxKey, overlap: timedelta, last_day: date | None = None) -> IssuedKey | Refusal:
    """Return a successor with the same name and signing secrets. The key itself lives on for the overlap only."""
    if not key.is_live:
        return NOT_LIVE
    successor = PbxKey(
        tenant_id=key.tenant_id,
        name=key.name,
        expires_at=_end_of(last_day, tenant),
        signing_secret_encrypted=key.signing_secret_encrypted,
        previous_secret_encrypted=key.previous_secret_encrypted,
        previous_secret_until=key.previous_secret_until,
    )
    end = datetime.now(UTC) + overlap
    key.expires_at = min(key.expires_at or end, end)
    secret = _new_secret(successor)
    _save(key, successor)
    return IssuedKey(successor, secret)


def renew_secret(key: PbxKey, overlap: timedelta) -> IssuedKey | Refusal:
    """Return the key with a new signing secret. The one before it counts too for the overlap; older ones do not."""
    if not key.is_live:
        return NOT_LIVE
    if key.signing_secret_encrypted is None:
        return Refusal("id", to_translate("This key requires no signature. Issue a new one that does."))
    secret = signatures.new_secret()
    key.previous_secret_encrypted, key.previous_secret_until = key.signing_secret_encrypted, datetime.now(UTC) + overlap
    key.signing_secret_encrypted = sealed(secret, key.tenant_id)
    _save(key)
    return IssuedKey(key, signing_secret=secret)


def revoke(key: PbxKey) -> None:
    """Refuse the key from now on."""
    key.revoked_at = key.revoked_at or datetime.now(UTC)
    _save(key)


def find(secret: str, event: object = None) -> Caller | DeadKey | None:
    """Return who calls with this secret to report the event, None where the portal never issued it.

    The comparison is of hashes by the database's index: it tells no time.
    """
    domain, kind = (event.tenant, event.kind.type) if isinstance(event, Event) else (None, None)
    with every_tenant():
        row = statements.run(FIND, {"hash": hash_token(secret), "domain": domain, "event_type": kind})
    if row is None:
        return None
    key_id, owner_id = row["key_id"], row["owner_id"]
    if row["is_revoked"] or row["is_expired"]:
        return DeadKey(key_id, owner_id, Reason.REVOKED_KEY if row["is_revoked"] else Reason.EXPIRED_KEY)
    stored = [each for each in (row["signing_secret"], row["previous_secret"]) if each]
    secrets = tuple(opened(each, owner_id) for each in stored)
    return Caller(key_id, owner_id, row["last_used_at"], secrets, circumstances.of_row(row))


def note_use(caller: Caller, address: str | None) -> None:
    """Remember that the key was used, to the minute, and from where."""
    if caller.last_used_at is None or datetime.now(UTC) - caller.last_used_at > USE_NOTED_EVERY:
        with every_tenant():  # the key may be the system's
            statements.run(NOTE_USE, {"id": caller.key_id, "address": address})


def of_owner(owner: Tenant | None) -> Sequence[PbxKey]:
    """Return the newest keys of the tenant in scope, or of the system for None, those that are revoked last."""
    query = select(PbxKey).where(PbxKey.tenant_id == (owner.id if owner else None))
    with scope_of(owner):
        order = (PbxKey.revoked_at.is_not(None), PbxKey.id.desc())
        return db.session.scalars(query.order_by(*order).limit(MOST_LISTED)).all()


def one_of_owner(owner: Tenant | None, key_id: int) -> PbxKey | None:
    """Return a key of the tenant in scope, or of the system for None, to change it: who else wants to do so waits."""
    query = select(PbxKey).where(PbxKey.tenant_id == (owner.id if owner else None), PbxKey.id == key_id)
    with scope_of(owner):
        return db.session.scalar(query.with_for_update(key_share=True)) if key_id <= LARGEST_ID else None


def every_key() -> Sequence[tuple[PbxKey, Tenant | None]]:
    """Return all keys with their tenants, None for the system's."""
    query = select(PbxKey, Tenant).outerjoin(Tenant, Tenant.id == PbxKey.tenant_id).order_by(PbxKey.id)
    with every_tenant():
        return [(key, owner) for key, owner in db.session.execute(query)]


def _end_of(day: date | None, tenant: Tenant | None) -> datetime | None:
    return datetime.combine(day, time.max, ZoneInfo(tenant.time_zone if tenant else "UTC")) if day else None


def _new_secret(row: PbxKey) -> str:
    secret = PREFIX + new_token()
    row.key_hash, row.prefix = hash_token(secret), secret[:SHOWN]
    return secret


def _save(*rows: PbxKey) -> None:
    with every_tenant():  # they may be the system's
        db.session.add_all(rows)
        db.session.commit()
