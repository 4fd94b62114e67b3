"""Who looks for alerts: a worker, every minute. While no worker is running, a web process does.

A lock lets one process at a time look and send, whatever their number.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from flask import Flask

from portal.alerts import conditions, notices, recording
from portal.database import process_locks
from portal.extensions import db
from portal.signals import alerts_due, retention_due

logger = logging.getLogger(__name__)

LOCK: Final = 0xA1E27  # of Postgres; no other lock of a process has this number
INTERVAL: Final = 60.0  # seconds


def init_app() -> None:
    """Look for alerts whenever a worker says so, and delete old ones with other old rows."""
    alerts_due.connect(look)
    retention_due.connect(recording.delete_old)


def look(_sender: object = None) -> None:
    """Record the alerts and email the administrators, unless another process is doing so."""
    lock = process_locks.take_any([LOCK])
    if lock is None:
        return
    try:
        recording.record_all()
        notices.tell()
    finally:
        lock.release()


def look_without_worker() -> None:
    """Look for alerts if no worker is running."""
    is_running = conditions.is_worker_running()
    db.session.rollback()
    if not is_running:
        look()


def start(app: Flask) -> tuple[threading.Thread, threading.Event]:
    """Let this web process look for alerts while no worker is running. Return the thread, and what stops it."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=[app, stop], name="alerts", daemon=True)
    thread.start()
    return thread, stop


def _watch(app: Flask, stop: threading.Event) -> None:
    with ThreadPoolExecutor(1, "alerts") as executor:
        while not stop.wait(INTERVAL):
            if error := executor.submit(_look_without_worker, app).exception():  # it must not end the thread
                logger.error("Alerts were not looked for.", exc_info=error)


def _look_without_worker(app: Flask) -> None:
    with app.app_context():
        look_without_worker()
