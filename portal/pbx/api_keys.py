"""API keys: issuing, authenticating, rotating and revoking them. A key is shown once, and stored only as its hash."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from threading import Lock
from zoneinfo import ZoneInfo

from flask_babel import gettext
from sqlalchemy import and_, func, or_, select

from portal.crypto import hash_token, new_token
from portal.database import clock, fast_sql
from portal.database.scope import EVERY_TENANT, every_tenant, scope_of_owner
from portal.deliveries import plan
from portal.deliveries.plan import Plan
from portal.errors import Refusal
from portal.events.parsing import Event
from portal.extensions import db
from portal.pbx import signatures
from portal.pbx.models import ApiKey, decrypt_signing_secret, encrypt_signing_secret
from portal.pbx.rejection_reasons import RejectionReason
from portal.tenants.models import Tenant
from portal.web.i18n import to_translate

PREFIX = "pbx_"
VISIBLE_LENGTH = len(PREFIX) + 6  # characters that people tell keys apart by
MAX_ID = 2**31 - 1
MAX_LISTED_KEYS = 100
MAX_VALID_KEYS = 25  # of a tenant, or of the system; twice as many while keys are being replaced
RECORD_USE_INTERVAL = timedelta(minutes=1)
MAX_REMEMBERED_KEYS = 10_000
MAX_REMEMBERED_CLIENTS = 2_000  # each takes up to 50 kB
KEY_NOT_VALID = Refusal("id", to_translate("This key is no longer valid. Issue a new one."))

_issued: set[bytes] = set()  # hashes of keys that this process has found before
_clients: dict[tuple[bytes, str | None, str], "ApiClient"] = {}  # the oldest first
_last_used_at: dict[int, datetime | None] = {}  # by key, as far as this process knows
_remembering = Lock()

# The key, its tenant or the one that the event names, and the plan of the event, in one round trip.
AUTHENTICATE_SQL = f"""
    SELECT key.id AS key_id, key.tenant_id AS owner_id, key.last_used_at, key.revoked_at IS NOT NULL AS is_revoked,
        coalesce(key.expires_at <= now(), false) AS is_expired, key.signing_secret_encrypted AS signing_secret,
        CASE WHEN key.previous_secret_expires_at > now() THEN key.previous_secret_encrypted END AS previous_secret,
        least(key.expires_at, CASE WHEN key.previous_secret_expires_at > now() THEN key.previous_secret_expires_at END,
            recipient.pause_ends) AS changes_at,
        {plan.PLAN_COLUMNS}
    FROM api_keys AS key
    LEFT JOIN tenants AS tenant
        ON tenant.id = coalesce(key.tenant_id, (SELECT id FROM tenants WHERE domain = %(domain)s))
    {plan.PLAN_JOINS}
    WHERE key.key_hash = %(hash)s
"""  # noqa: S608 (made of constants)
IS_ISSUED_SQL = "SELECT id FROM api_keys WHERE key_hash = %(hash)s"
RECORD_USE_SQL = "UPDATE api_keys SET last_used_at = now(), last_used_ip = %(ip_address)s WHERE id = %(id)s"


@dataclass(slots=True)
class ApiClient:
    """A PBX with a key of this portal, and the plan of its event: None if the event belongs to no tenant.

    If there are signing secrets, one of them must have signed the request. At `changes_at` time changes something: a
    secret or the key expires, or a recipient's pause ends. `rejected_for` says why the key is no longer valid.
    """

    key_id: int
    owner_id: int | None
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)
    plan: Plan | None = None
    changes_at: datetime | None = None
    rejected_for: RejectionReason | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, a new signing secret, or both. The secrets themselves are stored nowhere else."""

    row: ApiKey
    secret: str = field(default="", repr=False)
    signing_secret: str = field(default="", repr=False)


