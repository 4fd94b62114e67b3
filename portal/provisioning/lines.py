"""A line of the PBX as a softphone signs in to it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Self


class Transport(StrEnum):
    """How SIP travels, as it stands in a SIP URI (RFC 3261, section 19.1.1)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Line:
    """What a softphone needs to register. The password itself is not kept, only what a digest is made of."""

    username: str
    sip_domain: str
    ha1: str | None = field(repr=False)  # None: the softphone asks for the password
    registrar: str
    port: int | None  # None: the transport's own
    transport: Transport
    display_name: str | None

    @classmethod
    def of(
        cls,
        *,
        username: str,
        sip_domain: str,
        password: str | None = None,
        login_ip: str | None = None,
        transport: str | None = None,
        udp_port: int | None = None,
        tcp_port: int | None = None,
        tls_port: int | None = None,
        display_name: str | None = None,
    ) -> Self:
        """Return the line that a PBX describes in a new user's event.

        Args:
            username: the extension number.
            sip_domain: where the line belongs, and the realm of its password.
            password: in clear text.
            login_ip: address or name of the host to register at, where that is not `sip_domain`.
            transport: `udp`, `tcp` or `tls`; without it, the first of these that has a port.
            udp_port: SIP over UDP; as the next two, the transport's own port where it is not given.
            tcp_port: SIP over TCP.
            tls_port: SIP over TLS.
            display_name: the name that others see.
        """
        ports = {Transport.UDP: udp_port, Transport.TCP: tcp_port, Transport.TLS: tls_port}
        offered = [each for each in Transport if ports[each] is not None]
        chosen = Transport(transport) if transport else next(iter(offered), Transport.UDP)
        return cls(
            username=username,
            sip_domain=sip_domain,
            ha1=digest(username, sip_domain, password) if password else None,
            registrar=login_ip or sip_domain,
            port=ports[chosen],
            transport=chosen,
            display_name=display_name,
        )

    @property
    def address_of_record(self) -> str:
        """Whose line it is, like "101@acme.example" (RFC 3261, section 6)."""
        return f"{self.username}@{self.sip_domain}"

    def to_json(self) -> str:
        """Return the line as text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the line that `to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"transport": Transport(values["transport"])})


def digest(username: str, realm: str, password: str) -> str:
    """Return HA1, in hexadecimal, which answers a registrar's digest challenge without the password.

    SIP registrars ask for MD5 (RFC 3261, section 22.4; RFC 7616, section 3.4.2).
    """
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).hexdigest()
