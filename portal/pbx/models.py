"""Keys of PBXs."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from portal.audit.audited import Audited
from portal.database import TenantOrSystemOwned
from portal.extensions import Base


class PbxKey(Audited, TenantOrSystemOwned, Base):
    """A key that reports events of one tenant, or of every tenant where `tenant_id` is NULL. Only its hash is kept."""

    __tablename__ = "pbx_keys"
    __table_args__ = (
        Index(None, "tenant_id"),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
    )
    audited_as = "key"
    audited_states: ClassVar = {"revoked_at": ("revoked", "changed")}
    audited_verbs: ClassVar = {"added": "issued"}

    id: Mapped[int] = mapped_column(primary_key=True)
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    prefix: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @property
    def audited_subject(self) -> str:
        """How people tell keys apart."""
        return f"{self.prefix}…"
