"""Lost calls a second, from the first POST to the last email at the sink, beside the alternatives."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Final

from bench import postgres, sinks
from bench.contenders import limit, start_contender
from bench.measurement import Samples, Table, median_of, ratio, ratio_text, report
from bench.rounds import compare

AT_ONCE: Final = (1, 4, 16)
BASE: Final = "portal"
NAMES: Final = (BASE, "Alertmanager", "by hand", "Apprise")
SECONDS: Final = 1.5  # that a round takes
SECONDS_A_DAY: Final = 86_400
LIMIT: Final = "smtp-source"
LIMIT_MAILS: Final = 5_000


def run(rounds: int) -> Sequence[Table]:
    """Return the rates with their ratios, and the processor time of an event."""
    rates: dict[int, Samples] = {}
    cpu: defaultdict[str, list[Sequence[float]]] = defaultdict(list)
    with (
        postgres.running() as server,
        sinks.sink() as sink,
        start_contender(server, sink, NAMES) as (contenders, missing),
    ):
        for at_once in AT_ONCE:
            report(f" {at_once} at a time")
            measures: dict[str, Callable[[], float]] = {
                name: contender.rate(contender.events_in(SECONDS, at_once), at_once, cpu[name])
                for name, contender in contenders.items()
            }
            measures[LIMIT] = partial(limit, sink, LIMIT_MAILS, at_once)
            rates[at_once] = compare(measures, rounds)
    most = max(median_of(samples, BASE) for samples in rates.values()) * SECONDS_A_DAY
    note = f"That is {most / 1_000_000:,.0f} million events a day, if they came evenly."
    return [rates_table("Events a second", rates, BASE, cpu, " ".join([note, *missing]))]


def rates_table(
    title: str,
    rates: Mapping[int, Samples],
    base: str,
    cpu: Mapping[str, Sequence[Sequence[float]]] | None = None,
    note: str = "",
) -> Table:
    """Return the rates by number of events at a time, and the base's ratio to each other contender."""
    columns = ["", *(f"{at_once} at a time" for at_once in rates), *(f"{base} ÷ it, {at_once}" for at_once in rates)]
    rows = []
    for name in next(iter(rates.values())):
        absolute = [f"{median_of(samples, name):,.0f}" for samples in rates.values()]
        relative = ["" if name == base else ratio_text(ratio(samples, base, name)) for samples in rates.values()]
        rows.append([name, *absolute, *relative])
        if cpu is not None:
            programs = [f"{median(each):.2f}" for each in zip(*cpu[name], strict=True)] if name in cpu else []
            rows[-1].append(" + ".join(programs))
    return Table(title, columns if cpu is None else [*columns, "CPU an event, + Postgres, ms"], rows, note)
