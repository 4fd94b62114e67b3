"""From a host name to a connected socket within a deadline, in two steps: resolve, then connect."""

import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Condition
from typing import Any, Final, NamedTuple

from portal.mail_servers.smtp.network_policy import NetworkPolicy
from portal.mail_servers.smtp.outcome import BUSY, ReplyKind, SmtpFailure, SmtpReply, Stage, classify
from portal.web.i18n import to_translate

# A lookup that hangs holds a thread until the resolver gives up, so no owner of mail servers may hold many of them.
MAX_CONCURRENT_LOOKUPS: Final = 32
MAX_LOOKUPS_PER_OWNER: Final = 2
MAX_ADDRESSES: Final = 20  # of one name: its owner could give it a thousand addresses of others
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose text would contain the host name
HOST_MISMATCH: Final = {62, 64}
_NO_SUCH_NAME = {socket.EAI_NONAME, socket.EAI_NODATA}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long sending may take, in seconds: see "Timeouts and retries" in `docs/reference/delivery.md`."""

    connect: float = 5.0  # name lookup and connecting together
    command: float = 10.0
    total: float = 10.0  # up to the final dot
    reply: float = 60.0  # to the final dot
    mailbox: float = 0.25  # until one of the sessions of a limited mailbox ends


class Deadline:
    """The remaining time, in seconds: each step has its own limit, and all steps together have another."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._end = self._step_end = time.monotonic() + timeouts.total

    def start_step(self, seconds: float) -> None:
        """Start a step that may take this long, but no longer than the total allows."""
        self._step_end = min(time.monotonic() + seconds, self._end)

    def start_final_step(self, seconds: float) -> None:
        """Start a last step with this much time, whatever is left of the total."""
        self._step_end = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether no time is left for another step."""
        return time.monotonic() >= self._end

    def remaining(self) -> float:
        """Return the seconds left for this step, more than 0, or raise TimeoutError."""
        remaining = self._step_end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining


class SocketAddress(NamedTuple):
    """One address of a mail server, in the form that `socket.connect` takes."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def ip_address(self) -> str:
        """The IP address, with its zone if it has one."""
        return str(self.sockaddr[0])

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.sockaddr[1])


def resolve(host: str, port: int, deadline: Deadline, owner: int | None = None) -> list[SocketAddress]:
    """Return every address of the host, in the order to try them.

    Raises:
        SmtpFailure: at stage NAME; SETTINGS where the name does not exist, else TEMPORARY. BUSY where other lookups of
            the owner, or of everybody, are not done in time.
    """
    try:
        with suppress(socket.gaierror):
            return resolve_numeric(host, port)
        return _resolvers().look_up(owner, host, port, deadline)
    except TimeoutError as error:
        raise network_failure(Stage.NAME, error) from None
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError) or error.errno in _NO_SUCH_NAME:
            raise _not_found() from None
        raise SmtpFailure(classify(Stage.NAME, None, to_translate("The name could not be looked up."))) from None


def resolve_numeric(host: str, port: int) -> list[SocketAddress]:
    """Return the socket address of a numeric host, in any notation that the system accepts.

    For another host it raises `socket.gaierror`, for one that is not even a valid name UnicodeError.
    """
    return _look_up(host, port, socket.AI_NUMERICHOST)


def _look_up(host: str, port: int, flags: int = 0) -> list[SocketAddress]:
    results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [SocketAddress(family, sockaddr) for family, _, _, _, sockaddr in results]


