"""Group commit: what several threads want to write at the same moment becomes one transaction.

A commit and the round trip to Postgres cost more than most statements. So a thread that finds nobody writing writes at
once; the others wait, and the first of them then writes for all that wait.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

import psycopg

MAX_TASKS: Final = 16  # in one transaction: the first of them waits for the last
PATIENCE: Final = 0.005  # seconds to wait for a transaction: a longer one may wait for a lock, or for a slow disk

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Entry(Generic[Task, Result]):
    """A thread's task, and what became of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.group: Sequence[_Entry[Task, Result]] = ()  # what this thread is to run, with its own task
        self.results: Sequence[Result] = ()  # the task's own, unless it was not run
        self.failure = ""  # why it is not known whether it was run
        self._lock = Lock()
        self._lock.acquire()

    def wait(self, seconds: float = -1) -> bool:
        """Wait until the task was run, or its thread is to run a group. Return False if that takes too long."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


class GroupCommit(Generic[Task, Result]):
    """Runs one transaction at a time, and others beside one that takes long. Threads may share it."""

    def __init__(self) -> None:
        self._running = 0  # transactions
        self._waiting: deque[_Entry[Task, Result]] = deque()
        self._lock = Lock()

    def run(self, task: Task, run_together: Callable[[Sequence[Task]], Sequence[Result]]) -> Result:
        """Run a task, perhaps together with others, and return its result.

        `run_together` runs tasks in one transaction and returns the result of each. If it fails and Postgres answers,
        each of them is run alone, because one of them was at fault.

        Raises:
            Exception: as `run_together` does.
        """
        entry: _Entry[Task, Result] | None = None
        with self._lock:
            if self._running:
                entry = _Entry(task)
                self._waiting.append(entry)
            else:
                self._running = 1
        if entry is None:
            try:
                return run_together([task])[0]
            finally:
                self._begin_next()
        if not entry.wait(PATIENCE):
            self._begin_beside(entry)
        if entry.group:
            self._run_group(entry.group, run_together)
        if entry.failure:
            raise psycopg.OperationalError(entry.failure)
        return (entry.results or run_together([task]))[0]

    def _run_group(
        self, group: Sequence[_Entry[Task, Result]], run_together: Callable[[Sequence[Task]], Sequence[Result]]
    ) -> None:
        """Run tasks of several threads and wake these. What became of each task is in its entry."""
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
            is_unknown = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            for entry in group:
                entry.failure = str(error) if is_unknown else ""
        finally:
            for entry in group[1:]:
                entry.wake()

    def _begin_next(self) -> None:
        """At the end of a transaction, have the first thread that waits, if there is one, begin another."""
        with self._lock:
            first = self._waiting.popleft() if self._waiting else None
            if first:
                self._give_all_to(first)
                first.wake()
            else:
                self._running -= 1

    def _begin_beside(self, entry: _Entry[Task, Result]) -> None:
        """Have the caller begin a transaction beside those that run. If one of them has its task, wait for its end."""
        with self._lock:
            if is_waiting := entry in self._waiting:
                self._waiting.remove(entry)
                self._running += 1
                self._give_all_to(entry)
        if not is_waiting:
            entry.wait()

    def _give_all_to(self, first: _Entry[Task, Result]) -> None:
        others = [self._waiting.popleft() for _ in range(min(MAX_TASKS - 1, len(self._waiting)))]
        first.group = [first, *others]
