"""A machine of a test's own: this machine's files below a layer that keeps all changes, own processes, own network.

Commands of the documentation run in it as root, as they are. Nothing of it stays when it ends. It needs Linux and the
right to make namespaces, which most containers lack.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

TOOLS: Final = ("unshare", "nsenter", "chroot", "mount", "ip")
ENVIRONMENT: Final = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# The layer is in memory: it cannot be below the files that it covers.
LAYER: Final = """
set -eu
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
"""
START: Final = f"""{LAYER}
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=755 tmpfs "$1/root/run"
ip link set lo up
hostname bare-machine
echo ready
exec sleep infinity
"""


class BareMachine:
    """A running machine."""

    def __init__(self, root: Path, init: int) -> None:
        self._root, self._init = root, init

    def run(self, commands: str, *, folder: str = "/root", online: bool = False, **environment: str) -> str:
        """Run commands with bash and return what they print. `online`: with the network of the machine around it."""
        spaces = ["--mount", "--pid", "--uts"] + ([] if online else ["--net"])
        enter = ["nsenter", f"--target={self._init}", *spaces, "chroot", str(self._root)]
        done = subprocess.run(
            [*enter, "bash", "-euo", "pipefail", "-c", f"cd {folder}\n{commands}"],
            env=ENVIRONMENT | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{commands}\n{done.stdout}"
        return done.stdout


def missing() -> str | None:
    """Return why there can be no such machine here, or None."""
    if tools := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"there is no {tools[0]}"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode:
        return "namespaces are not allowed"
    with TemporaryDirectory() as folder:
        if subprocess.run(["unshare", "--mount", "sh", "-c", LAYER, "layer", folder], capture_output=True).returncode:
            return "an overlay is not allowed"
    return None


@contextmanager
def bare_machine(folder: Path) -> Iterator[BareMachine]:
    """Start a machine for the block, in an empty folder."""
    unshare = ["unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child", "--mount-proc"]
    start = [*unshare, "bash", "-c", START, "start", str(folder)]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (init,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield BareMachine(folder / "root", int(init))
        finally:
            process.kill()
