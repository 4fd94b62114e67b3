"""Look-ups in the DNS, with a limit on their number, their time and the size of their answers.

The answers are a stranger's. The library would spend 14 seconds of processor time on 64 kB of records with long names,
so a larger answer than any domain needs is rejected unread. Of others a few records are used, as printable text.
"""

import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import islice
from typing import Any, Final, NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

LOOKUP_TIMEOUT: Final = 2.0  # seconds
FIRST_TIMEOUT: Final = 1.0  # seconds until a query is repeated, or the next name server is asked
MAX_RECORDS: Final = 50  # of an answer that are used
MAX_RECORDS_IN_MESSAGE: Final = 100  # in all sections of an answer
MAX_RECORDS_OF_TASK: Final = 250
MAX_TEXT_LENGTH: Final = 4000  # of a TXT record
MAX_MESSAGE_BYTES: Final = 65_535
HEADER: Final = struct.Struct(">6H")  # id, flags, and the number of entries in each section
UDP_PAYLOAD: Final = 1232  # bytes, as resolvers use since the DNS flag day of 2020
# Names that are not on the internet (RFC 6761, 6762, 7686, 8375, 9476; "internal" is ICANN's): a look-up could only
# show a tenant what is on the operator's own network.
NOT_ON_THE_INTERNET: Final = frozenset(
    {"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"}
)


class LookupFailed(Exception):
    """The DNS gave no usable answer in time, or the limit on look-ups was reached."""


class Records(NamedTuple):
    """The records of a name. Without any, `name_exists` says whether it has others."""

    values: tuple[str, ...] = ()
    name_exists: bool = True


