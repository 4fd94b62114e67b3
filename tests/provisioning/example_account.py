"""A new user's SIP account, as a PBX reports it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from portal.database import fast_sql
from portal.events.types import UserCreated
from portal.provisioning import tokens
from portal.provisioning.sip_account import SipAccount


def sip_account(username: str = "1001", password: str | None = "open sesame", **fields: Any) -> SipAccount:
    """Return the account of a user with these fields of `user.created`."""
    user = UserCreated(extension_number=username, extension_password=password, **fields)
    return SipAccount.of(user, "acme.example")


def issue_token(
    tenant_id: int, account: SipAccount, lasts: timedelta, event_id: UUID | None = None, audience: str = "user"
) -> str:
    """Issue a token for the account, and return it."""
    new = tokens.new(tenant_id, account, datetime.now(UTC) + lasts, event_id or uuid4(), audience)
    fast_sql.run(*new.statement, scope=str(tenant_id))
    return new.token
