"""Which processes of the portal are running: each says so every few seconds, and hands over what it has counted."""

import asyncio
import json
import logging
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import psutil
import psycopg
from flask import Flask
from sqlalchemy import delete, text
from uuid_utils.compat import uuid4

from portal.database import clock, fast_sql
from portal.extensions import db
from portal.monitoring.counters import Counts, take
from portal.monitoring.models import PortalProcess
from portal.signals import retention_due

logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0  # seconds
SILENT_AFTER: Final = timedelta(minutes=1)  # then a process has ended without a word, or hangs
RETENTION: Final = timedelta(days=7)  # of those
# In the order of their keys, so that no two processes wait for each other.
REPORT: Final = """
    WITH process AS (
        INSERT INTO processes (id, kind, host, pid, smtp_slots, smtp_slots_in_use)
        VALUES (%(id)s::uuid, %(kind)s, %(host)s, %(pid)s::int, %(slots)s::int, %(in_use)s::int)
        ON CONFLICT ON CONSTRAINT pk_processes
        DO UPDATE SET seen_at = now(), smtp_slots_in_use = excluded.smtp_slots_in_use
    )
    INSERT INTO metric_values AS total (name, labels, value)
    SELECT name, labels, value
    FROM jsonb_to_recordset(%(counts)s::jsonb) AS counted (name text, labels text, value float8)
    ORDER BY name, labels
    ON CONFLICT ON CONSTRAINT pk_metric_values DO UPDATE SET value = total.value + excluded.value
"""
SILENT: Final = text("""
    SELECT pid, seen_at FROM processes
    WHERE kind = 'worker' AND host = :host AND seen_at < now() - :silent_after ORDER BY seen_at
""")


class Reporter:
    """Reports one process, from its first report to `end`.

    `slots_in_use` returns how many slots for emails it has, and how many are in use.
    """

    def __init__(
        self, app: Flask, kind: Literal["web", "worker"], slots_in_use: Callable[[Flask], tuple[int, int]]
    ) -> None:
        self._app, self._kind, self._slots_in_use = app, kind, slots_in_use
        self._id: UUID = uuid4()
        self._counts: Counts = defaultdict(float)  # that are not stored yet
        self._stop, self._lock = threading.Event(), threading.Lock()

    def report(self) -> None:
        """Say that the process is running, and add what it has counted. Without Postgres, the next report does it."""
        slots, in_use = self._slots_in_use(self._app)
        process = {"id": self._id, "kind": self._kind, "host": socket.gethostname(), "pid": os.getpid()}
        with self._lock:
            take(self._counts)
            counts = [
                {"name": name, "labels": ",".join(values), "value": number}
                for (name, values), number in self._counts.items()
            ]
            if self._run(REPORT, process | {"slots": slots, "in_use": in_use, "counts": json.dumps(counts)}):
                self._counts.clear()

    def start(self) -> None:
        """Report from a thread until `end`."""
        threading.Thread(target=self._report_until_end, name="report", daemon=True).start()

    async def report_while_loop_runs(self) -> None:
        """Report as long as the event loop does its work, until this is cancelled."""
        with ThreadPoolExecutor(1, "report") as executor:
            while True:
                await asyncio.get_running_loop().run_in_executor(executor, self.report)
                await asyncio.sleep(INTERVAL)

    def end(self) -> None:
        """Add what was counted since the last report, and say that the process ends."""
        self._stop.set()
        self.report()
        self._run("DELETE FROM processes WHERE id = %(id)s::uuid", {"id": self._id})  # or it is deleted as old

    def _run(self, statement: str, values: Mapping[str, Any]) -> bool:
        """Return whether a statement was run. The database may be away, or not be upgraded yet."""
        try:
            with self._app.app_context():
                fast_sql.run(statement, values)
        except psycopg.Error as error:
            logger.warning("This process could not report to the database: %s", error)
            return False
        return True

    def _report_until_end(self) -> None:
        self.report()
        while not self._stop.wait(INTERVAL):
            self.report()


def init_app() -> None:
    """Delete processes that were killed whenever the portal deletes old rows."""
    retention_due.connect(delete_old)


def delete_old(_sender: object = None) -> None:
    """Delete the processes that have been silent for long."""
    db.session.execute(delete(PortalProcess).where(PortalProcess.seen_at < clock.now() - RETENTION))
    db.session.commit()


def hung_workers() -> list[int]:
    """Return the process IDs of this host's workers that are running, and have not done their work for a minute."""
    values = {"host": socket.gethostname(), "silent_after": SILENT_AFTER}
    return [row.pid for row in db.session.execute(SILENT, values) if _has_run_since(row.pid, row.seen_at)]


def _has_run_since(pid: int, moment: datetime) -> bool:
    """Return whether a process is running that was at that time: another may have got its process ID."""
    try:
        return psutil.Process(pid).create_time() < moment.timestamp()  # type: ignore[no-any-return]
    except psutil.NoSuchProcess:
        return False
