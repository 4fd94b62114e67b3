"""The embedded Postgres starts again, whatever a killed one left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from portal.config import ROOT

pytestmark = pytest.mark.slow

START = """
import pathlib, sys, time
from portal.database import embedded
embedded.start_embedded_postgres(pathlib.Path(sys.argv[1]))
time.sleep(float(sys.argv[2]))
"""


def start(var_dir: Path, processes: int = 1, seconds: float = 0) -> list[int]:
    """Start it in some processes at once, which end after a while: it stops with the last. Return their statuses."""
    command = [sys.executable, "-c", START, str(var_dir), str(seconds)]
    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(processes)]
    return [process.wait(timeout=120) for process in started]


def test_processes_that_start_it_at_once_share_it(tmp_path: Path) -> None:
    assert start(tmp_path, processes=5, seconds=2) == [0] * 5


@pytest.mark.parametrize("rest", ["", "999999\n/"])
def test_it_starts_after_a_kill_while_it_wrote_its_lock(tmp_path: Path, rest: str) -> None:
    assert start(tmp_path) == [0]
    (tmp_path / "postgres" / "postmaster.pid").write_text(rest)
    assert start(tmp_path) == [0]
