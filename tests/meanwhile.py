"""Somebody else who does something at the same time, and whom a lock of ours stops half way."""

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
def meanwhile(app: Flask, act: Callable[[], Result]) -> Iterator[Future[Result]]:
    """Let somebody else act until a lock of our transaction stops them: they go on when that has ended.

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
                assert time.monotonic() - begun < 10
                time.sleep(0.02)
            yield future
        finally:
            db.session.rollback()
