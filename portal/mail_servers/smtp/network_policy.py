"""Which IP addresses the portal may connect to: tenants' mail servers are on the internet, not inside.

A tenant enters a host name, and the owner of that name decides which address it resolves to. So the policy checks the
IP address, at the time of connecting.
"""

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from portal.config import Network

SMTP_PORTS: Final = (25, 465, 587, 2525)

_GLOBAL_IPV6: Final = ipaddress.ip_network("2000::/3")  # all global unicast; everything else has a special purpose
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses as seen from an IPv6-only network
# IANA's special-purpose networks that not every supported Python version knows: protocol assignments, former 6to4
# relays, protocol assignments (Teredo and others), 6to4 with an embedded IPv4 address, documentation.
_SPECIAL: Final = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
]


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Where the portal may connect to: the internet, the operator's trusted networks too, or anywhere."""

    trusted_networks: tuple[Network, ...] = ()
    unrestricted: bool = False

    def allows(self, ip_address: str, port: int) -> bool:
        """Return whether the portal may connect to this IP address and port."""
        return self.unrestricted or self.trusts(ip_address) or (port in SMTP_PORTS and is_public(ip_address))

    def trusts(self, ip_address: str) -> bool:
        """Return whether the IP address is in one of the operator's trusted networks."""
        return any(_effective_address(ip_address) in network for network in self.trusted_networks)


PUBLIC_INTERNET: Final = NetworkPolicy()


def is_public(ip_address: str) -> bool:
    """Return whether an IP address is one host on the internet."""
    address = _effective_address(ip_address)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6:
        return False
    special = address.is_multicast or any(address in network for network in _SPECIAL)
    return address.is_global and not special


def _effective_address(ip_address: str) -> IPv4Address | IPv6Address:
    """Return the IP address, or the IPv4 address embedded in an IPv6 address that leads to it."""
    address = ipaddress.ip_address(ip_address)
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address
