"""Concurrent actions that wait for a lock of the test's transaction."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from flask import Flask

from portal.extensions import db
from tests.sql import sql

Result = TypeVar("Result")

STOPPED = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()
"""


@contextmanager
def blocked_until_done(app: Flask, act: Callable[[], Result]) -> Iterator[Future[Result]]:
    """Run an action in another thread until a lock of this transaction blocks it; it goes on when that ends.

    Within an application context, whose transaction is rolled back in the end if it still holds anything.
    """

    def aside() -> Result:
        with app.app_context():
            return act()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(aside)
        begun = time.monotonic()
        try:
            while not sql(STOPPED)[0][0]:
                assert not future.done(), f"nothing stopped it: {future.result()}"
                assert time.monotonic() - begun < 60
                time.sleep(0.02)
            yield future
        finally:
            db.session.rollback()