def issue(
    tenant: Tenant | None, name: str = "PBX", expires_on: date | None = None, *, signed: bool = False
) -> IssuedKey:
    """Return a new key that reports events of the tenant, or of every tenant for None.

    It is valid until the end of the day `expires_on`, in the tenant's time zone or, for a system key, in UTC. If it is
    `signed`, its requests must be.
    """
    owner_id = tenant.id if tenant else None
    signing_secret = signatures.new_secret() if signed else ""
    row = ApiKey(
        tenant_id=owner_id,
        name=name,
        expires_at=_end_of_day(expires_on, tenant),
        signing_secret_encrypted=encrypt_signing_secret(signing_secret, owner_id) if signed else None,
    )
    secret = _new_secret(row)
    _save(row)
    return IssuedKey(row, secret, signing_secret)


def limit_refusal(tenant: Tenant | None, limit: int = MAX_VALID_KEYS) -> Refusal | None:
    """Return why the tenant, or the system for None, gets no further key, or None if it does."""
    is_valid = and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
    owner = ApiKey.tenant_id == (tenant.id if tenant else None)
    with every_tenant():  # a command may have entered no scope
        count = db.session.scalar(select(func.count()).select_from(ApiKey).where(owner, is_valid)) or 0
    if count < limit:
        return None
    text = to_translate("There are %(count)s valid keys already. Revoke one that is not used, then try again.")
    return Refusal("name", gettext(text, count=count))


def rotate(
    tenant: Tenant | None, key: ApiKey, overlap: timedelta, expires_on: date | None = None
) -> IssuedKey | Refusal:
    """Return a successor with the same name and signing secrets. The key itself stays valid for the overlap only."""
    if not key.is_valid:
        return KEY_NOT_VALID
    if refusal := limit_refusal(tenant, 2 * MAX_VALID_KEYS):
        return refusal
    successor = ApiKey(
        tenant_id=key.tenant_id,
        name=key.name,
        expires_at=_end_of_day(expires_on, tenant),
        signing_secret_encrypted=key.signing_secret_encrypted,
        previous_secret_encrypted=key.previous_secret_encrypted,
        previous_secret_expires_at=key.previous_secret_expires_at,
    )
    overlap_ends = clock.now() + overlap
    key.expires_at = min(key.expires_at or overlap_ends, overlap_ends)
    secret = _new_secret(successor)
    _save(key, successor)
    return IssuedKey(successor, secret)


def renew_secret(key: ApiKey, overlap: timedelta) -> IssuedKey | Refusal:
    """Return the key with a new signing secret. The previous one stays valid for the overlap; older ones do not."""
    if not key.is_valid:
        return KEY_NOT_VALID
    if key.signing_secret_encrypted is None:
        return Refusal("id", to_translate("This key does not require a signature. Issue a new one that does."))
    secret = signatures.new_secret()
    key.previous_secret_encrypted = key.signing_secret_encrypted
    key.previous_secret_expires_at = clock.now() + overlap
    key.signing_secret_encrypted = encrypt_signing_secret(secret, key.tenant_id)
    _save(key)
    return IssuedKey(key, signing_secret=secret)


def revoke(key: ApiKey) -> None:
    """Reject the key from now on."""
    key.revoked_at = key.revoked_at or clock.now()
    _save(key)


def is_issued(secret: str) -> bool:
    """Return whether the portal has issued this key, which may have expired since. A process looks each up once."""
    key_hash = hash_token(secret)
    if key_hash in _issued:
        return True
    if fast_sql.run(IS_ISSUED_SQL, {"hash": key_hash}, scope=EVERY_TENANT) is None:
        return False
    if len(_issued) >= MAX_REMEMBERED_KEYS:
        _issued.clear()
    _issued.add(key_hash)
    return True


def recall(secret: str, event: object) -> ApiClient | None:
    """Return who reports such an event with this secret, as `authenticate` found it before; None if it did not.

    Settings may have changed since. The statement that records the event compares their revision.
    """
    client = _clients.get(_client_key(secret, event)) if isinstance(event, Event) else None
    return client if client and (client.changes_at is None or clock.now() < client.changes_at) else None


