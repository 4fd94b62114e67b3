"""Deleting what is older than the retention period: events with their emails, statistics, tokens and sessions."""

import logging
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select

from portal import config
from portal.accounts import email_change, kept_forms, rate_limits, sessions
from portal.database import clock
from portal.database.scope import every_tenant
from portal.database.uuid7 import lowest_uuid7
from portal.deliveries import statistics
from portal.deliveries.models import RecordedEvent
from portal.extensions import db
from portal.provisioning import tokens
from portal.signals import retention_due

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 1000  # events


def delete_old_data() -> int:
    """Delete what is older than the retention period, and return how many events there were with their emails.

    Each batch is a transaction of its own that begins where the one before ended, so that none takes longer than the
    first.
    """
    oldest = clock.now() - timedelta(days=config.current().retention_days)
    deleted, last_id = 0, UUID(int=0)
    with every_tenant():
        query = select(RecordedEvent.id).where(RecordedEvent.id < lowest_uuid7(oldest)).order_by(RecordedEvent.id)
        while batch := db.session.scalars(query.where(RecordedEvent.id > last_id).limit(BATCH_SIZE)).all():
            db.session.execute(delete(RecordedEvent).where(RecordedEvent.id.in_(batch)))
            db.session.commit()
            deleted, last_id = deleted + len(batch), batch[-1]
    statistics.delete_before(oldest)
    tokens.erase_expired()
    tokens.delete_old(before=lowest_uuid7(oldest))
    retention_due.send()
    sessions.delete_expired()
    kept_forms.delete_expired()
    email_change.delete_expired()
    rate_limits.delete_empty()
    logger.info("Deleted %d events that are older than the retention period.", deleted)
    return deleted