class _Resolvers:
    """Lookups in threads of their own: getaddrinfo has no timeout, so they can be left running."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_LOOKUPS, "resolver")
        self._running: Counter[int | None] = Counter()  # by owner
        self._changed = Condition()

    def look_up(self, owner: int | None, host: str, port: int, deadline: Deadline) -> list[SocketAddress]:
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._running[owner] < MAX_LOOKUPS_PER_OWNER, deadline.remaining()
            )
            if not has_room:
                raise SmtpFailure(BUSY)
            self._running[owner] += 1
        lookup = self._threads.submit(self._run, owner, host, port)
        try:
            return lookup.result(deadline.remaining())
        except TimeoutError:
            if lookup.cancel():  # it never began
                self._end(owner)
                raise SmtpFailure(BUSY) from None
            raise

    def _run(self, owner: int | None, host: str, port: int) -> list[SocketAddress]:
        try:
            return _look_up(host, port)
        finally:
            self._end(owner)

    def _end(self, owner: int | None) -> None:
        with self._changed:
            self._running[owner] -= 1
            self._changed.notify_all()


@cache
def _resolvers() -> _Resolvers:
    return _Resolvers()


os.register_at_fork(after_in_child=_resolvers.cache_clear)  # threads do not survive a fork


def connect(
    addresses: Sequence[SocketAddress],
    policy: NetworkPolicy,
    deadline: Deadline,
    on_connecting: Callable[[SocketAddress], None] | None = None,
) -> socket.socket:
    """Return a socket connected to the first of these addresses that the policy allows and that answers.

    Each address gets half of the remaining time, the last one all of it, so that a silent address leaves time for the
    next. `on_connecting` is called with each address that is tried.

    Raises:
        SmtpFailure: at stage NAME for SETTINGS where no address is allowed; else at CONNECT, with the last error.
    """
    addresses = [address for address in addresses if policy.allows(address.ip_address, address.port)][:MAX_ADDRESSES]
    if not addresses:
        raise _not_found()
    last_error = OSError()
    for remaining_addresses, address in zip(reversed(range(len(addresses))), addresses, strict=True):
        if on_connecting:
            on_connecting(address)
        try:
            return _connected(address, deadline.remaining() / (2 if remaining_addresses else 1))
        except OSError as error:
            last_error = error
    raise network_failure(Stage.CONNECT, last_error) from None


def _not_found() -> SmtpFailure:
    # The same text for an unknown name and for a forbidden address: otherwise tenants could probe internal names.
    return settings_failure(Stage.NAME, to_translate("No mail server that the portal may connect to was found."))


def _connected(address: SocketAddress, timeout: float) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address.sockaddr)
        # A message is written in one go: its last segment must not wait for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


@cache
def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return this process's TLS context: it verifies certificate and host name, and requires TLS 1.2 or newer.

    Args:
        ca_file: PEM file of certificate authorities to trust in addition to the system's.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 switches this check on. It rejects private authorities made with openssl's defaults, which have no key
    # usage, and certificates without an authority key identifier (RFC 5280 asks for both; cpython#107361).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def settings_failure(stage: Stage, text: str) -> SmtpFailure:
    """Return a failure that only a change of the mail server's settings can fix."""
    return SmtpFailure(SmtpReply(ReplyKind.SETTINGS, stage, text=text))


def network_failure(stage: Stage, error: OSError) -> SmtpFailure:
    """Return the failure for a network error, with a fixed text: only a mail server's reply is passed on verbatim."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in HOST_MISMATCH:
            text = to_translate("The certificate is not accepted: it is not valid for this server address.")
            return settings_failure(stage, text)
        case ssl.SSLCertVerificationError():
            return settings_failure(stage, f"The certificate is not accepted: {error.verify_message}")
        case ConnectionRefusedError():
            text = to_translate("The connection was refused.")
        case ConnectionError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            text = to_translate("The mail server closed the connection.")
        case ssl.SSLError() if stage is Stage.TLS:
            return settings_failure(stage, to_translate("Encryption could not be negotiated."))
        case TimeoutError():
            text = to_translate("No response in time.")
        case _ if stage is Stage.CONNECT:
            text = to_translate("The mail server is unreachable.")
        case _:
            text = to_translate("The connection was lost.")
    return SmtpFailure(classify(stage, None, text))
