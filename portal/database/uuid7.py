"""Bounds for ids of version 7, which begin with the time of their creation (RFC 9562, section 5.7)."""

from datetime import datetime
from uuid import UUID


def lowest_uuid7(moment: datetime) -> UUID:
    """Return the lowest id that can be created at this moment or later."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)
