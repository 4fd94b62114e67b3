"""The mail servers of tenants and of the system, and dismissed reminders to set one up."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from portal import crypto
from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.audit.mixin import Audited
from portal.database.scope import TenantOrSystemOwned, TenantOwned
from portal.extensions import Base
from portal.mail_servers.oauth.access_tokens import token_source
from portal.mail_servers.providers import helo_name_for
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings


def _password_context(row: Any) -> str:
    return f"mail_servers.password:{row.tenant_id or 'system'}"


class MailServer(Audited, TenantOrSystemOwned, Base):
    """The SMTP settings of a tenant, or of the system where `tenant_id` is NULL."""

    __tablename__ = "mail_servers"
    __table_args__ = (
        UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),
        Index(None, "rejected_at"),
        Index(None, "paused_until"),
        CheckConstraint("port BETWEEN 1 AND 65535", name="port_in_range"),
        CheckConstraint("encryption IN ('none', 'starttls', 'tls')", name="encryption_known"),
        CheckConstraint("auth_mode IN ('none', 'auto', 'login', 'plain', 'oauth')", name="auth_mode_known"),
        CheckConstraint("auth_mode IN ('none', 'oauth') OR username IS NOT NULL", name="auth_has_username"),
        CheckConstraint("NOT shared OR tenant_id IS NULL", name="only_system_is_shared"),
    )
    audited_as = "mail_server"
    audited_fields = ("provider", "host", "port", "encryption", "auth_mode", "username", "sender_email", "shared")
    audited_secrets = ("password_encrypted",)

    id: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(default="smtp")
    host: Mapped[str]
    port: Mapped[int]
    encryption: Mapped[str]
    auth_mode: Mapped[str]
    username: Mapped[str | None]
    password_encrypted: Mapped[bytes | None] = mapped_column(info=crypto.encrypted(_password_context))
    sender_email: Mapped[str]
    shared: Mapped[bool] = mapped_column(default=False)
    paused_until: Mapped[datetime | None]
    pause_reason: Mapped[str | None]
    rejected_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]  # the first failure after the last success that is known
    last_failed_at: Mapped[datetime | None]
    saved_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def is_system(self) -> bool:
        """Whether this is the system administrator's mail server."""
        return self.tenant_id is None

    @property
    def label(self) -> str:
        """Its name in the delivery log: host and port of a tenant's own."""
        return SYSTEM_MAIL_SERVER if self.is_system else f"{self.host}:{self.port}"

    @property
    def password(self) -> str | None:
        """The password in clear text, or None."""
        if self.password_encrypted is None:
            return None
        return crypto.keyring().decrypt(self.password_encrypted, _password_context(self))

    @password.setter
    def password(self, value: str | None) -> None:
        self.password_encrypted = crypto.keyring().encrypt(value, _password_context(self)) if value else None

    @property
    def smtp_settings(self) -> SmtpSettings:
        """How to connect to it."""
        encryption, auth_mode = Encryption(self.encryption), AuthMode(self.auth_mode)
        tokens = token_source(self.tenant_id, self.host, self.saved_at) if auth_mode is AuthMode.OAUTH else None
        return SmtpSettings(
            *(self.host, self.port, encryption, auth_mode, self.username, self.password),
            helo_name=helo_name_for(self.host, self.sender_email),
            token_source=tokens,
        ).for_owner(self.tenant_id)


class ReminderDismissal(TenantOwned, Base):
    """An account chose not to see the reminder about a missing mail server in this tenant's workspace again."""

    __tablename__ = "reminder_dismissals"

    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
