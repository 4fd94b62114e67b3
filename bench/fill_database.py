"""Fills a database with tenants, keys and old deliveries, in a few SQL statements."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from string import Template

import psycopg

from bench.measurement import report

WITHOUT_RECIPIENTS = range(40, 52)  # the ids of tenants with a problem: more than a page shows
DAYS = 91  # one more than the retention, so that there is something to delete
BATCH = 1_000_000  # rows of a statement: as often one hears how far it is
GROWING = ("events", "deliveries", "delivery_recipients", "delivery_attempts")


@dataclass(frozen=True, slots=True)
class Size:
    """The amount of data: the first tenant has a tenth of the deliveries; `due` deliveries wait for a worker."""

    tenants: int
    deliveries: int
    keyed_tenants: int
    keys_each: int
    due: int = 500


FUNCTIONS = """
-- The time of the nth event in ms: they are spread evenly, the last one is of now.
CREATE FUNCTION pg_temp.ms(n bigint) RETURNS bigint IMMUTABLE
RETURN $now_ms - ($deliveries - n) * $days * 86400000 / $deliveries;
CREATE FUNCTION pg_temp.moment(n bigint) RETURNS timestamptz IMMUTABLE
RETURN to_timestamp(pg_temp.ms(n) / 1000.0::float8);
-- A UUIDv7 (RFC 9562, section 5.7) of that time, the same each time.
CREATE FUNCTION pg_temp.key(kind text, n bigint) RETURNS uuid IMMUTABLE
RETURN overlay(overlay(md5(kind || n) PLACING lpad(to_hex(pg_temp.ms(n)), 12, '0') || '7' FROM 1 FOR 13)
               PLACING '8' FROM 17 FOR 1)::uuid;
-- A tenth belongs to the first tenant; of the others, some have much more than others. What is due is of 50 tenants.
CREATE FUNCTION pg_temp.tenant(n bigint) RETURNS int IMMUTABLE
RETURN CASE WHEN n > $deliveries - $due THEN 2 + n % 50 WHEN n % 10 = 0 THEN 1
            ELSE 2 + floor(($tenants - 1) * power(mod(n * 7919, 100003) / 100003.0::float8, 2))::int END;
CREATE FUNCTION pg_temp.status(n bigint, chance int) RETURNS text IMMUTABLE
RETURN CASE WHEN n > $deliveries - $due OR n > $deliveries * ($days - 1) / $days AND chance > 900
            THEN 'deferred'
            WHEN chance < 20 THEN 'failed' WHEN chance < 23 THEN 'expired' WHEN chance < 25 THEN 'discarded'
            WHEN chance < 26 THEN 'held' ELSE 'sent' END
"""

TENANTS = """
INSERT INTO tenants (name, domain, time_zone, language)
SELECT CASE WHEN n <= 6 THEN 'Needle ' ELSE 'Customer ' END || n, 'customer' || n || '.pbx.example', 'UTC', 'en'
FROM generate_series(1, $tenants - 1) AS n;
INSERT INTO mail_servers (tenant_id, provider, host, port, encryption, auth_mode, sender_email, shared)
SELECT id, 'smtp', 'smtp.' || domain, 587, 'starttls', 'none', 'pbx@' || domain, false FROM tenants WHERE id > 1;
INSERT INTO recipients (tenant_id, email)
SELECT id, who || domain FROM tenants, unnest(ARRAY['ops@', 'night@']) AS who
WHERE id > 1 AND id NOT IN ($without_recipients);
INSERT INTO notification_settings (tenant_id, event_type, enabled, audience)
SELECT id, 'queue.' || kind, true, 'both'
FROM tenants, unnest(ARRAY['call_lost', 'callback_completed', 'callback_failed', 'sla_breached']) AS kind WHERE id > 1;
INSERT INTO api_keys (tenant_id, key_hash, prefix)
SELECT id, sha256(uuid_send(gen_random_uuid())), 'pbx_' || n
FROM tenants, generate_series(1, $keys_each) AS n WHERE id BETWEEN 2 AND $keyed_tenants + 1
"""

ROWS = {
    "events": """
INSERT INTO events (id, tenant_id, external_id, type, occurred_at, received_at, fingerprint, data)
SELECT pg_temp.key('event', n), pg_temp.tenant(n), md5('id' || n)::uuid::text, 'queue.call_lost',
       pg_temp.moment(n), pg_temp.moment(n), sha256(n::text::bytea),
       jsonb_build_object('queue_number', '8000', 'queue_name', 'Support', 'caller_number', '+4420' || n,
                          'waited_seconds', n % 600)""",
    "deliveries": """
