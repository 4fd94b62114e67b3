"""A new user's SIP account, as a PBX reports it."""

from typing import Any

from portal.events.types import UserCreated
from portal.provisioning.sip_account import SipAccount


def sip_account(username: str = "1001", password: str | None = "open sesame", **fields: Any) -> SipAccount:
    """Return the account of a user with these fields of `user.created`."""
    user = UserCreated(extension_number=username, extension_password=password, **fields)
    return SipAccount.of(user, "acme.example")
