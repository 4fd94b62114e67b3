"""Group commit: what several threads want to write at the same moment becomes one transaction.

A commit and the round trip to Postgres cost more than most statements. So a thread that finds nobody writing writes at
once; the others wait, and the first of them then writes for all that wait. Nobody waits for company.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

import psycopg

MAX_TASKS: Final = 32  # in one transaction: the first of them waits for the last
STOPPING: Final = "57P"  # how the SQLSTATE of a Postgres that stops or starts begins

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Entry(Generic[Task, Result]):
    """A thread's task, and what became of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.group: Sequence[_Entry[Task, Result]] = ()  # what this thread is to run, if it is the first of them
        self.results: Sequence[Result] = ()  # the task's own, unless it was not run
        self.failure = ""  # why it is not known whether it was run
        self._lock = Lock()
        self._lock.acquire()

    def wait(self, seconds: float = -1) -> bool:
        """Wait until `wake` is called: it was run, or its thread is to run a group. Return False if it was not."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


class GroupCommit(Generic[Task, Result]):
    """Runs one transaction after the other. Threads may share it."""

    def __init__(self) -> None:
        self._is_running = False
        self._waiting: deque[_Entry[Task, Result]] = deque()
        self._lock = Lock()

    def run(self, task: Task, run_together: Callable[[Sequence[Task]], Sequence[Result]], timeout: float) -> Result:
        """Run a task, perhaps together with others, and return its result.

        `run_together` runs tasks in one transaction and returns the result of each. If it fails and Postgres answers,
        each of them is run alone, because one of them was at fault.

        Raises:
            psycopg.OperationalError: the transactions before took longer than `timeout` seconds.
            Exception: as `run_together` does.
        """
        entry: _Entry[Task, Result] | None = None
        with self._lock:
            if self._is_running:
                entry = _Entry(task)
                self._waiting.append(entry)
            self._is_running = True
        if entry is None:
            try:
                return run_together([task])[0]
            finally:
                self._begin_next()
        if not entry.wait(timeout):
            self._leave(entry)
        if entry.group:
            self._run_group(entry.group, run_together)
        if entry.failure:
            raise psycopg.OperationalError(entry.failure)
        return (entry.results or run_together([task]))[0]

    def _leave(self, entry: _Entry[Task, Result]) -> None:
        """Take a task back, or wait for its end if it is already running."""
        with self._lock:
            if is_waiting := entry in self._waiting:
                self._waiting.remove(entry)
        if is_waiting:
            raise psycopg.OperationalError("All connections to Postgres are in use.")
        entry.wait()

    def _run_group(
        self,
        group: Sequence[_Entry[Task, Result]],
        run_together: Callable[[Sequence[Task]], Sequence[Result]],
    ) -> None:
        """Run tasks and wake their threads. What became of each is in its entry."""
        for entry in group:
            entry.failure = "The thread that ran the statement was interrupted."
        try:
            try:
                results = run_together([entry.task for entry in group])
            finally:
                self._begin_next()
            for entry, result in zip(group, results, strict=True):
                entry.results, entry.failure = [result], ""
        except Exception as error:  # noqa: BLE001 (whatever it is, the task that is at fault raises it again)
            for entry in group:
                entry.failure = str(error) if _may_be_written(error) else ""
        finally:
            for entry in group[1:]:
                entry.wake()

    def _begin_next(self) -> None:
        """Have the first thread that waits, if there is one, run the tasks of all that wait."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(MAX_TASKS, len(self._waiting)))]
            self._is_running = bool(group)
        if group:
            group[0].group = group
            group[0].wake()


def _may_be_written(error: Exception) -> bool:
    """Return whether Postgres does not answer, so that it is not known what it did."""
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(STOPPING)
