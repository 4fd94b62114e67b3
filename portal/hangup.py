"""SIGHUP: to a server it says "reload", and to a program in a terminal that the terminal is gone."""

import os
import signal
import sys
from pathlib import Path
from typing import Final

SERVER: Final = (("pbx-portal", "run"), ("-m", "run"))  # `python -m portal run` has the second while it imports portal


def hold_for_server() -> None:
    """Let SIGHUP wait until the web server handles it, if this process becomes one. Its imports take seconds."""
    if (Path(sys.argv[0]).name, *sys.argv[1:2]) in SERVER and not ends_process():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def ends_process() -> bool:
    """Return whether the end of a terminal is to end this process, which `nohup` prevents."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:  # it has none
        return False
    return True
