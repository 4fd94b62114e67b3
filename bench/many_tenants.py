"""Lost calls a second of 1,000 tenants in turn, each with a mail server of its own, beside those of one tenant."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import psycopg

from bench import portal_process, postgres, sinks
from bench.contender import Contender
from bench.event_bodies import call_lost
from bench.events import rates_table
from bench.measurement import Samples, Table, report
from bench.rounds import compare
from portal.pbx import api_keys

TENANTS: Final = 1_000
AT_ONCE: Final = (4, 16)
EVENTS: Final = 2 * TENANTS  # of a round
BASE: Final = f"{TENANTS:,} tenants in turn"


def run(rounds: int) -> Sequence[Table]:
    """Return both rates and their ratio. A key of the system reports the events of all tenants."""
    rates: dict[int, Samples] = {}
    with postgres.running() as server, sinks.sink() as sink:
        url = server.database("portal")
        with portal_process.prepared(url) as ready:
            report(f"  adding {TENANTS:,} tenants")
            for number in range(TENANTS):
                host = f"127.0.{1 + number // 250}.{1 + number % 250}"  # which all lead to the sink
                ready.tenant(f"tenant{number}.example", host=host, port=sink.port)
            with ready.app.app_context():
                key = api_keys.issue(None).secret
            with psycopg.connect(url) as connection:  # there is no email that the new settings would release
                connection.execute("TRUNCATE release_requests")
            with portal_process.serving(ready) as served:
                pids = (served.web.pid, server.pid)
                portal = Contender(served.port, portal_process.PATH, key, _event_of(1), pids, sink)
                kinds = {BASE: replace(portal, body=_event_of(TENANTS)), "one tenant": portal}
                kinds[BASE].run(4 * TENANTS, 16)  # then both web processes know nearly every tenant
                for at_once in AT_ONCE:
                    measures = {name: contender.rate(EVENTS, at_once) for name, contender in kinds.items()}
                    rates[at_once] = compare(measures, rounds)
    return [rates_table("Events a second", rates, BASE)]


def _event_of(tenants: int) -> Callable[[int], bytes]:
    """Return a function that makes an event of one of so many tenants from a number."""

    def event(number: int) -> bytes:
        return json.dumps({**json.loads(call_lost(number)), "tenant": f"tenant{number % tenants}.example"}).encode()

    return event
