"""Welcome emails a second, with QR code, token and encrypted secrets, beside emails about lost calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bench import contenders, postgres, sinks
from bench.event_bodies import BODIES
from bench.events import rates_table
from bench.measurement import Samples, Table
from bench.rounds import compare

AT_ONCE: Final = (1, 4, 16)
SECONDS: Final = 1.5  # that a round takes
BASE: Final = "user.created"


def run(rounds: int) -> Sequence[Table]:
    """Return the rates of both event types and their ratio."""
    rates: dict[int, Samples] = {}
    with postgres.running() as server, sinks.sink() as sink, contenders.portal(server, sink) as portal:
        kinds = {kind: replace(portal, body=body) for kind, body in BODIES.items()}
        for at_once in AT_ONCE:
            measures = {kind: each.rate(each.events_in(SECONDS, at_once), at_once) for kind, each in kinds.items()}
            rates[at_once] = compare(measures, rounds)
    return [rates_table("Events a second", rates, BASE)]
