"""The embedded Postgres starts again, whatever a killed one left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from portal.config import ROOT

pytestmark = pytest.mark.slow

START = """
import pathlib, sys
from portal.database import embedded
embedded.start_embedded_postgres(pathlib.Path(sys.argv[1]))
"""


def start(var_dir: Path) -> None:
    """Start it, and stop it with the process that did."""
    subprocess.run([sys.executable, "-c", START, str(var_dir)], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("rest", ["", "999999\n/"])
def test_it_starts_after_a_kill_while_it_wrote_its_lock(tmp_path: Path, rest: str) -> None:
    start(tmp_path)
    (tmp_path / "postgres" / "postmaster.pid").write_text(rest)
    start(tmp_path)
