"""Emails that are due all at once: how fast workers send them, and how long another tenant's few emails wait."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import psycopg

from bench import portal_process, postgres, sinks
from bench.measurement import Table, report
from bench.portal_process import Portal
from bench.postgres import Postgres
from bench.processes import running
from bench.rounds import watched
from bench.sinks import Sink

EMAILS: Final = 20_000
QUICK_EMAILS: Final = 4_000
ROUNDS: Final = 5
TENANTS: Final = 20
OTHERS: Final = 100  # emails of a tenant that come while another tenant's are being sent
TIME_LIMIT: Final = 600.0  # seconds of one measurement

# Ids begin with the time in milliseconds: "f" keeps random ones from being deleted as old.
DUE_EMAILS: Final = """
WITH event AS (
    INSERT INTO events (id, tenant_id, external_id, type, occurred_at, fingerprint, data)
    SELECT ('f' || substr(gen_random_uuid()::text, 2))::uuid, tenant_id, gen_random_uuid()::text,
        'queue.call_lost', now(), sha256('x'),
        jsonb_build_object('queue_number', '8000', 'caller_number', '+442079460123', 'waited_seconds', n)
    FROM unnest(%(tenants)s::int[]) AS tenant_id, generate_series(1, %(count)s) AS n
    RETURNING id, tenant_id
), delivery AS (
    INSERT INTO deliveries
        (id, tenant_id, event_id, audience, message_id, status, attempts, next_attempt_at, expires_at)
    SELECT ('f' || substr(gen_random_uuid()::text, 2))::uuid, tenant_id, id, 'recipients',
        '<' || id || '@portal.test>', 'deferred', 1, now(),
        now() + interval '1 day'
    FROM event
    RETURNING id, tenant_id
)
INSERT INTO delivery_recipients (delivery_id, email, tenant_id, position, status)
SELECT id, 'ops@acme.example', tenant_id, 0, 'deferred' FROM delivery
"""
UNSENT: Final = "SELECT count(*) FROM deliveries WHERE tenant_id = %(tenant)s AND status <> 'sent'"


def run(rounds: int) -> Sequence[Table]:
    """Return the times that one worker and two workers take. With few rounds there are fewer emails."""
    emails = EMAILS if rounds >= ROUNDS else QUICK_EMAILS
    with postgres.running() as server, sinks.sink() as near, sinks.from_afar(near) as far:
        rows = []
        for name, sink, count in (("near", near, emails), ("20 ms away", far, QUICK_EMAILS)):
            with _tenants(server, sink) as (portal, connection):
                for tenants, workers in ((TENANTS, 1), (TENANTS, 2), (1, 1)):
                    rate, seconds = _drain(portal, connection, sink, count, tenants, workers)
                    rows.append([name, f"{count:,} of {tenants}", str(workers), f"{seconds:.1f} s", f"{rate:.0f}"])
                if sink is near:
                    wait = _wait_of_another(portal, connection, sink, emails)
    note = (
        f"From the first email to the last. A worker sends at most 4 emails of a tenant at a time, and 12 in all. "
        f"{OTHERS} emails of another tenant, due in the middle of one tenant's {emails:,}: all sent in {wait:.1f} s."
    )
    columns = ["mail server", "emails, tenants", "workers", "time", "emails a second"]
    return [Table("A backlog of due emails", columns, rows, note)]


@contextmanager
def _tenants(server: Postgres, sink: Sink) -> Iterator[tuple[Portal, psycopg.Connection]]:
    """Yield a portal with tenants, the last of which has no backlog, and a connection to its database."""
    url = server.database("portal")
    with portal_process.prepared(url) as portal, psycopg.connect(url, autocommit=True) as connection:
        for number in range(TENANTS + 1):
            portal.tenant(f"tenant{number}.example", port=sink.port)
        yield portal, connection


def _drain(
    portal: Portal, connection: psycopg.Connection, sink: Sink, emails: int, tenants: int, workers: int
) -> tuple[float, float]:
    """Return the emails a second, and the seconds from the first email to the last."""
    _make_due(connection, range(1, tenants + 1), emails // tenants)
    before = sink.count()
    with _workers(portal, workers), watched():
        _wait(lambda: sink.count() > before)
        began = sink.count()
        seconds = _wait(lambda: sink.count() - before >= emails)
        rate = (sink.count() - began) / seconds
        report(f"  {emails:,} emails of {tenants} tenants, {workers} workers: {seconds:.1f} s")
    return rate, seconds


def _wait_of_another(portal: Portal, connection: psycopg.Connection, sink: Sink, emails: int) -> float:
    """Return how many seconds another tenant's emails wait while one tenant's emails are being sent."""
    _make_due(connection, [1], emails)
    before, other = sink.count(), TENANTS + 1
    with _workers(portal, 1):
        _wait(lambda: sink.count() - before >= emails // 10)
        connection.execute(DUE_EMAILS, {"tenants": [other], "count": OTHERS})
        return _wait(lambda: connection.execute(UNSENT, {"tenant": other}).fetchone() == (0,))


def _make_due(connection: psycopg.Connection, tenants: Sequence[int], count: int) -> None:
    connection.execute("DELETE FROM procrastinate_jobs; TRUNCATE events CASCADE")
    connection.execute(DUE_EMAILS, {"tenants": list(tenants), "count": count})
    connection.execute("VACUUM ANALYZE events, deliveries, delivery_recipients")


@contextmanager
def _workers(portal: Portal, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(running(portal_process.worker_command(), portal.environment))
        yield


def _wait(is_over: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not is_over() and time.monotonic() - began < TIME_LIMIT:
        time.sleep(0.02)
    return time.monotonic() - began
