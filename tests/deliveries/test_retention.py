"""Retention: what is old goes, in short transactions, and what hangs on it goes along."""

import time
from uuid import UUID

import pytest
from flask import Flask

from portal.deliveries import retention
from tests.sql import sql
from tests.tenant_fixtures import PEOPLE, Post

DAY = 24 * 3600 * 1000  # ms
COPIES = """
WITH posted AS (
    SELECT * FROM deliveries WHERE event_id = (SELECT id FROM events WHERE external_id = 'new')
), event AS (
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
    SELECT :key, tenant_id, :key, type, occurred_at, fingerprint, data FROM events WHERE external_id = 'new'
), delivery AS (
    INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, attempts, expires_at)
    SELECT :key, tenant_id, :key, audience, :key, status, attempts, expires_at FROM posted
)
INSERT INTO delivery_recipients (delivery_id, email, tenant_id, position, status)
SELECT :key, email, tenant_id, position, status FROM delivery_recipients WHERE delivery_id = (SELECT id FROM posted)
"""


def recorded(days_ago: float, number: int = 0) -> UUID:
    """Make a UUIDv7 of that time."""
    return UUID(int=(int(time.time() * 1000 - days_ago * DAY) << 80) + number)


def copied(key: UUID) -> None:
    """Record the event and its mail once more under a key of another time."""
    copies = COPIES.replace(":key", f"'{key}'")
    sql(copies)


def count(table: str) -> int:
    return int(sql(f"SELECT count(*) FROM {table}")[0][0] or 0)


def test_what_is_older_than_the_retention_goes_and_nothing_else(app: Flask, post: Post, working_tenant: str) -> None:
    post(id="new")
    with app.app_context():
        for days_ago in (90.01, 89.99):
            copied(recorded(days_ago))
        assert retention.delete_old_data() == 1
        assert (count("events"), count("deliveries"), count("delivery_recipients")) == (2, 2, 2 * len(PEOPLE))


def test_it_goes_in_batches(app: Flask, post: Post, working_tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    post(id="new")
    with app.app_context():
        for number in range(5):
            copied(recorded(100, number))
        assert retention.delete_old_data() == 5
        assert retention.delete_old_data() == 0
        assert count("delivery_recipients") == len(PEOPLE)
