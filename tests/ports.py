"""Ports for servers that can neither choose one nor be handed a socket.

A port that the kernel chose and that was closed again may be anybody's before the server starts: another test's server
or the near end of a connection. So these are ports that the kernel never chooses.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
CHOSEN_BY_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, END = 10_000, 32_768  # below what kernels choose unless told otherwise


def free_port() -> int:
    """Return a port that nobody uses, and that no other call returns as long as this process runs."""
    return next(_ports)


def _free_ports() -> Iterator[int]:
    for port in range(FIRST, _end()):
        if _lock(port) and _is_unused(port):
            yield port
    raise AssertionError("no port is free")


def _end() -> int:
    if not CHOSEN_BY_KERNEL.exists():
        return END
    first_chosen = int(CHOSEN_BY_KERNEL.read_text().split()[0])
    return min(first_chosen, END) if first_chosen > FIRST else END  # a kernel that chooses any: the best there is


def _lock(port: int) -> bool:
    """Take the port of this number for UDP, which is the lock of the one for TCP: it ends with this process."""
    lock = socket.socket(type=socket.SOCK_DGRAM)
    try:
        lock.bind((HOST, port))
    except OSError:
        lock.close()
        return False
    lock.detach()
    return True


def _is_unused(port: int) -> bool:
    """Return whether no socket, not even one of a connection that has ended, has the port."""
    with suppress(OSError), socket.socket() as sock:
        sock.bind((HOST, port))
        return True
    return False


_ports = _free_ports()
