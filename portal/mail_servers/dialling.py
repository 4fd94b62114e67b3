"""From a host name to a connected socket, within a deadline; resolving and dialling are two steps."""

import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from portal.languages import to_translate
from portal.mail_servers.outcome import Fault, Kind, Outcome, Stage, classify
from portal.mail_servers.reach import Reach

# Lookups that hang hold a thread each until the resolver gives up: enough of them that others still find one.
_LOOKUPS_AT_ONCE = 32
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL, whose words would name the host
OTHER_NAME: Final = {62, 64}
_NO_SUCH_NAME = {socket.EAI_NONAME, socket.EAI_NODATA}


class Deadline:
    """The time that is left: each step has its own limit, all steps together have another (seconds)."""

    def __init__(self, total: float) -> None:
        self._end = self._step = time.monotonic() + total

    def allow(self, seconds: float) -> None:
        """Begin a step that may take this long, but not longer than all of it may."""
        self._step = min(time.monotonic() + seconds, self._end)

    def extend(self, seconds: float) -> None:
        """Begin a last step with this much time of its own, whatever is left of the rest."""
        self._step = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether no time is left for another step."""
        return time.monotonic() >= self._end

    def left(self) -> float:
        """Return the seconds left for this step, more than 0.

        Raises:
            TimeoutError: none are left.
        """
        left = self._step - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Address(NamedTuple):
    """One address of a mail server, as `socket.connect` takes it."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def host(self) -> str:
        """The IP address, with its zone where it has one."""
        return str(self.sockaddr[0])


def resolve(host: str, port: int, deadline: Deadline) -> list[Address]:
    """Return every address of the host, in the order to try them.

    Raises:
        Fault: at stage NAME; for SETTINGS where the name does not exist, else TEMPORARY.
    """
    try:
        try:
            return numeric(host, port)
        except socket.gaierror:
            # getaddrinfo knows no timeout, so it runs in a thread that can be left behind.
            return _resolvers().submit(_look_up, host, port).result(deadline.left())
    except TimeoutError as error:
        raise fault_of(Stage.NAME, error) from None
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, UnicodeError) or error.errno in _NO_SUCH_NAME:
            raise _not_found() from None
        raise Fault(classify(Stage.NAME, None, to_translate("The name cannot be looked up just now."))) from None


def numeric(host: str, port: int) -> list[Address]:
    """Return the address that a number stands for, in whatever way it is written.

    Raises:
        socket.gaierror: it is no number.
        UnicodeError: nor is it a name.
    """
    return _look_up(host, port, socket.AI_NUMERICHOST)


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]


@cache
def _resolvers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "resolver")


os.register_at_fork(after_in_child=_resolvers.cache_clear)  # threads do not survive a fork


def dial(
    addresses: Sequence[Address], reach: Reach, deadline: Deadline, tell: Callable[[Address], None] | None = None
) -> socket.socket:
    """Return a socket that is connected to the first of these addresses that is within reach and answers.

    An address gets half of the time that is left, the last one all of it: a silent one leaves time for the next.
    `tell` is given each one before it is dialled, and none that is out of reach.

    Raises:
        Fault: at stage NAME for SETTINGS where none is within reach; else at CONNECT, with what the last one did.
    """
    addresses = [address for address in addresses if reach.admits(address.host, address.sockaddr[1])]
    if not addresses:
        raise _not_found()
    problem = OSError()
    for left_over, address in zip(reversed(range(len(addresses))), addresses, strict=True):
        if tell:
            tell(address)
        try:
            return _connected(address, deadline.left() / (2 if left_over else 1))
        except OSError as error:
            problem = error
    raise fault_of(Stage.CONNECT, problem) from None


def _not_found() -> Fault:
    # The same for a name that does not exist and one that leads inside: else tenants could read the inside's names.
    return settings_fault(Stage.NAME, to_translate("There is no mail server that the portal may connect to."))


def _connected(address: Address, seconds: float) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address.sockaddr)
        # A mail is written at once: its last segment must not wait for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


@cache
def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return the one context of this process: it verifies certificate and host name, TLS 1.2 or newer.

    Args:
        ca_file: PEM file of certificate authorities trusted besides the machine's own.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def settings_fault(stage: Stage, text: str) -> Fault:
    """Return the end of a conversation that only other settings can mend."""
    return Fault(Outcome(Kind.SETTINGS, stage, None, None, text))


def fault_of(stage: Stage, error: OSError) -> Fault:
    """Return what a network error means: fixed words, so that nothing but a mail server's reply is passed on."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in OTHER_NAME:
            text = to_translate("The certificate is not accepted: it is not valid for this server address.")
            return settings_fault(stage, text)
        case ssl.SSLCertVerificationError():
            return settings_fault(stage, f"The certificate is not accepted: {error.verify_message}")
        case ConnectionRefusedError():
            text = to_translate("The connection was refused.")
        case ConnectionError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            text = to_translate("The mail server closed the connection.")
        case ssl.SSLError() if stage is Stage.TLS:
            return settings_fault(stage, to_translate("No encryption could be agreed on."))
        case TimeoutError():
            text = to_translate("No answer in time.")
        case _ if stage is Stage.CONNECT:
            text = to_translate("The mail server is unreachable.")
        case _:
            text = to_translate("The connection broke.")
    return Fault(classify(stage, None, text))
