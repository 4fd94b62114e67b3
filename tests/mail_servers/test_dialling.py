import socket
import threading
import time
from pathlib import Path

import pytest

from portal.mail_servers.dialling import Address, Deadline, dial, resolve, tls_context
from portal.mail_servers.outcome import Fault, Kind, Outcome, Stage
from tests.smtp_peer import LOCAL, SmtpPeer, refusing_port, unanswering_port


def _at(port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", port))


def _dial_outcome(*ports: int, seconds: float = 0.2) -> Outcome:
    with pytest.raises(Fault) as fault:
        dial([_at(port) for port in ports], LOCAL, Deadline(seconds))
    return fault.value.outcome


def test_a_deadline_bounds_the_step_and_the_whole() -> None:
    deadline = Deadline(10)
    deadline.allow(2)
    assert 1.9 < deadline.left() <= 2
    deadline.allow(60)
    assert 9.9 < deadline.left() <= 10
    deadline.extend(60)
    assert 59.9 < deadline.left() <= 60
    deadline.allow(0)
    with pytest.raises(TimeoutError):
        deadline.left()


def test_a_numeric_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.mail_servers.dialling._resolvers", None)
    assert resolve("127.0.0.1", 25, Deadline(1)) == [_at(25)]
    assert resolve("::1", 25, Deadline(1))[0].family is socket.AF_INET6


def test_a_name_is_resolved_and_dialled() -> None:
    with SmtpPeer() as peer:
        deadline = Deadline(5)
        with dial(resolve("localhost", peer.port, deadline), LOCAL, deadline) as sock:
            assert sock.getpeername()[1] == peer.port


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (socket.EAI_NONAME, Kind.SETTINGS),
        (socket.EAI_NODATA, Kind.SETTINGS),
        (socket.EAI_AGAIN, Kind.TEMPORARY),
        (socket.EAI_FAIL, Kind.TEMPORARY),
    ],
)
def test_what_a_resolver_says(monkeypatch: pytest.MonkeyPatch, number: int, kind: Kind) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Fault) as fault:
        resolve("mail.example", 25, Deadline(1))
    assert (fault.value.outcome.stage, fault.value.outcome.kind) == (Stage.NAME, kind)


@pytest.mark.parametrize("name", ["a..b.example", "x" * 64 + ".example", ".example"])
def test_a_name_that_cannot_be_one_does_not_exist(name: str) -> None:
    with pytest.raises(Fault) as fault:
        resolve(name, 25, Deadline(1))
    assert (fault.value.outcome.stage, fault.value.outcome.kind) == (Stage.NAME, Kind.SETTINGS)


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = socket.getaddrinfo

    def hang(*args: object, **kwargs: object) -> object:
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        released.wait(5)
        return real("127.0.0.1", 25)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    with pytest.raises(Fault) as fault:
        resolve("mail.example", 25, Deadline(0.1))
    released.set()
    assert time.monotonic() - began < 1
    assert (fault.value.outcome.stage, fault.value.outcome.kind) == (Stage.NAME, Kind.TEMPORARY)


def test_the_next_address_is_tried_where_one_refuses_or_is_silent() -> None:
    with SmtpPeer() as peer, refusing_port() as refusing, unanswering_port() as unanswering:
        for ports in ([refusing, peer.port], [unanswering, peer.port], [unanswering, refusing, peer.port]):
            with dial([_at(port) for port in ports], LOCAL, Deadline(0.5)) as sock:
                assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_no_connection_is_temporary_and_says_why() -> None:
    with refusing_port() as refusing, unanswering_port() as unanswering:
        refused, silent = _dial_outcome(refusing), _dial_outcome(refusing, unanswering)
        assert (refused.stage, refused.kind, refused.text) == (
            Stage.CONNECT,
            Kind.TEMPORARY,
            "The connection was refused.",
        )
        assert (silent.stage, silent.kind, silent.text) == (Stage.CONNECT, Kind.TEMPORARY, "No answer in time.")


def test_there_is_one_verifying_context_for_each_authority_file(ca_file: Path) -> None:
    assert tls_context() is tls_context()
    assert tls_context(ca_file) is tls_context(ca_file)
    assert tls_context(ca_file) is not tls_context()
    assert tls_context().check_hostname
    assert len(tls_context(ca_file).get_ca_certs()) == len(tls_context().get_ca_certs()) + 1