def authenticate(secret: str, event: object = None) -> ApiClient | None:
    """Return who reports the event with this secret, also if it is no longer valid; None if it never was.

    The database's index compares hashes, so the time that it takes reveals nothing about the secret.
    """
    domain, event_type = (event.tenant, event.event_type.type) if isinstance(event, Event) else (None, None)
    values = {"hash": hash_token(secret), "domain": domain, "event_type": event_type}
    row = fast_sql.run(AUTHENTICATE_SQL, values, scope=EVERY_TENANT)
    if row is None:
        return None
    key_id, owner_id = row["key_id"], row["owner_id"]
    if row["is_revoked"] or row["is_expired"]:
        reason = RejectionReason.REVOKED_KEY if row["is_revoked"] else RejectionReason.EXPIRED_KEY
        return ApiClient(key_id, owner_id, rejected_for=reason)
    stored = filter(None, (row["signing_secret"], row["previous_secret"]))
    signing_secrets = tuple(decrypt_signing_secret(encrypted, owner_id) for encrypted in stored)
    event_plan = plan.plan_from_row(row)
    client = ApiClient(key_id, owner_id, signing_secrets, event_plan, row["changes_at"])
    _last_used_at[key_id] = row["last_used_at"]
    names_another = event_plan and domain not in (None, event_plan.tenant.domain)
    if isinstance(event, Event) and event_plan and event_plan.revision and not names_another:
        with _remembering:
            if len(_clients) >= MAX_REMEMBERED_CLIENTS:
                del _clients[next(iter(_clients))]
            _clients[_client_key(secret, event)] = client
    return client


def _client_key(secret: str, event: Event) -> tuple[bytes, str | None, str]:
    return hash_token(secret), event.tenant, event.event_type.type


def record_use(client: ApiClient, ip_address: str | None) -> None:
    """Record when and from where the key was used, at most once a minute."""
    last_used_at = _last_used_at.get(client.key_id)
    if last_used_at is None or clock.now() - last_used_at > RECORD_USE_INTERVAL:
        values = {"id": client.key_id, "ip_address": ip_address}
        fast_sql.run(RECORD_USE_SQL, values, scope=EVERY_TENANT)  # the key may be the system's
        _last_used_at[client.key_id] = clock.now()


def list_keys(owner: Tenant | None) -> Sequence[ApiKey]:
    """Return the newest keys of the tenant in scope, or of the system for None; revoked keys come last."""
    query = select(ApiKey).where(ApiKey.tenant_id == (owner.id if owner else None))
    with scope_of_owner(owner):
        order = (ApiKey.revoked_at.is_not(None), ApiKey.id.desc())
        return db.session.scalars(query.order_by(*order).limit(MAX_LISTED_KEYS)).all()


def get_for_update(owner: Tenant | None, key_id: int) -> ApiKey | None:
    """Return a key of the tenant in scope, or of the system for None, locked until the transaction ends."""
    query = select(ApiKey).where(ApiKey.tenant_id == (owner.id if owner else None), ApiKey.id == key_id)
    with scope_of_owner(owner):
        return db.session.scalar(query.with_for_update(key_share=True)) if key_id <= MAX_ID else None


def list_all() -> Sequence[tuple[ApiKey, Tenant | None]]:
    """Return all keys with their tenants, None for the system's."""
    query = select(ApiKey, Tenant).outerjoin(Tenant, Tenant.id == ApiKey.tenant_id).order_by(ApiKey.id)
    with every_tenant():
        return [(key, owner) for key, owner in db.session.execute(query)]


def _end_of_day(day: date | None, tenant: Tenant | None) -> datetime | None:
    return datetime.combine(day, time.max, ZoneInfo(tenant.time_zone if tenant else "UTC")) if day else None


def _new_secret(row: ApiKey) -> str:
    secret = PREFIX + new_token()
    row.key_hash, row.prefix = hash_token(secret), secret[:VISIBLE_LENGTH]
    return secret


def _save(*rows: ApiKey) -> None:
    with every_tenant():  # they may be the system's
        db.session.add_all(rows)
        db.session.commit()
