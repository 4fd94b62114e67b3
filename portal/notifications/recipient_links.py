"""The links in emails with which recipients change what they get, without signing in.

A link is signed with the key ring for one recipient of one tenant, whose email address is part of what is signed and
not of the link. So it stops working when the recipient is removed. An email to several recipients has a link of the
tenant, with which a recipient can ask for their own.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from portal import config, crypto
from portal.database import clock
from portal.database.scope import enter_scope
from portal.extensions import db
from portal.notifications import recipients
from portal.notifications.models import Recipient
from portal.tenants.models import Tenant

LIFETIME: Final = timedelta(days=90)
_HEAD: Final = struct.Struct(">II")  # the tenant's id, and when the link was made, in seconds
_LENGTH: Final = 54  # 8 bytes and a signature of 32, in Base64 (RFC 4648, section 5) without its padding
ANY_RECIPIENT: Final = ""


@dataclass(frozen=True, slots=True)
class RecipientLink:
    """A link that the portal signed: for a recipient, or None for an email to several or one that has expired."""

    tenant: Tenant
    recipient: Recipient | None


def new_url(tenant_id: int, email: str = ANY_RECIPIENT) -> str:
    """Return the URL of a new link for a recipient of the tenant, or for an email to several."""
    head = _HEAD.pack(tenant_id, int(clock.now().timestamp()))
    signed = head + crypto.keyring().fingerprint(_content(head, email))
    token = base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
    return f"{config.current().portal_url}/email-settings/{token}"


def read(token: str, *, for_change: bool = False) -> RecipientLink | None:
    """Return the link of a token and enter the scope of its tenant. None: the portal did not sign it, or not any more.

    The signature fits one recipient. Of each one, it takes microseconds to find out. For a change, the recipients are
    locked until the next commit.
    """
    signed = _decode(token)
    if signed is None:
        return None
    head, signature = signed[: _HEAD.size], signed[_HEAD.size :]
    tenant_id, issued_at = _HEAD.unpack(head)
    tenant = db.session.get(Tenant, tenant_id) if tenant_id < 2**31 else None
    if tenant is None:
        return None
    enter_scope(tenant.id)
    has_signature = crypto.keyring().has_fingerprint
    if has_signature(_content(head, ANY_RECIPIENT), signature):
        return RecipientLink(tenant, None)
    owned = [row for row in recipients.list_recipients() if has_signature(_content(head, row.email), signature)]
    if owned and for_change:
        owned = [row for row in recipients.lock_recipients(tenant) if row.id == owned[0].id]
    if not owned:
        return None
    is_expired = datetime.fromtimestamp(issued_at, UTC) + LIFETIME <= clock.now()
    return RecipientLink(tenant, None if is_expired else owned[0])


def _content(head: bytes, email: str) -> bytes:
    return b"recipient link\0" + head + email.lower().encode()


def _decode(token: str) -> bytes | None:
    if len(token) != _LENGTH or not token.isascii():
        return None
    try:
        signed = base64.b64decode(f"{token}==", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return signed if base64.urlsafe_b64encode(signed).rstrip(b"=").decode() == token else None