class DnsLookups:
    """The look-ups of one task: no more than `max_lookups`, and all of them within `seconds`."""

    def __init__(self, seconds: float, max_lookups: int) -> None:
        self._end, self._left = time.monotonic() + seconds, max_lookups
        self._records_left = MAX_RECORDS_OF_TASK

    def texts(self, name: str) -> Records:
        """Return the TXT records of a name: printable ASCII, with U+FFFD for everything else."""
        answer = self._look_up(name, "TXT")
        return answer if isinstance(answer, Records) else Records(tuple(map(_text, _first(answer))))

    def mail_exchangers(self, name: str) -> Records:
        """Return the host names of the MX records, the preferred one first; "" is that of a null MX (RFC 7505)."""
        answer = self._look_up(name, "MX")
        if isinstance(answer, Records):
            return answer
        exchangers: list[MX] = sorted(_first(answer), key=lambda record: record.preference)
        return Records(tuple(record.exchange.to_text(omit_final_dot=True).lower().rstrip(".") for record in exchangers))

    def ip_addresses(self, name: str) -> Records:
        """Return the IPv4 addresses of a host, or if it has none its IPv6 addresses."""
        for record_type in ("A", "AAAA"):
            answer = self._look_up(name, record_type)
            if not isinstance(answer, Records):
                return Records(tuple(record.address for record in _first(answer)))
            if not answer.name_exists:
                return answer
        return Records()

    def _look_up(self, name: str, record_type: str) -> dns.resolver.Answer | Records:
        """Return the records in the library's form, or `Records` without any."""
        remaining = self._end - time.monotonic()
        if remaining <= 0 or self._left <= 0 or self._records_left <= 0:
            raise LookupFailed
        self._left -= 1
        try:
            absolute_name = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):  # such a name cannot exist
            return Records(name_exists=False)
        if not is_on_the_internet(absolute_name.to_text()):  # a tenant's own SPF record, or CNAME, can name any
            return Records(name_exists=False)
        try:
            lifetime = min(remaining, LOOKUP_TIMEOUT)
            answer = resolver().resolve(
                absolute_name, record_type, lifetime=lifetime, search=False, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            return Records(name_exists=False)
        except (dns.exception.DNSException, OSError):
            raise LookupFailed from None
        self._records_left -= sum(map(len, answer.response.answer))
        if not is_on_the_internet(answer.canonical_name.to_text()):
            return Records(name_exists=False)
        return answer if answer.rrset is not None else Records()


class BoundedNameserver(dns.nameserver.Do53Nameserver):
    """A name server whose answers are read only if they have few records."""

    def query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,  # noqa: ARG002 (the library's signature)
        source_port: int,  # noqa: ARG002
        max_size: bool,
        one_rr_per_rrset: bool = False,  # noqa: ARG002
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        """Return the answer to a query, over TCP if it may have the maximum size. Timeouts and bad answers raise."""
        ask = self._ask_over_tcp if max_size else self._ask_over_udp
        try:
            wire = ask(request.to_wire(), time.monotonic() + timeout)
        except TimeoutError:  # after which, unlike after an OSError, the name server is asked again
            raise dns.exception.Timeout from None
        if len(wire) < HEADER.size or sum(HEADER.unpack_from(wire)[3:]) > MAX_RECORDS_IN_MESSAGE:
            raise dns.exception.FormError
        response = dns.message.from_wire(wire, ignore_trailing=ignore_trailing, raise_on_truncation=not max_size)
        if not request.is_response(response):
            raise dns.exception.FormError
        return response

    def _ask_over_udp(self, query: bytes, end: float) -> bytes:
        with self._connect(socket.SOCK_DGRAM, end) as sock:
            sock.send(query)
            while True:
                sock.settimeout(_seconds_until(end))
                wire = sock.recv(MAX_MESSAGE_BYTES)
                if wire[:2] == query[:2]:  # the id: another answer is to an earlier query, or forged
                    return wire

    def _ask_over_tcp(self, query: bytes, end: float) -> bytes:
        with self._connect(socket.SOCK_STREAM, end) as sock:
            sock.sendall(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(_receive(sock, 2, end), "big")
            return _receive(sock, length, end)

    def _connect(self, kind: socket.SocketKind, end: float) -> socket.socket:
        family, *_, target = socket.getaddrinfo(self.address, self.port, type=kind, flags=socket.AI_NUMERICHOST)[0]
        sock = socket.socket(family, kind)
        try:
            sock.settimeout(_seconds_until(end))
            sock.connect(target)
        except OSError:
            sock.close()
            raise
        return sock


def _receive(sock: socket.socket, length: int, end: float) -> bytes:
    received = bytearray()
    while len(received) < length:
        sock.settimeout(_seconds_until(end))
        part = sock.recv(length - len(received))
        if not part:
            raise EOFError
        received += part
    return bytes(received)


def _seconds_until(end: float) -> float:
    remaining = end - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def resolver() -> dns.resolver.Resolver:
    """Return a resolver that asks the machine's name servers, as its configuration names them now."""
    system = dns.resolver.Resolver()
    addresses = [server for server in system.nameservers if isinstance(server, str)]
    return bounded_resolver(addresses)


def bounded_resolver(ip_addresses: Sequence[str], port: int = 53) -> dns.resolver.Resolver:
    """Return a resolver that asks these name servers, and reads none of their answers that are too large."""
    bounded = dns.resolver.Resolver(configure=False)
    bounded.nameservers = [BoundedNameserver(server, port) for server in ip_addresses]
    bounded.timeout = FIRST_TIMEOUT
    bounded.use_edns(0, 0, UDP_PAYLOAD)
    return bounded


def is_on_the_internet(domain: str) -> bool:
    """Return whether a domain can be a public one: no single label, no IP address and no reserved name."""
    labels = domain.lower().rstrip(".").split(".")
    return len(labels) > 1 and labels[-1] not in NOT_ON_THE_INTERNET and not _is_ip_address(domain)


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]").removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


def _first(answer: Any) -> list[Any]:
    return list(islice(answer, MAX_RECORDS))


def _text(record: TXT) -> str:
    text = b"".join(record.strings)[:MAX_TEXT_LENGTH].decode("ascii", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
