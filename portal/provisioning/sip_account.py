"""A SIP account with which a softphone registers at the PBX."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Self

from portal.events.types import UserCreated


class SipTransport(StrEnum):
    """A transport for SIP, as written in a SIP URI (RFC 3261, section 19.1.1)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class SipAccount:
    """What a softphone needs to register. Only the HA1 digest of the password is kept."""

    username: str
    sip_domain: str
    realm: str
    ha1: str | None = field(repr=False)  # None: the softphone asks for the password
    registrar: str
    port: int | None  # None: the transport's default
    transport: SipTransport
    display_name: str | None

    @classmethod
    def of(cls, user: UserCreated, domain: str, realm: str | None = None) -> Self:
        """Return a new user's account; the domain and the realm are the tenant's, if the PBX names no others.

        Without a transport it is the first that has a port, without a realm the domain.
        """
        ports = {SipTransport.UDP: user.udp_port, SipTransport.TCP: user.tcp_port, SipTransport.TLS: user.tls_port}
        with_port = (transport for transport in SipTransport if ports[transport] is not None)
        transport = SipTransport(user.transport) if user.transport else next(with_port, SipTransport.UDP)
        domain = user.sip_domain or domain
        realm = user.realm or realm or domain
        password = user.extension_password
        return cls(
            username=user.extension_number,
            sip_domain=domain,
            realm=realm,
            ha1=sip_digest(user.extension_number, realm, password) if password else None,
            registrar=user.login_ip or domain,
            port=ports[transport],
            transport=transport,
            display_name=user.display_name,
        )

    @property
    def address_of_record(self) -> str:
        """The public address of the account, like "101@acme.example" (RFC 3261, section 6)."""
        return f"{self.username}@{self.sip_domain}"

    def to_json(self) -> str:
        """Return the account as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the account from the JSON written by `to_json`."""
        values = json.loads(text)
        # Accounts of emails that were sent before there was a realm have none.
        return cls(**{"realm": values["sip_domain"]} | values | {"transport": SipTransport(values["transport"])})


def sip_digest(username: str, realm: str, password: str) -> str:
    """Return HA1 in hexadecimal, which is sufficient to answer a registrar's digest challenge.

    SIP registrars require MD5 (RFC 3261, section 22.4; RFC 7616, section 3.4.2).
    """
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).hexdigest()
