"""Which addresses may be dialled for whom: a tenant's mail server is on the internet, not in the operator's house.

A tenant types in a name, and whoever owns the name says where it leads. So it is the address that counts, and it is
looked at when it is dialled.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from portal import config
from portal.config import Network

PORTS: Final = (25, 465, 587, 2525)

_INTERNET_6: Final = ip_network("2000::/3")  # all that is given out; what is outside has a meaning of its own
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: how a network without IPv4 reaches it
# Python's lists grow with its versions; these are IANA's, of special purposes.
_SPECIAL: Final = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments
            "192.88.99.0/24",  # once relays of 6to4
            "2001::/23",  # protocol assignments: Teredo and others
            "2002::/16",  # 6to4, an IPv4 address inside
            "3fff::/20",  # documentation
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be dialled: the internet, networks that the operator named, or everything."""

    networks: tuple[Network, ...] = ()
    everywhere: bool = False

    def admits(self, host: str, port: int) -> bool:
        """Return whether this numeric address may be dialled."""
        return self.everywhere or self.trusts(host) or (port in PORTS and is_public(host))

    def trusts(self, host: str) -> bool:
        """Return whether the numeric address is in a network that the operator named."""
        return any(_meant(host) in network for network in self.networks)


INTERNET: Final = Reach()


def reach_of(tenant_id: int | None) -> Reach:
    """Return the reach of a tenant's mail server, or of the system's for None: the operator's own, wherever it is."""
    return Reach(config.current().smtp_allowed_networks, everywhere=tenant_id is None)


def is_public(host: str) -> bool:
    """Return whether a numeric address is one machine on the internet."""
    address = _meant(host)
    if isinstance(address, IPv6Address) and address not in _INTERNET_6:
        return False
    special = address.is_multicast or any(address in network for network in _SPECIAL)
    return address.is_global and not special


def _meant(host: str) -> IPv4Address | IPv6Address:
    """Return the address, of IPv4 where one stands inside of IPv6 and is what is reached."""
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address
