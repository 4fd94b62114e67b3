"""Start the demo as `make run` does, and read its output."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from portal.config import ROOT, Settings
from tests import processes
from tests.ports import free_port

STOPS_WITHIN = 30  # seconds


@dataclass(frozen=True)
class RunningDemo:
    """A demo that has printed its screen."""

    process: "subprocess.Popen[str]"
    screen: str

    @property
    def url(self) -> str:
        """The portal's address."""
        return self._find(r"Portal +(http://\S+)")

    def password(self, email: str) -> str:
        """The password behind an address on the screen."""
        return self._find(rf"{re.escape(email)} +(.+)")

    @property
    def curl(self) -> list[str]:
        """The arguments of the printed command line."""
        return shlex.split(self._find(r"( curl .+)"))

    def post(self, body: str) -> bytes:
        """Send a body with the address and the headers of the printed command line, and return the answer."""
        options = list(zip(self.curl, self.curl[1:], strict=False))
        headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
        with urlopen(Request(self.curl[1], body.encode(), headers)) as answer:
            return bytes(answer.read())

    @property
    def event(self) -> str:
        """The body in the printed command line."""
        return self.curl[self.curl.index("-d") + 1]

    def stop(self, how: signal.Signals) -> int:
        """Stop it by a signal, and return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(STOPS_WITHIN)

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.screen)
        assert found, self.screen
        return found[1]


def environment(var_dir: Path, **settings: str) -> Mapping[str, str]:
    """Return this environment with ports of the demo's own, and nothing of this environment's settings."""
    ours = {name.upper() for name in Settings.model_fields} | {"DEMO_PASSWORD"}
    others = {name: value for name, value in os.environ.items() if name not in ours}
    own = {"VAR_DIR": str(var_dir), "PORT": str(free_port()), "DEMO_SMTP_PORT": str(free_port())}
    return others | own | settings


def run(var_dir: Path, **settings: str) -> tuple[int, str]:
    """Run a demo that cannot start, and return its exit status and output."""
    output = var_dir / "output"
    process = processes.start("portal.demo", environment=environment(var_dir, **settings), output=output)
    try:
        return processes.wait(process, 60), output.read_text()
    finally:
        process.terminate()  # one that started nevertheless


@contextmanager
def running(var_dir: Path, **settings: str) -> Iterator[RunningDemo]:
    """Run the demo during the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "portal.demo"],
        cwd=ROOT,
        env=environment(var_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield RunningDemo(process, _screen(process.stdout))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(STOPS_WITHIN)


def _screen(output: IO[str] | None) -> str:
    assert output
    lines = []
    for line in output:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    raise AssertionError("the demo did not start:\n" + "".join(lines))


def processes_of(var_dir: Path) -> Mapping[int, str]:
    """Return the processes that were started for this folder: their numbers and command lines."""
    import psutil

    found = psutil.process_iter(["pid", "environ", "cmdline"])
    ours = (each.info for each in found if (each.info["environ"] or {}).get("VAR_DIR") == str(var_dir))
    return {info["pid"]: " ".join(info["cmdline"] or []) for info in ours}
