"""A DNS server on this machine, over UDP and TCP, whose answers a test sets, the strangest included."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from portal.mail_servers import dns_lookup

HOST = "127.0.0.1"
MAX_CHAIN = 20


class DnsFault(Enum):
    """What the server does instead of answering."""

    SILENCE = auto()
    LOST_ONCE = auto()  # the first query
    TRUNCATED = auto()  # over UDP; the answer comes over TCP
    ONLY_TRUNCATED = auto()  # over UDP, and nothing over TCP
    SERVFAIL = auto()
    REFUSED = auto()
    GARBAGE = auto()
    HALF = auto()  # a message that ends early


class DnsServer:
    """The server. `queries` has what it was asked: name, type and "udp" or "tcp"."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[str, ...]] = {}
        self.faults: dict[str, DnsFault] = {}
        self.raw_answers: dict[str, list[bytes]] = {}  # records in wire format; \xc0\x0c is the name asked for
        self.queries: list[tuple[str, str, str]] = []
        self._udp, self._tcp = _bind_both()
        self.port: int = self._udp.getsockname()[1]
        self._threads = [threading.Thread(target=serve, daemon=True) for serve in (self._serve_udp, self._serve_tcp)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._udp.sendto(b"", (HOST, self.port))  # ends the loop
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()

    def add(self, name: str, record_type: str, *values: str) -> None:
        """Set the records of a name, as in a zone file."""
        self.records[name, record_type] = values

    def add_text(self, name: str, *texts: str) -> None:
        """Set the TXT records of a name."""
        self.add(
            name, "TXT", *(" ".join(f'"{text[at : at + 250]}"' for at in range(0, len(text), 250)) for text in texts)
        )

    def _serve_udp(self) -> None:
        while True:
            wire, client = self._udp.recvfrom(65_535)
            if not wire:
                return
            answer = self.answer(wire, "udp")
            if answer is not None:
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._tcp.accept()
                with client, suppress(OSError, dns.exception.FormError):  # the client has given up
                    client.settimeout(2)
                    length = int.from_bytes(client.recv(2, socket.MSG_WAITALL), "big")
                    answer = self.answer(client.recv(length, socket.MSG_WAITALL), "tcp")
                    if answer is not None:
                        client.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, wire: bytes, protocol: str) -> bytes | None:
        """Return the answer to a query, or None to keep silent."""
        query = dns.message.from_wire(wire)
        name, record_type = query.question[0].name.to_text(omit_final_dot=True).lower(), query.question[0].rdtype.name
        self.queries.append((name, record_type, protocol))
        if name in self.raw_answers:
            question = wire[12 : 12 + len(query.question[0].name.to_wire() or b"") + 4]
            counts = struct.pack(">4H", 1, len(self.raw_answers[name]), 0, 0)
            return wire[:2] + b"\x81\x80" + counts + question + b"".join(self.raw_answers[name])
        fault = self.faults.get(name)
        response = dns.message.make_response(query, recursion_available=True)
        if fault in (DnsFault.SERVFAIL, DnsFault.REFUSED):
            response.set_rcode(dns.rcode.Rcode[fault.name])
        elif fault is DnsFault.GARBAGE:
            return wire[:2] + b"\x81\x80" + b"\xff" * 40
        elif fault is DnsFault.LOST_ONCE:
            del self.faults[name]
            return None
        elif fault is DnsFault.SILENCE or (fault is DnsFault.ONLY_TRUNCATED and protocol == "tcp"):
            return None
        elif protocol == "udp" and fault in (DnsFault.TRUNCATED, DnsFault.ONLY_TRUNCATED):
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, record_type)
        limit = dns_lookup.UDP_PAYLOAD if protocol == "udp" else 65_535
        answer = response.to_wire(max_size=limit, prefer_truncation=True)
        return answer[:-5] if fault is DnsFault.HALF else answer

    def _fill(self, response: dns.message.Message, name: str, record_type: str) -> None:
        for _ in range(MAX_CHAIN):
            values = self.records.get((name, record_type)) or self.records.get((name, "CNAME"))
            if not values:
                break
            found = record_type if (name, record_type) in self.records else "CNAME"
            response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", found, *values))
            if found == record_type:
                return
            name = values[0].rstrip(".")
        if not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)


def _bind_both() -> tuple[socket.socket, socket.socket]:
    """Return sockets for UDP and TCP with the same port."""
    while True:
        tcp, udp = socket.create_server((HOST, 0)), socket.socket(type=socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:  # the port is in use
            tcp.close()
            udp.close()
        else:
            return udp, tcp


@pytest.fixture
def dns_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """A DNS server that the portal asks."""
    with DnsServer() as server:
        resolver = dns_lookup.bounded_resolver([HOST], server.port)
        monkeypatch.setattr(dns_lookup, "resolver", lambda: resolver)
        yield server
