"""Resolving host names and connecting, within a deadline."""

import errno
import socket
import threading
from pathlib import Path

import pytest

from portal.mail_servers.smtp import connect as connect_module
from portal.mail_servers.smtp.connect import (
    MAX_ADDRESSES,
    Deadline,
    SocketAddress,
    Timeouts,
    connect,
    resolve,
    tls_context,
)
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, SmtpReply, Stage
from tests.smtp_peer import LOCAL, SmtpPeer, closed_port, silent_port


def _address(port: int) -> SocketAddress:
    return SocketAddress(socket.AF_INET, ("127.0.0.1", port))


def _deadline(seconds: float) -> Deadline:
    return Deadline(Timeouts(total=seconds))


def _failed_connect(*ports: int, seconds: float) -> SmtpReply:
    with pytest.raises(SmtpFailure) as failure:
        connect([_address(port) for port in ports], LOCAL, _deadline(seconds))
    return failure.value.reply


class StoppedClock:
    """What a module has instead of `time`: its time passes only as the test says."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    """The time that deadlines see."""
    clock = StoppedClock()
    monkeypatch.setattr(connect_module, "time", clock)
    return clock


def test_a_deadline_limits_the_step_and_the_total(clock: StoppedClock) -> None:
    deadline = _deadline(10)
    deadline.start_step(2)
    assert deadline.remaining() == 2
    clock.now += 1
    assert deadline.remaining() == 1
    deadline.start_step(60)
    assert deadline.remaining() == 9
    clock.now += 8
    assert not deadline.is_over
    clock.now += 1
    assert deadline.is_over
    deadline.start_final_step(60)
    assert deadline.remaining() == 60
    deadline.start_step(0)
    with pytest.raises(TimeoutError):
        deadline.remaining()


def test_an_ip_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.mail_servers.smtp.connect._resolvers", None)
    assert resolve("127.0.0.1", 25, _deadline(60)) == [_address(25)]
    assert resolve("::1", 25, _deadline(60))[0].family is socket.AF_INET6


def test_a_name_is_resolved_and_connected_to() -> None:
    with SmtpPeer() as peer:
        deadline = _deadline(60)
        with connect(resolve("localhost", peer.port, deadline), LOCAL, deadline) as sock:
            assert sock.getpeername()[1] == peer.port


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (socket.EAI_NONAME, ReplyKind.SETTINGS),
        (socket.EAI_NODATA, ReplyKind.SETTINGS),
        (socket.EAI_AGAIN, ReplyKind.TEMPORARY),
        (socket.EAI_FAIL, ReplyKind.TEMPORARY),
    ],
)
def test_errors_of_the_resolver(monkeypatch: pytest.MonkeyPatch, number: int, kind: ReplyKind) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "an error of the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SmtpFailure) as failure:
        resolve("mail.example", 25, _deadline(60))
    assert (failure.value.reply.stage, failure.value.reply.kind) == (Stage.NAME, kind)


def test_an_error_of_the_system_is_a_temporary_failure_of_the_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises it for EAI_SYSTEM, for example if the process may open no more files."""

    def fail(*_: object, flags: int = 0, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "") if flags else OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SmtpFailure) as failure:
        resolve("mail.example", 25, _deadline(60))
    assert (failure.value.reply.stage, failure.value.reply.kind) == (Stage.NAME, ReplyKind.TEMPORARY)


def test_a_name_with_many_addresses_is_not_used_to_connect_to_all_of_them() -> None:
    tried: list[SocketAddress] = []
    with closed_port() as port, pytest.raises(SmtpFailure) as failure:
        connect([_address(port)] * 500, LOCAL, _deadline(60), tried.append)
    assert failure.value.reply.stage is Stage.CONNECT
    assert len(tried) == MAX_ADDRESSES


@pytest.mark.parametrize("name", ["a..b.example", "x" * 64 + ".example", ".example"])
def test_an_invalid_name_does_not_exist(name: str) -> None:
    with pytest.raises(SmtpFailure) as failure:
        resolve(name, 25, _deadline(60))
    assert (failure.value.reply.stage, failure.value.reply.kind) == (Stage.NAME, ReplyKind.SETTINGS)


def test_a_resolver_that_hangs_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    class OverOnceItHangs(Deadline):
        asked = 0

        def remaining(self) -> float:
            self.asked += 1
            if self.asked == 1:  # before the lookup
                return super().remaining()
            assert begun.wait(60)
            return 0.01

    def hang(*args: object, **kwargs: object) -> object:
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        begun.set()
        released.wait(60)
        return real("127.0.0.1", 25)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(SmtpFailure) as failure:
        resolve("mail.example", 25, OverOnceItHangs(Timeouts(total=60)))
    released.set()
    assert (failure.value.reply.stage, failure.value.reply.kind) == (Stage.NAME, ReplyKind.TEMPORARY)


def test_the_next_address_is_tried_if_one_refuses_or_is_silent(
    clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = connect_module._connected

    def connected(address: SocketAddress, timeout: float) -> socket.socket:
        try:
            return real(address, 0.1 if address.port == silent else 60)
        except TimeoutError:
            clock.now += timeout
            raise

    monkeypatch.setattr(connect_module, "_connected", connected)
    with SmtpPeer() as peer, closed_port() as closed, silent_port() as silent:
        for ports in ([closed, peer.port], [silent, peer.port], [silent, closed, peer.port]):
            with connect([_address(port) for port in ports], LOCAL, _deadline(0.5)) as sock:
                assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_a_failed_connection_is_temporary_and_says_why() -> None:
    with closed_port() as closed, silent_port() as silent:
        refused, timed_out = _failed_connect(closed, seconds=60), _failed_connect(closed, silent, seconds=0.2)
        assert (refused.stage, refused.kind, refused.text) == (
            Stage.CONNECT,
            ReplyKind.TEMPORARY,
            "The connection was refused.",
        )
        assert (timed_out.stage, timed_out.kind, timed_out.text) == (
            Stage.CONNECT,
            ReplyKind.TEMPORARY,
            "No response in time.",
        )


def test_there_is_one_tls_context_for_each_authority_file(ca_file: Path) -> None:
    assert tls_context() is tls_context()
    assert tls_context(ca_file) is tls_context(ca_file)
    assert tls_context(ca_file) is not tls_context()
    assert tls_context().check_hostname
    assert len(tls_context(ca_file).get_ca_certs()) == len(tls_context().get_ca_certs()) + 1
