"""The portal on a filled database, and the work whose time should not depend on the amount of data."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import count
from statistics import median
from typing import Final, TypeAlias

import psycopg
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from bench.fill_database import Size, fill
from bench.http_client import TOKEN
from bench.measurement import report
from bench.portal_process import PATH, Portal, prepared
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.database import fast_sql
from portal.database.scope import owner_connection
from portal.deliveries import retry, statistics
from portal.extensions import db
from portal.monitoring.metrics import DatabaseCollector
from portal.overview import worst_tenants
from portal.web.pagination import PAGE_SIZE

DOMAIN: Final = "acme.example"
CALLS: Final = 60  # in a round
SMALL_TABLE: Final = 1_000  # rows: to read such a table whole is as quick as an index

Work: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Filled:
    """The portal on a filled database."""

    portal: Portal
    url: str
    work: Mapping[str, Work]

    def milliseconds(self, name: str) -> float:
        """Return the median time of a round's runs, soon after a worker's periodic work."""
        with self.portal.app.app_context():
            statistics.update()
            worst_tenants.store()
        seconds = []
        for _ in range(CALLS):
            began = time.perf_counter()
            self.work[name]()
            seconds.append(time.perf_counter() - began)
        return median(seconds) * 1000

    def rows_without_index(self, name: str) -> float:
        """Return how many rows of large tables a run reads without an index."""
        before = self._rows_read()
        for _ in range(CALLS):
            self.work[name]()
        return (self._rows_read() - before) / CALLS

    def _rows_read(self) -> int:
        with self.portal.app.app_context():
            db.engine.dispose()  # a connection that ends tells what it has read
            fast_sql.dispose()
        query = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE n_live_tup > %s"
        time.sleep(0.2)
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query, [SMALL_TABLE]).fetchone()
        return int(row[0] or 0) if row else 0


@contextmanager
def filled(url: str, size: Size, smtp_port: int) -> Iterator[Filled]:
    """Fill a database and yield the portal on it."""
    report(f"Filling a database with {size.deliveries:,} deliveries …")
    with prepared(url) as portal:
        key = portal.tenant(DOMAIN, port=smtp_port)
        fill(url, size)
        yield Filled(portal, url, works(portal.app, key))


def works(app: Flask, key: str) -> Mapping[str, Work]:
    """Return the work to measure, by name."""
    browser = _signed_in(app)
    log = f"/tenants/{DOMAIN}/deliveries"
    pages = {
        "overview of a tenant": f"/tenants/{DOMAIN}/overview",
        "overview of the system": "/system/overview",
        "log, newest page": log,
        "log, oldest page": f"{log}?before={_oldest_page(app)}",
        "log, events of a queue": f"{log}?queue=8000",
        "tenants, a search with 6 hits": "/system/tenants?q=needle",
        "tenants, a search without a hit": "/system/tenants?q=nobody",
        "tenants, a search that hits nearly all": "/system/tenants?q=customer",
        "search of all tenants, an event ID": f"/system/search?q={_oldest_event(app)}",
        "search of all tenants, a recipient": "/system/search?q=ops%40customer7.pbx.example",
        "mail server": f"/tenants/{DOMAIN}/mail-server",
    }
    return {
        "event, with its mail": partial(_post, app.test_client(), key, count()),
        **{name: partial(_get, browser, path) for name, path in pages.items()},
        "what is due for a retry": partial(_due, app),
        "scrape of the metrics": partial(_scrape, app),
    }


def _signed_in(app: Flask) -> FlaskClient:
    form = {"email": "root@pbx.example", "password": "a long enough password"}
    with app.app_context():
        account = account_service.add(*form.values(), system_administrator=True)
        assert isinstance(account, Account)
    browser = app.test_client()
    token = TOKEN.search(browser.get("/sign-in").get_data(as_text=True))
    assert token
    answer = browser.post("/sign-in", data={token[1]: token[2], **form})
    assert answer.status_code == HTTPStatus.FOUND
    return browser


def _oldest_page(app: Flask) -> str:
    """Return the key before which the tenant has one page left."""
    return _first(app, f"SELECT id FROM events WHERE tenant_id = 1 ORDER BY id LIMIT 1 OFFSET {PAGE_SIZE}")


def _oldest_event(app: Flask) -> str:
    """Return the ID that the PBX gave to the tenant's oldest event."""
    return _first(app, "SELECT external_id FROM events WHERE tenant_id = 1 ORDER BY id LIMIT 1")


def _first(app: Flask, query: str) -> str:
    with app.app_context(), owner_connection() as connection:
        return str(connection.execute(text(query)).scalar_one())


def _post(client: FlaskClient, key: str, numbers: Iterator[int]) -> None:
    data = {"queue_number": f"7{next(numbers)}", "caller_number": "+442079460123", "waited_seconds": 90}
    body = {"type": "queue.call_lost", "data": data}
    answer = client.post(PATH, json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.get_json()["status"] == "sent", answer.get_json()


def _get(browser: FlaskClient, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == HTTPStatus.OK, path


def _due(app: Flask) -> None:
    with app.app_context():
        assert retry.tenants_with_due()


def _scrape(app: Flask) -> None:
    with app.app_context():
        assert list(DatabaseCollector().collect())
