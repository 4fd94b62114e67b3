"""The contenders: the portal and its alternatives, each ready to be measured against one sink."""

import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

from bench import portal_process
from bench.contender import Contender
from bench.event_bodies import alert, call_lost
from bench.postgres import Postgres
from bench.processes import HOST, MissingProgram, free_port, require_program, running, wait_until_open
from bench.sinks import Sink

TABLES: Final = """
CREATE TABLE events (id uuid PRIMARY KEY, data jsonb NOT NULL, received_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE emails (id uuid PRIMARY KEY, event_id uuid NOT NULL REFERENCES events, status text NOT NULL,
                    sent_at timestamptz);
"""
ALERTMANAGER: Final = """
route: {{receiver: mail, group_by: [...], group_wait: 0s, group_interval: 12h, repeat_interval: 24h}}
receivers:
  - name: mail
    email_configs:
      - {{to: ops@acme.example, from: pbx@acme.example, smarthost: "{host}:{port}", require_tls: false,
         text: "{text}", html: "<p>{text}</p>"}}
"""
TEXT: Final = "Queue {{ .CommonLabels.queue_number }} lost the call of {{ .CommonLabels.caller_number }}."


@contextmanager
def portal(
    postgres: Postgres, sink: Sink, mail_server: Mapping[str, Any] | None = None, **environment: str
) -> Iterator[Contender]:
    """Run the portal, with a tenant whose mail server is the sink; `mail_server` holds its further settings."""
    with portal_process.prepared(postgres.database("portal"), **environment) as ready:
        key = ready.tenant("acme.example", port=sink.port, **(mail_server or {}))
        with portal_process.serving(ready) as served:
            yield Contender(served.port, portal_process.PATH, key, call_lost, (served.web.pid, postgres.pid), sink)


@contextmanager
def by_hand(postgres: Postgres, sink: Sink, **configuration: str) -> Iterator[Contender]:
    """Run the solution by hand; `configuration` is for Flask-Mail."""
    url = postgres.database("by_hand")
    with psycopg.connect(url) as connection:
        connection.execute(TABLES.encode())
    mail = {"MAIL_SERVER": HOST, "MAIL_PORT": str(sink.port), "MAIL_DEFAULT_SENDER": "pbx@acme.example"} | configuration
    environment = {"DATABASE_URL": url} | {f"FLASK_{name}": value for name, value in mail.items()}
    with _flask_app("bench.by_hand:app", environment) as (port, pid, key):
        yield Contender(port, "/events", key, call_lost, (pid, postgres.pid), sink)


@contextmanager
def apprise(_postgres: Postgres, sink: Sink) -> Iterator[Contender]:
    """Run the `apprise` library in a Flask app."""
    if find_spec("apprise") is None:
        raise MissingProgram("apprise is not installed (pip install apprise)")
    url = f"mailto://{HOST}:{sink.port}?from=pbx@acme.example&to=ops@acme.example"
    with _flask_app("bench.apprise_peer:app", {"MAIL_URL": url}) as (port, pid, key):
        yield Contender(port, "/events", key, call_lost, (pid,), sink)


@contextmanager
def _flask_app(name: str, environment: dict[str, str]) -> Iterator[tuple[int, int, str]]:
    port, key = free_port(), secrets.token_urlsafe(32)
    with running(portal_process.gunicorn(name, port), environment | {"KEY": key}) as process:
        wait_until_open(port, process)
        yield port, process.pid, key


@contextmanager
def alertmanager(_postgres: Postgres, sink: Sink) -> Iterator[Contender]:
    """Run Prometheus' Alertmanager: each alert is a group of its own and emailed at once."""
    program, port = require_program("prometheus-alertmanager", "prometheus-alertmanager"), free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "alertmanager.yml")
        file.write_text(ALERTMANAGER.format(host=HOST, port=sink.port, text=TEXT))
        command = [program, f"--config.file={file}", f"--storage.path={folder}", "--log.level=error"]
        with running([*command, f"--web.listen-address={HOST}:{port}", "--cluster.listen-address="]) as process:
            wait_until_open(port, process)
            yield Contender(port, "/api/v2/alerts", "", alert, (process.pid,), sink)


PEERS: Final[Mapping[str, Callable[[Postgres, Sink], AbstractContextManager[Contender]]]] = {
    "portal": portal,
    "Alertmanager": alertmanager,
    "by hand": by_hand,
    "Apprise": apprise,
}


def limit(sink: Sink, events: int, at_once: int) -> float:
    """Return how many emails a second Postfix's `smtp-source` hands to the sink: no HTTP, no database."""
    program = require_program("smtp-source", "postfix")
    emails, began = sink.count(), time.monotonic()
    options = ["-d", "-s", str(at_once), "-m", str(events), "-l", "2000"]
    subprocess.run([program, *options, f"{HOST}:{sink.port}"], check=True, capture_output=True)
    sink.wait_for(emails + events)
    return events / (time.monotonic() - began)


@contextmanager
def start_contender(
    postgres: Postgres, sink: Sink, names: Iterable[str]
) -> Iterator[tuple[dict[str, Contender], list[str]]]:
    """Run contenders by name; yield them, and a sentence about each that is missing."""
    with ExitStack() as stack:
        ready, missing = {}, []
        for name in names:
            try:
                ready[name] = stack.enter_context(PEERS[name](postgres, sink))
            except MissingProgram as reason:
                missing.append(f"{name} is missing: {reason}")
        yield ready, missing
