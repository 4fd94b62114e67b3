"""Connections to mailboxes by OAuth 2.0."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal import crypto
from portal.audit.mixin import Audited
from portal.database.scope import TenantOrSystemOwned
from portal.extensions import Base
from portal.mail_servers.oauth.identity_providers import (
    PROVIDERS_BY_KEY,
    AppCredentials,
    GrantType,
    IdentityProvider,
    operator_app,
)
from portal.mail_servers.oauth.token_requests import TokenRequest


def secret_context(column: str, tenant_id: int | None) -> str:
    """Return what an encrypted value is bound to: its column and its owner."""
    return f"oauth_connections.{column}:{tenant_id or 'system'}"


def _bound_to(column: str) -> dict[str, Any]:
    context: Callable[[Any], str] = lambda row: secret_context(column, row.tenant_id)  # noqa: E731
    return crypto.encrypted(context)


class OAuthConnection(Audited, TenantOrSystemOwned, Base):
    """How a tenant, or the system where `tenant_id` is NULL, signs in to its mailbox with access tokens.

    A connection is connected from `connected_at` on. It has lapsed if the provider gives no tokens any more until a
    person acts; `lapse_reason` is the provider's error.
    """

    __tablename__ = "oauth_connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", postgresql_nulls_not_distinct=True),
        CheckConstraint("provider IN ('microsoft', 'google')", name="provider_known"),
        CheckConstraint(
            "grant_type IN ('authorization_code', 'client_credentials', 'service_account')", name="grant_type_known"
        ),
    )
    audited_as = "oauth_connection"
    audited_fields = ("provider", "grant_type", "client_id", "directory", "mailbox", "credential_expires_at")
    audited_secrets = ("client_secret_encrypted", "private_key_encrypted")
    audited_states = {"connected_at": ("connected", "disconnected")}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str]
    grant_type: Mapped[str]
    client_id: Mapped[str | None]  # NULL: the operator's app
    client_secret_encrypted: Mapped[bytes | None] = mapped_column(info=_bound_to("client_secret"))
    private_key_encrypted: Mapped[bytes | None] = mapped_column(info=_bound_to("private_key"))
    certificate: Mapped[str | None]  # that of the private key, as PEM
    directory: Mapped[str | None]  # Microsoft's
    mailbox: Mapped[str | None]  # the account that signed in, or that tokens are for
    refresh_token_encrypted: Mapped[bytes | None] = mapped_column(info=_bound_to("refresh_token"))
    access_token_encrypted: Mapped[bytes | None] = mapped_column(info=_bound_to("access_token"))
    access_token_expires_at: Mapped[datetime | None]
    refreshing_until: Mapped[datetime | None]  # a process is getting a new token
    credential_expires_at: Mapped[datetime | None]
    connected_at: Mapped[datetime | None]
    lapsed_at: Mapped[datetime | None]
    lapse_reason: Mapped[str | None]

    @property
    def identity_provider(self) -> IdentityProvider:
        """The provider."""
        return PROVIDERS_BY_KEY[self.provider]

    def read_secret(self, column: str) -> str | None:
        """Return a secret in clear text, or None."""
        stored: bytes | None = getattr(self, f"{column}_encrypted")
        return crypto.keyring().decrypt(stored, secret_context(column, self.tenant_id)) if stored else None

    def write_secret(self, column: str, value: str | None) -> None:
        """Encrypt and set a secret, or remove it."""
        stored = crypto.keyring().encrypt(value, secret_context(column, self.tenant_id)) if value else None
        setattr(self, f"{column}_encrypted", stored)

    @property
    def app(self) -> AppCredentials | None:
        """The app that asks for tokens: the owner's or the operator's. None: it is not registered."""
        if self.client_id is None:
            return operator_app(self.identity_provider)
        return AppCredentials(self.client_id, self.read_secret("client_secret") or "")

    def token_request(self) -> TokenRequest:
        """Return what to ask the provider for."""
        app = self.app or AppCredentials("", "")
        return TokenRequest(
            self.identity_provider,
            GrantType(self.grant_type),
            app.client_id,
            app.client_secret,
            private_key=self.read_secret("private_key"),
            certificate=self.certificate,
            directory=self.directory,
            mailbox=self.mailbox,
            refresh_token=self.read_secret("refresh_token"),
        )
