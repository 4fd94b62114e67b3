"""The wheel in a virtual environment of its own, which takes all other packages from the one that runs the tests."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from portal.config import ROOT, Settings


def build_wheel(folder: Path) -> Path:
    """Build the wheel from the checkout and return its file."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, venv: Path) -> Path:
    """Install the wheel in a new virtual environment and return the command `pbx-portal`."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", "install", *options, str(wheel)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return venv / "bin" / "pbx-portal"


def environment(**variables: str) -> Mapping[str, str]:
    """Return the environment for the installed command: no setting but these."""
    settings = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in settings} | variables
