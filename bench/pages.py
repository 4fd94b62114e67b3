"""The pages of a tenant beside those of Django's admin: time to the first byte, and what a first visit loads."""

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from statistics import median
from typing import Final

from bench import portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import call_lost
from bench.http_client import Browser
from bench.measurement import Table, median_of, ratio, ratio_text
from bench.processes import free_port, running, wait_until_open
from bench.rounds import compare
from portal.accounts import service as account_service
from portal.web.pagination import PAGE_SIZE

DOMAIN: Final = "acme.example"
EMAIL: Final = "admin@acme.example"
PASSWORD: Final = "a long enough password"
VISITS: Final = 30  # of each page in a round
WARM_UP: Final = 10
MAX_BYTES: Final = 150_000
PEER: Final = "Django admin: form of a user"


def run(rounds: int) -> Sequence[Table]:
    """Visit each page in turns."""
    with postgres.running() as server, sinks.sink() as sink, portal(server, sink) as ours, django(server) as theirs:
        pages = {**ours, **theirs}
        samples = compare({name: partial(_first_byte, *page) for name, page in pages.items()}, rounds)
        rows = [
            [
                name,
                f"{median_of(samples, name):.1f} ms",
                ratio_text(ratio(samples, name, PEER)),
                f"{browser.get(path).size / 1000:.1f} kB",
                f"{browser.first_visit(path) / 1000:.1f} kB",
            ]
            for name, (browser, path) in pages.items()
        ]
    columns = ("", "first byte", "÷ the form of Django's", "the page itself", "first visit")
    note = (
        f"Medians of {VISITS} visits in a round; bytes as they are sent, compressed. Goal: less than "
        f"{MAX_BYTES / 1000:.0f} kB. A second visit loads the page alone: all else stays in the browser for a year, "
        "and a changed file has another name."
    )
    return [Table("Pages", columns, rows, note)]


def _first_byte(browser: Browser, path: str) -> float:
    """Return the median time to the first byte, in ms."""
    for _ in range(WARM_UP):
        assert browser.get(path).status == HTTPStatus.OK, path
    return median(browser.get(path).seconds for _ in range(VISITS)) * 1000


Pages = Mapping[str, tuple[Browser, str]]


@contextmanager
def portal(server: postgres.Postgres, sink: sinks.Sink) -> Iterator[Pages]:
    """Run the portal with two pages of events, and yield its pages."""
    with portal_process.prepared(server.database("portal")) as ready:
        key = ready.tenant(DOMAIN, port=sink.port)
        with ready.app.app_context():
            account_service.add(EMAIL, PASSWORD, tenant_id=1)
        with portal_process.serving(ready) as served:
            Contender(served.port, portal_process.PATH, key, call_lost, (), sink).run(2 * PAGE_SIZE, 4)
            browser = Browser(served.port)
            browser.sign_in("/sign-in", email=EMAIL, password=PASSWORD)
            workspace = f"/tenants/{DOMAIN}"
            yield {
                "sign-in": (Browser(served.port), "/sign-in"),
                f"delivery log, {PAGE_SIZE} events": (browser, f"{workspace}/deliveries"),
                "mail server": (browser, f"{workspace}/mail-server"),
                "notifications": (browser, f"{workspace}/notifications"),
                "keys": (browser, f"{workspace}/keys"),
            }


@contextmanager
def django(server: postgres.Postgres) -> Iterator[Pages]:
    """Run Django's admin, and yield its pages."""
    environment = {"DATABASE_URL": server.database("django"), "KEY": secrets.token_urlsafe(32)}
    with running([sys.executable, "-m", "bench.django_admin"], environment) as preparing:
        if preparing.wait():
            raise subprocess.CalledProcessError(preparing.returncode, preparing.args)
    port = free_port()
    with running(portal_process.gunicorn("bench.django_admin:app", port), environment) as process:
        wait_until_open(port, process)
        browser = Browser(port)
        browser.sign_in("/admin/login/", username="root", password=PASSWORD, next="/admin/")
        yield {
            "Django admin: sign-in": (Browser(port), "/admin/login/"),
            "Django admin: list of users": (browser, "/admin/auth/user/"),
            PEER: (browser, "/admin/auth/user/1/change/"),
        }
