"""`/metrics` for Prometheus: the numbers of all processes on all hosts, from Postgres.

A scrape takes a few statements, each of which reads a bounded number of rows.
"""

import hmac
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import Any, Final

from flask import Blueprint, Response, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import select, text

from portal import config
from portal.accounts.access import for_clients
from portal.alerts.conditions import LAST_HEARTBEAT, MAX_COUNT, free_disk_share
from portal.database.scope import every_tenant
from portal.deliveries.models import DUE_AT, HAS_DUE_TIME, IS_HELD
from portal.deliveries.status import HoldReason
from portal.extensions import db
from portal.monitoring.counters import COUNTERS, HISTOGRAMS, SUM, Counter, Histogram
from portal.monitoring.health_checks import find_database_problem
from portal.monitoring.models import MetricValue
from portal.monitoring.processes import SILENT_AFTER

blueprint = Blueprint("metrics", __name__)

MAX_HELD: Final = 50_000  # emails that are counted
# A key that another one with the same name replaces is not missed when it expires.
GAUGES: Final = f"""
    SELECT
        (SELECT count(*) FROM (SELECT FROM deliveries WHERE {HAS_DUE_TIME} AND {DUE_AT} <= now() LIMIT :most) AS due)
            AS due_emails,
        (SELECT extract(epoch FROM now() - {DUE_AT}) FROM deliveries
            WHERE {HAS_DUE_TIME} AND {DUE_AT} <= now() ORDER BY {DUE_AT} LIMIT 1) AS oldest_due_seconds,
        (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()) AS database_connections,
        current_setting('max_connections')::int AS database_connections_limit,
        (SELECT extract(epoch FROM min(expires_at)) FROM (
            SELECT max(expires_at) AS expires_at FROM api_keys WHERE revoked_at IS NULL
            GROUP BY tenant_id, name HAVING count(*) = count(expires_at)
        ) AS last_of_name WHERE expires_at > now() - interval '30 days') AS key,
        (SELECT extract(epoch FROM min(credential_expires_at)) FROM oauth_connections) AS certificate,
        (SELECT extract(epoch FROM min(lapsed_at)) FROM oauth_connections) AS consent
"""  # noqa: S608 (contains no input)
HELD: Final = f"""
    SELECT reason, count(*) AS count
    FROM (SELECT reason FROM deliveries WHERE {IS_HELD} LIMIT :most) AS held
    GROUP BY reason
"""  # noqa: S608 (contains no input)
PROCESSES: Final = """
    SELECT kind, count(*) AS count, sum(smtp_slots) AS slots, sum(smtp_slots_in_use) AS in_use
    FROM processes WHERE seen_at > now() - :silent_after GROUP BY kind
"""
KINDS: Final = ("web", "worker")
LAPSES: Final = ("key", "certificate", "consent")


class DatabaseCollector(Collector):
    """Reads the numbers when they are asked for."""

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Without a database that is only the one that says so."""
        is_up = find_database_problem() is None
        yield _gauge("database_up", "Whether the database answers and its schema is new enough.", is_up)
        if (free := free_disk_share()) is not None:
            yield _gauge("database_disk_free_ratio", "Which share of the database's disk is free.", free)
        if is_up:
            with every_tenant():
                yield from _counted()
                yield from _gauges()
                yield from _held()
                yield from _processes()
            db.session.rollback()


@blueprint.get("/metrics")
@for_clients
def metrics() -> Response:
    """Return the metrics to a client that sends METRICS_TOKEN. Without this setting, the page does not exist."""
    token = config.current().metrics_token
    if token is None:
        return Response(status=404)
    given = request.authorization.token if request.authorization else None
    if not hmac.compare_digest((given or "").encode(), token.get_secret_value().encode()):
        return Response(status=401, headers={"WWW-Authenticate": "Bearer"})
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _counted() -> Iterator[Metric]:
    """Yield what the processes have counted. What was never counted is 0."""
    rows = db.session.execute(select(MetricValue.name, MetricValue.labels, MetricValue.value))
    values = {(row.name, row.labels): row.value for row in rows}
    for counter in COUNTERS:
        family = CounterMetricFamily(counter.name, counter.help_text, labels=list(counter.labels))
        for labels in _label_values(counter):
            family.add_metric(labels, values.get((counter.name, ",".join(labels)), 0))
        yield family
    for histogram in HISTOGRAMS:
        times = HistogramMetricFamily(histogram.name, histogram.help_text, labels=list(histogram.labels))
        for labels in _label_values(histogram):
            *numbers, seconds = (
                values.get((histogram.name, ",".join((*labels, part))), 0) for part in (*histogram.buckets, SUM)
            )
            times.add_metric(labels, list(zip(histogram.buckets, accumulate(numbers), strict=True)), seconds)
        yield times


def _label_values(metric: Counter | Histogram) -> Iterator[Sequence[str]]:
    return product(*metric.labels.values())


def _gauges() -> Iterator[Metric]:
    row = db.session.execute(text(GAUGES), {"most": MAX_COUNT}).one()
    last_heartbeat, is_running = db.session.execute(text(LAST_HEARTBEAT)).one()
    yield _gauge("worker_up", "Whether a worker has given a sign of life within a minute.", bool(is_running))
    if last_heartbeat:
        help_text = "When a worker last gave a sign of life."
        yield _gauge("worker_heartbeat_timestamp_seconds", help_text, last_heartbeat.timestamp())
    yield _gauge("due_emails", f"Emails whose time to be sent has come, at most {MAX_COUNT}.", row.due_emails)
    help_text = "For how long the oldest due email has been due."
    yield _gauge("oldest_due_email_seconds", help_text, row.oldest_due_seconds or 0)
    yield _gauge("database_connections", "Connections to the database, of everyone.", row.database_connections)
    help_text = "Connections that Postgres accepts."
    yield _gauge("database_connections_limit", help_text, row.database_connections_limit)
    help_text = "When the first key or certificate expires, or since when a consent has lapsed. Absent: none does."
    lapses = {kind: getattr(row, kind) for kind in LAPSES if getattr(row, kind) is not None}
    yield _gauges_by("kind", "lapse_timestamp_seconds", help_text, lapses)


def _held() -> Iterator[Metric]:
    held: dict[str, int] = dict.fromkeys(HoldReason, 0)
    held |= {row.reason: row.count for row in db.session.execute(text(HELD), {"most": MAX_HELD})}
    yield _gauges_by("reason", "held_emails", f"Emails that are held, at most {MAX_HELD} in all.", held)


def _processes() -> Iterator[Metric]:
    rows = {row.kind: row for row in db.session.execute(text(PROCESSES), {"silent_after": SILENT_AFTER})}
    for name, column, help_text in (
        ("processes", "count", "Processes that are running."),
        ("smtp_slots", "slots", "Emails that the running processes can send at the same time."),
        ("smtp_slots_in_use", "in_use", "Emails that they are sending."),
    ):
        numbers = {kind: getattr(rows[kind], column) if kind in rows else 0 for kind in KINDS}
        yield _gauges_by("kind", name, help_text, numbers)


def _gauge(name: str, help_text: str, value: Any) -> Metric:
    return GaugeMetricFamily(f"pbx_portal_{name}", help_text, value=float(value))


def _gauges_by(label: str, name: str, help_text: str, values: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(f"pbx_portal_{name}", help_text, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], float(value))
    return family
