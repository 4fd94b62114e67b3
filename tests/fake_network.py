"""A fake internet on this machine: a test sets what host names resolve to, and which peer listens at an IP address.

The resolver and `connect` are replaced at the socket, as no test may connect to a stranger. Everything above is real.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from flask import Flask

from portal.config import Network

PUBLIC, INTERNAL = "9.9.9.9", "10.0.0.5"


class FakeInternet:
    """What the fake resolver and the fake `connect` know, and a record of the lookups and connections.

    `names` has the resolver's answers for each name, one per lookup; the last one is repeated. `ports` are the ports of
    the peers that listen at an IP address; the peer with `internal_port` listens at all others.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[Sequence[str]]] = {}
        self.ports: dict[str, int] = {}
        self.internal_port: int | None = None
        self.lookups: list[str] = []
        self.connections: list[tuple[str, int]] = []

    def add_name(self, *answers: Sequence[str]) -> str:
        """Return a new host name that resolves to these IP addresses, one answer per lookup."""
        name = f"mail{len(self.names)}.evil.example"
        self.names[name] = list(answers)
        return name

    def resolve(self, name: str) -> Sequence[str]:
        """Return the next answer for a name."""
        self.lookups.append(name)
        answers = self.names.get(name)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> FakeInternet:
    """A fake internet without names and peers."""
    internet, real_getaddrinfo = FakeInternet(), socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if not str(host).endswith(".example") or options.get("flags"):
            return real_getaddrinfo(host, port, *args, **options)
        ip_addresses = internet.resolve(host)
        return [result for each in ip_addresses for result in real_getaddrinfo(each, port, *args, **options)]

    class Socket(socket.socket):
        peer_name = ("", 0)

        def connect(self, address: Any) -> None:
            if self.family not in (socket.AF_INET, socket.AF_INET6):
                return super().connect(address)
            self.peer_name = address[:2]
            internet.connections.append(self.peer_name)
            port = internet.ports.get(self.peer_name[0], internet.internal_port)
            if port is None:
                raise ConnectionRefusedError
            return super().connect(_loopback(self, port))

        def getpeername(self) -> Any:
            return self.peer_name if super().getpeername() else None

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "socket", Socket)
    return internet


def _loopback(sock: socket.socket, port: int) -> tuple[str, int]:
    loopback = ip_address("127.0.0.1")
    return (str(IPv6Address(f"::ffff:{loopback}")) if sock.family is socket.AF_INET6 else str(loopback)), port


@pytest.fixture
def internet_only(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The portal with no allowed network except the internet."""
    allow_networks(app, monkeypatch)


def allow_networks(app: Flask, monkeypatch: pytest.MonkeyPatch, *networks: Network, **settings: Any) -> None:
    """Set SMTP_ALLOWED_NETWORKS to these networks, and any other settings."""
    changed = app.extensions["settings"].model_copy(update={"smtp_allowed_networks": networks, **settings})
    monkeypatch.setitem(app.extensions, "settings", changed)
