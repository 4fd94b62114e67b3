"""`python -m bench [part …]`: run the benchmarks, print their tables and write them into the docs."""

import argparse
import signal
import sys
from dataclasses import replace
from importlib import import_module

import psutil

from bench.measurement import publish, report
from bench.processes import MissingProgram
from bench.rounds import MAX_OTHER_SHARE, noise_note

PARTS = (
    "events",
    "welcome",
    "many_tenants",
    "distance",
    "hanging",
    "burst",
    "backlog",
    "vacuum",
    "memory",
    "growth",
    "pages",
)
ROUNDS, QUICK_ROUNDS = 5, 2


def main() -> None:
    """Run the named parts, or all of them. A part is a module with `run(rounds)` that returns tables."""
    arguments = _arguments()
    busy = psutil.cpu_percent(interval=1)
    if busy > MAX_OTHER_SHARE * 100:
        report(f"The machine is {busy:.0f} % busy with something else; the results mean little.")
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    for part in arguments.parts or PARTS:
        module = import_module(f"bench.{part}")
        report(f"{part}: {module.__doc__}")
        try:
            tables = module.run(rounds)
        except MissingProgram as reason:
            sys.exit(f"The part {part} cannot run here: {reason}")
        if noise := noise_note():
            tables = [replace(table, note=f"{table.note} {noise}".strip()) for table in tables]
        print("", *tables, "", sep="\n\n", flush=True)
        if not arguments.quick:
            publish(part, tables)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; the page in docs stays as it is")
    return parser.parse_args()


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    main()
