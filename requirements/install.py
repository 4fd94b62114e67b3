"""Installs packages into the virtual environment .venv, which exists: with uv where possible, otherwise with pip.

Usage: python requirements/install.py [--no-deps] [-r LIST.txt | PACKAGE] ...

uv comes from the package index, as any other package, and installs a pinned list about ten times as fast as pip. On a
platform without uv, or when uv fails (it does not read pip's proxy and certificate settings), pip does the work. The
script runs under any Python from 3.11, with its standard library alone.
"""

import ensurepip
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE.parent / ".venv"
BIN = VENV / "bin"
INDEX = VENV / "package-index"  # the index that pip is configured to use, for uv, which does not read pip's settings
PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--root-user-action=ignore")


def main(arguments: Sequence[str]) -> int:
    """Install, and return the exit status."""
    if _has_uv() and _install_with_uv(arguments):
        return 0
    print("  uv is not available here. Installing with pip, which takes longer …", flush=True)
    return _install_with_pip(arguments)


def _has_uv() -> bool:
    if (BIN / "uv").exists():
        return True
    done = _run(*_any_pip(), "install", *PIP_OPTIONS, "--only-binary=:all:", "-r", str(HERE / "uv.txt"))
    for line in done.stdout.splitlines():
        if line.startswith("Looking in indexes: ") and "****" not in line:  # pip hides passwords
            INDEX.write_text(line.removeprefix("Looking in indexes: ").split(",")[0])
    return done.returncode == 0


def _install_with_uv(arguments: Sequence[str]) -> bool:
    """Install and compile all modules now, so that the first start does not have to."""
    options = ["--quiet", "--compile-bytecode", "--python", str(BIN / "python")]
    environment = {"UV_DEFAULT_INDEX": INDEX.read_text()} if INDEX.exists() else {}
    return _run(str(BIN / "uv"), "pip", "install", *options, *arguments, **environment).returncode == 0


def _install_with_pip(arguments: Sequence[str]) -> int:
    if not (BIN / "pip").exists():
        _run(str(BIN / "python"), "-m", "ensurepip", "--default-pip")
    done = _run(str(BIN / "python"), "-m", "pip", "install", "--quiet", "--use-pep517", *PIP_OPTIONS, *arguments)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.returncode


def _any_pip() -> Sequence[str]:
    """Return a command that runs a pip without installing it: the one of Python itself, or the wheel in ensurepip."""
    base = Path(sys.base_prefix, "bin", "python3")
    if not _run(str(base), "-c", "import pip").returncode:
        return (str(base), "-m", "pip", "--python", str(BIN / "python"))
    folders = [
        Path(ensurepip.__file__).parent / "_bundled",
        Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/nowhere"),
    ]
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    return (str(BIN / "python"), str(wheels[-1] / "pip")) if wheels else (str(BIN / "python"), "-m", "pip")


def _run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command and keep what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment | os.environ)  # noqa: S603


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