INSERT INTO deliveries (id, tenant_id, event_id, audience, message_id, status, reason, mail_server_label, attempts,
                        next_attempt_at, expires_at, created_at, last_attempt_at)
SELECT pg_temp.key('mail', n), pg_temp.tenant(n), pg_temp.key('event', n), 'recipients',
       '<' || md5('message' || n) || '@pbx.example>', status, CASE status WHEN 'held' THEN 'mail_server_rejected' END,
       'smtp.pbx.example:587', 1,
       CASE status WHEN 'deferred' THEN
           to_timestamp($now_ms / 1000)
           + interval '1 minute' * CASE WHEN n > $deliveries - $due THEN -1 ELSE 1440 END
       END,
       CASE status WHEN 'expired' THEN least(pg_temp.moment(n) + interval '1 day', to_timestamp($now_ms / 1000))
                   ELSE pg_temp.moment(n) + interval '100 days' END,
       pg_temp.moment(n), pg_temp.moment(n)""",
    "delivery_recipients": """
INSERT INTO delivery_recipients (delivery_id, email, tenant_id, position, status, stage, code, enhanced_code, text)
SELECT pg_temp.key('mail', n), 'ops@customer' || pg_temp.tenant(n) || '.pbx.example', pg_temp.tenant(n), 0, status,
       'data', CASE status WHEN 'sent' THEN 250 WHEN 'failed' THEN 550 ELSE 451 END, '2.0.0',
       '2.0.0 Ok: queued as ' || upper(substr(md5('queued' || n), 1, 10))""",
}
RANGE = """
FROM (SELECT n, pg_temp.status(n, hashint8(n) & 1023) AS status FROM generate_series({}::bigint, {}) AS n) AS rows"""

# Foreign keys depend on the others, so they are dropped first and added last.
TAKE = """
INSERT INTO taken
SELECT format('ALTER TABLE %%I DROP CONSTRAINT %%I', relname, conname),
       format('ALTER TABLE %%I ADD CONSTRAINT %%I %%s', relname, conname, pg_get_constraintdef(pg_constraint.oid)),
       contype = 'f'
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE relname = ANY (%s) AND contype IN ('p', 'u', 'f')
UNION ALL
SELECT format('DROP INDEX %%I', indexname), indexdef, false
FROM pg_indexes WHERE tablename = ANY (%s) AND indexname LIKE 'ix%%'
"""


def fill(url: str, size: Size) -> None:
    """Fill a migrated database whose only tenant has the id 1."""
    values = {
        "tenants": size.tenants,
        "deliveries": size.deliveries,
        "keyed_tenants": size.keyed_tenants,
        "keys_each": size.keys_each,
        "due": size.due,
        "days": DAYS,
        "without_recipients": ", ".join(map(str, WITHOUT_RECIPIENTS)),
        "now_ms": time.time_ns() // 1_000_000,
    }
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'; SET work_mem = '256MB'")
        connection.execute(Template(f"{FUNCTIONS};{TENANTS}").safe_substitute(values).encode())
        with _without_indexes(connection):
            for table, insert in ROWS.items():
                for first in range(1, size.deliveries + 1, BATCH):
                    last = min(first + BATCH - 1, size.deliveries)
                    statement = Template(insert).safe_substitute(values) + RANGE.format(first, last)
                    connection.execute(statement.encode())
                    report(f"  {last:,} {table}")
        connection.execute("VACUUM (ANALYZE)")


@contextmanager
def _without_indexes(connection: psycopg.Connection) -> Iterator[None]:
    """Drop the keys and indexes of the growing tables and create them again: sorting once is faster."""
    connection.execute("CREATE TEMP TABLE taken (drop text, make text, late boolean)")
    connection.execute(TAKE, [list(GROWING), list(GROWING)])
    for late in (True, False):
        for (statement,) in connection.execute("SELECT drop FROM taken WHERE late = %s", [late]).fetchall():
            connection.execute(statement)
    yield
    for late in (False, True):
        for (statement,) in connection.execute("SELECT make FROM taken WHERE late = %s", [late]).fetchall():
            report(f"  {statement}")
            connection.execute(statement)
