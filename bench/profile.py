"""Where an event's time goes: `python -m bench.profile`, or `python -m bench.profile user.created`.

It posts events to a running portal, one at a time, while py-spy looks at the web processes, and prints the functions on
the way of an event by their share of its time, with and without what they call; waiting counts too. Then it lists the
statements of one event as Postgres saw them.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final

from bench import contenders, portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import BODIES
from bench.processes import running

SECONDS: Final = 8
SAMPLES_A_SECOND: Final = 500
AT_ONCE: Final = 1
REQUEST: Final = "_Request.answer "  # around each event
BATCH: Final = 200
SHOWN: Final = 70
WARM_UP: Final = 20  # events
MAX_NAME_LENGTH: Final = 150  # characters of a statement
DURATION: Final = re.compile(rb"LOG:  duration: ([\d.]+ ms) +((?:.|\n\t)*)")


def main() -> None:
    """Print the profile and the statements of an event type."""
    body = BODIES[sys.argv[1] if len(sys.argv) > 1 else "queue.call_lost"]
    with postgres.running() as server, sinks.sink() as sink:
        with contenders.portal(server, sink) as started:
            portal = replace(started, body=body)
            portal.run(BATCH, AT_ONCE)
            print(*_shares(_stacks(portal)), sep="\n", flush=True)
        print(*_statements(server, sink, body), sep="\n", flush=True)


def _stacks(portal: Contender) -> Sequence[str]:
    """Return the stacks that py-spy saw, each as `outer;…;inner count`."""
    with tempfile.NamedTemporaryFile() as file:
        options = ["--subprocesses", "--format=raw", "--function", "--idle", "--nonblocking"]
        program = [str(Path(sys.executable).with_name("py-spy")), "record", *options]
        target = [
            f"--rate={SAMPLES_A_SECOND}",
            f"--duration={SECONDS}",
            f"--pid={portal.pids[0]}",
            f"--output={file.name}",
        ]
        with running([*program, *target], output=subprocess.DEVNULL) as spy:
            while spy.poll() is None:
                portal.run(BATCH, AT_ONCE)
        return Path(file.name).read_text().splitlines()


def _shares(stacks: Sequence[str]) -> Iterator[str]:
    within: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for line in stacks:
        frames, _, seen = line.partition(REQUEST)[2].rpartition(" ")
        stack = frames.split(";")[1:]
        if not stack:
            continue
        alone[stack[-1]] += int(seen)
        within.update(dict.fromkeys(stack, int(seen)))
    total = alone.total()
    yield f"{'with calls':>10} {'alone':>7}  {total} looks at an event on its way"
    for frame, count in within.most_common(SHOWN):
        yield f"{count / total:>10.1%} {alone[frame] / total:>7.1%}  {frame}"


def _statements(server: postgres.Postgres, sink: sinks.Sink, body: Callable[[int], bytes]) -> Iterator[str]:
    """Yield the statements of one event from Postgres' log, after some events to warm up."""
    with portal_process.prepared(server.database("portal", log_min_duration_statement="0")) as ready:
        headers = {"Authorization": f"Bearer {ready.tenant('acme.example', port=sink.port)}"}
        client = ready.app.test_client()
        for number in range(WARM_UP):
            read = server.log.stat().st_size
            began = time.perf_counter()
            answer = client.post(
                portal_process.PATH, data=body(number), headers=headers, content_type="application/json"
            )
            took = time.perf_counter() - began
            assert answer.status_code == HTTPStatus.OK, answer.text
    yield f"\nStatements of an event that took {took * 1000:.2f} ms in one thread:"
    yield from logged_statements(server.log, read)


def logged_statements(log: Path, position: int) -> Iterator[str]:
    """Yield the statements of Postgres' log from a position in bytes, each with its time and in one line."""
    for line in DURATION.findall(log.read_bytes()[position:]):
        yield " ".join(b" ".join(line).decode().split())[:MAX_NAME_LENGTH]


if __name__ == "__main__":
    main()
