"""Runs a module for the supervisor, and ends with it: `python -m portal.demo.child MODULE ARGUMENT…`."""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module until the supervisor's end of the pipe closes, which happens however the supervisor ends."""
    del sys.argv[0]
    threading.Thread(target=_stop_with_supervisor, daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _stop_with_supervisor() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
