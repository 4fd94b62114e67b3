"""An internet on this machine: a test says what names stand for, and which peer answers at an address.

The resolver and `connect` are stood in for, at the socket, as no test may dial a stranger. Everything above is real.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from flask import Flask

from portal.config import Network

PUBLIC, INSIDE = "9.9.9.9", "10.0.0.5"


class Internet:
    """`names` have the answers of their name server, one for each look-up, the last one for ever.

    `ports` are those of the peers behind addresses, `inside` is the port of a peer behind all others. `looked_up` and
    `dialled` tell what was asked for.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[Sequence[str]]] = {}
        self.ports: dict[str, int] = {}
        self.inside: int | None = None
        self.looked_up: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    def leads_to(self, *answers: Sequence[str]) -> str:
        """Return a name that the name server answers with these addresses, in turn."""
        name = f"mail{len(self.names)}.evil.example"
        self.names[name] = list(answers)
        return name

    def answer(self, name: str) -> Sequence[str]:
        """Return the addresses of a name as they are this time."""
        self.looked_up.append(name)
        answers = self.names.get(name)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """An internet without names and peers."""
    world, real = Internet(), socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if not str(host).endswith(".example") or options.get("flags"):
            return real(host, port, *args, **options)
        return [found for each in world.answer(host) for found in real(each, port, *args, **options)]

    class Socket(socket.socket):
        name = ("", 0)

        def connect(self, address: Any) -> None:
            if self.family not in (socket.AF_INET, socket.AF_INET6):
                return super().connect(address)
            self.name = address[:2]
            world.dialled.append(self.name)
            port = world.ports.get(self.name[0], world.inside)
            if port is None:
                raise ConnectionRefusedError
            return super().connect(_here(self, port))

        def getpeername(self) -> Any:
            return self.name if super().getpeername() else None

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "socket", Socket)
    return world


def _here(sock: socket.socket, port: int) -> tuple[str, int]:
    here = ip_address("127.0.0.1")
    return (str(IPv6Address(f"::ffff:{here}")) if sock.family is socket.AF_INET6 else str(here)), port


@pytest.fixture
def strict(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The portal with no network allowed besides the internet."""
    allow(app, monkeypatch)


def allow(app: Flask, monkeypatch: pytest.MonkeyPatch, *networks: Network, **more: Any) -> None:
    """Have the operator allow these networks, and set what else there is to set."""
    changed = app.extensions["settings"].model_copy(update={"smtp_allowed_networks": networks, **more})
    monkeypatch.setitem(app.extensions, "settings", changed)
