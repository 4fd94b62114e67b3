"""Processor time of programs whose children end."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from bench.processes import cpu_seconds, peak_resident, resident, running

pytestmark = pytest.mark.slow

USED = 0.3  # seconds of processor time
PARENT = """
import subprocess, sys, time
subprocess.call([sys.executable, "-c", "while True: pass"])
time.sleep(60)
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The id of a program whose child ends between the moment it is found and the moment it is looked at."""
    list_children = psutil.Process.children

    def children(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
        found: list[psutil.Process] = list_children(process, recursive)
        with suppress(psutil.NoSuchProcess):
            child.kill()
        while psutil.pid_exists(child.pid):
            time.sleep(0.01)
        return found

    with running([sys.executable, "-c", PARENT]) as process:
        parent = psutil.Process(process.pid)
        while not (started := parent.children()) or started[0].cpu_times().user < USED:
            time.sleep(0.01)
        (child,) = started
        monkeypatch.setattr(psutil.Process, "children", children)
        yield process.pid


def test_the_time_of_a_child_that_ends_meanwhile_is_not_lost(program: int) -> None:
    assert cpu_seconds([program])[0] >= USED


def test_the_memory_of_the_others_is_measured(program: int) -> None:
    assert resident([program]) > 0
    assert peak_resident([program]) > 0
