"""How long a PBX waits for its response when the mail server is 20 ms away, with STARTTLS and sign-in.

Beside 20 ms of distance a round trip has the time that the mail server takes itself, which a NOOP tells.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from smtplib import SMTP
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import trustme

from bench import contenders, postgres, sinks
from bench.contender import Contender
from bench.distant_mail_server import PASSWORD, USERNAME
from bench.measurement import Table, median_of, ratio, ratio_text
from bench.processes import HOST
from bench.rounds import compare
from portal.mail_servers.smtp.client import AuthMode, Encryption

EVENTS: Final = 20
ROUND_TRIP: Final = "a NOOP"
FLASK_MAIL: Final = {"MAIL_USE_TLS": "true", "MAIL_USERNAME": USERNAME, "MAIL_PASSWORD": PASSWORD}


def run(rounds: int) -> Sequence[Table]:
    """Return the median times to a response, also in round trips."""
    authority = trustme.CA()
    with TemporaryDirectory() as folder, postgres.running() as server:
        trusted, certificate = Path(folder, "ca.pem"), Path(folder, "server.pem")
        authority.cert_pem.write_to_path(str(trusted))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        entered = {
            "encryption": Encryption.STARTTLS,
            "auth_mode": AuthMode.AUTO,
            "username": USERNAME,
            "password": PASSWORD,
        }
        with (
            sinks.distant(certificate) as sink,
            contenders.portal(server, sink, entered, MAIL_CA_FILE=str(trusted)) as portal,
            contenders.by_hand(server, sink, **FLASK_MAIL) as by_hand,
            _signed_in(sink.port, trusted) as session,
        ):
            waits = {"portal": _wait(portal), "by hand": _wait(by_hand), ROUND_TRIP: _round_trip(session)}
            samples = compare(waits, rounds)
    columns = ["", "median time to the answer", "round trips of the mail server", "it ÷ portal"]
    rows = [
        [
            name,
            f"{median_of(samples, name) * 1000:.0f} ms",
            f"{ratio(samples, name, ROUND_TRIP):.2f}",
            ratio_text(ratio(samples, name, "portal")) if name == "by hand" else "",
        ]
        for name in samples
    ]
    return [Table("A mail server 20 ms away", columns, rows)]


def _wait(contender: Contender) -> Callable[[], float]:
    contender.run(EVENTS, 4)  # each process has looked around
    return lambda: median(answer.seconds for answer in contender.run(EVENTS, 1).answers)


def _round_trip(session: SMTP) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        session.noop()
        return time.perf_counter() - began

    return lambda: median(once() for _ in range(EVENTS))


@contextmanager
def _signed_in(port: int, trusted: Path) -> Iterator[SMTP]:
    with SMTP(HOST, port) as session:
        session.starttls(context=ssl.create_default_context(cafile=str(trusted)))
        session.login(USERNAME, PASSWORD)
        yield session
