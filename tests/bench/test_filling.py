"""Filling a database: its rows keep all rules of the schema, and its indexes are as they were."""

from flask import Flask

from bench.filling import Size, fill
from portal.config import Settings
from portal.deliveries import endings, retry
from tests.sql import sql

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
            for table in ("tenants", "pbx_keys", "events", "deliveries", "delivery_recipients")
        ]
        assert counts == [60, 6, 2_000, 2_000, 2_000]
        assert len(retry.due(1_000)) == 500
        assert 0 < endings.purge() < 100
