"""2,000 events at once, on two web processes: whether all are acknowledged and emailed, and how soon."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from bench import postgres, sinks
from bench.contender import Contender
from bench.contenders import start_contender
from bench.measurement import Table, median_of, p99, ratio, ratio_text, report
from bench.processes import peak_resident
from bench.rounds import compare

EVENTS: Final = 2_000
NAMES: Final = ("portal", "Alertmanager")


def run(rounds: int) -> Sequence[Table]:
    """Return the time to the last email, the errors, and the peak memory of a web process."""
    refused: Counter[str] = Counter()
    slowest: dict[str, list[float]] = {name: [] for name in NAMES}
    with (
        postgres.running() as server,
        sinks.sink() as sink,
        start_contender(server, sink, NAMES) as (contenders, missing),
    ):
        for contender in contenders.values():
            contender.run(100, 16)
        before = {name: peak_resident(contender.pids[:1]) for name, contender in contenders.items()}
        burst = {name: _burst(name, contender, refused, slowest) for name, contender in contenders.items()}
        seconds = compare(burst, rounds)
        after = {name: peak_resident(contender.pids[:1]) for name, contender in contenders.items()}
    columns = [
        "",
        "to the last mail",
        "99 % of answers within",
        "answers other than 200",
        "largest process",
        "it ÷ portal",
    ]
    rows = [
        [
            name,
            f"{median_of(seconds, name):.2f} s",
            f"{median_of(slowest, name):.2f} s",
            f"{refused[name]}",
            f"{before[name]:.0f} → {after[name]:.0f} MB",
            ratio_text(ratio(seconds, name, "portal")) if name != "portal" else "",
        ]
        for name in seconds
    ]
    note = f"Every answer of 200 was followed by its mail, {rounds} bursts each."
    return [Table(f"{EVENTS:,} events at once", columns, rows, " ".join([note, *missing]))]


def _burst(
    name: str, contender: Contender, refused: Counter[str], slowest: dict[str, list[float]]
) -> Callable[[], float]:
    def measure() -> float:
        shown = contender.run(EVENTS, EVENTS, may_fail=True)
        refused[name] += shown.failures
        slowest[name].append(p99(answer.seconds for answer in shown.answers))
        if shown.failures:
            report(f"  {name}: {shown.failures} failed")
        return EVENTS / shown.rate

    return measure
