"""Filling a database: the rows obey the schema, and the indexes are restored."""

import pytest
from flask import Flask

from bench.fill_database import Size, fill
from portal.config import Settings
from portal.deliveries import retention, retry
from tests.sql import sql

pytestmark = pytest.mark.slow

INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
CONSTRAINTS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype <> 'n' ORDER BY 1, 2"


def schema(app: Flask) -> list[object]:
    with app.app_context():
        return [*sql(INDEXES), *sql(CONSTRAINTS)]


def test_it_fills_what_grows_and_leaves_the_schema_alone(app: Flask, acme: str, settings: Settings) -> None:
    before = schema(app)
    assert settings.database_url
    fill(settings.database_url, Size(tenants=60, deliveries=2_000, keyed_tenants=2, keys_each=3, due=500))
    assert schema(app) == before
    with app.app_context():
        counts = [
            sql(f"SELECT count(*) FROM {table}")[0][0]
            for table in ("tenants", "api_keys", "events", "deliveries", "delivery_recipients")
        ]
        assert counts == [60, 6, 2_000, 2_000, 2_000]
        assert len(retry.tenants_with_due()) == 50
        assert 0 < retention.delete_old_data() < 100
