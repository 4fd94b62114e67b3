"""SPF (RFC 7208): which servers a domain lets send its email, and what is wrong with its record.

A receiving server evaluates a record for one IP address and stops at the first match. Here all of it is read, as the
address from which a mail server sends is not known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from portal.mail_servers.dns_lookup import DnsLookups

VERSION: Final = "v=spf1"
MAX_LOOKUPS: Final = 10  # RFC 7208, section 4.6.4, as the next ones
MAX_VOID_LOOKUPS: Final = 2
MAX_EXCHANGERS: Final = 10
_MODIFIER: Final = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE | re.DOTALL)
_MECHANISM: Final = re.compile(
    r"(?P<qualifier>[+?~-]?)"
    r"(?:(?P<all>all)|(?P<network>ip[46]):(?P<address>[0-9a-f.:]{2,45}(?:/\d{1,3})?)"
    r"|(?P<named>include|exists):(?P<name>[!-~]+)"
    r"|(?P<host>a|mx)(?::(?P<host_name>[!-.0-~]+))?(?:/\d{1,2})?(?://\d{1,3})?"
    r"|(?P<ptr>ptr)(?::[!-~]+)?)",
    re.IGNORECASE,
)


class SpfFault(Enum):
    """Why mail servers cannot use a domain's SPF record."""

    MISSING = auto()
    SEVERAL = auto()
    SYNTAX = auto()
    TOO_MANY_LOOKUPS = auto()
    TOO_MANY_VOID_LOOKUPS = auto()
    INCLUDES_NOTHING = auto()


class _Unusable(Exception):
    def __init__(self, fault: SpfFault, culprit: str = "") -> None:
        self.fault, self.culprit = fault, culprit


@dataclass(slots=True)
class SpfPolicy:
    """What a domain's record says. `culprit` is the term or the name with the fault.

    Only what passes is listed: the domains of included records, hosts and networks. `final` is what applies to all
    others: "-all", "~all", "?all", "+all" or nothing.
    """

    record: str = ""
    fault: SpfFault | None = None
    culprit: str = ""
    records_found: int = 0
    includes: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    networks: list[IPv4Network | IPv6Network] = field(default_factory=list)
    final: str = ""

    @property
    def allows_nobody(self) -> bool:
        """Whether the record says that the domain sends no email."""
        return self.final == "-all" and not (self.includes or self.hosts or self.networks)

    def includes_one_of(self, domains: Sequence[str]) -> bool:
        """Return whether one of these domains, or one below them, is included."""
        return any(name == domain or name.endswith(f".{domain}") for name in self.includes for domain in domains)

    def allows_host(self, host: str, ip_addresses: Sequence[str]) -> bool:
        """Return whether a host is named, or one of its IP addresses is in a network that is."""
        addresses = [ip_address(text) for text in ip_addresses]
        return host in self.hosts or any(address in network for address in addresses for network in self.networks)


def read_policy(domain: str, lookups: DnsLookups) -> SpfPolicy:
    """Return what the SPF record of a domain says.

    Raises:
        LookupFailed: the DNS did not answer.
    """
    policy = SpfPolicy()
    try:
        policy.record = _record_of(domain, lookups, policy)
        _PolicyReader(policy, lookups).read(domain, policy.record, passes=True, is_final=True)
    except _Unusable as error:
        policy.fault, policy.culprit = error.fault, error.culprit
    return policy


def _record_of(domain: str, lookups: DnsLookups, policy: SpfPolicy | None = None) -> str:
    texts = lookups.texts(domain).values
    records = [text for text in texts if text.lower() == VERSION or text.lower().startswith(f"{VERSION} ")]
    if policy:
        policy.records_found = len(records)
    if len(records) != 1:
        raise _Unusable(SpfFault.SEVERAL if records else SpfFault.MISSING)
    return records[0]


class _PolicyReader:
    """Reads the record of a domain, and those that it includes."""

    def __init__(self, policy: SpfPolicy, lookups: DnsLookups) -> None:
        self.policy, self.lookups = policy, lookups
        self.terms_with_lookup = self.void_lookups = 0

    def read(self, domain: str, record: str, *, passes: bool, is_final: bool) -> None:
        """Read a record. `passes`: what matches in it may send. `is_final`: its `all` applies to the domain."""
        redirect, is_closed = "", False
        for term in record.split()[1:]:
            modifier = _MODIFIER.fullmatch(term)
            if modifier:
                redirect = _redirect(term, modifier, redirect)
                continue
            mechanism = _MECHANISM.fullmatch(term)
            if not mechanism:
                raise _Unusable(SpfFault.SYNTAX, term)
            if is_closed:
                continue
            is_closed = mechanism["all"] is not None
            if is_closed and is_final:
                self.policy.final = f"{mechanism['qualifier'] or '+'}all"
            self._read_mechanism(mechanism, domain, passes=passes and mechanism["qualifier"] in ("", "+"))
        if redirect and not is_closed:
            self._follow(redirect, passes=passes, is_final=is_final)

    def _read_mechanism(self, mechanism: re.Match[str], domain: str, *, passes: bool) -> None:
        if mechanism["network"]:
            self._add_network(mechanism[0], mechanism["address"], passes=passes)
        elif mechanism["host"]:
            self._read_host(mechanism["host"].lower(), mechanism["host_name"] or domain, passes=passes)
        elif mechanism["named"] and mechanism["named"].lower() == "include":
            self._follow(mechanism["name"], passes=passes, is_final=False)
        elif not mechanism["all"]:  # exists and ptr depend on the client
            self._count_lookup()

    def _follow(self, name: str, *, passes: bool, is_final: bool) -> None:
        self._count_lookup()
        if "%" in name:  # a macro, which depends on the client
            return
        name = name.lower().rstrip(".")
        try:
            record = _record_of(name, self.lookups)
        except _Unusable:
            raise _Unusable(SpfFault.INCLUDES_NOTHING, name) from None
        if passes:
            self.policy.includes.add(name)
        self.read(name, record, passes=passes, is_final=is_final)

    def _read_host(self, mechanism: str, name: str, *, passes: bool) -> None:
        self._count_lookup()
        if "%" in name:
            return
        if mechanism == "mx":
            hosts = self.lookups.mail_exchangers(name).values[:MAX_EXCHANGERS]
            addresses: tuple[str, ...] = ()
        else:
            hosts, addresses = (name.lower().rstrip("."),), self.lookups.ip_addresses(name).values
        if not (addresses if mechanism == "a" else hosts):
            self._count_void_lookup()
        if passes:
            self.policy.hosts.update(hosts)
            self.policy.networks += [ip_network(address) for address in addresses]

    def _add_network(self, term: str, text: str, *, passes: bool) -> None:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise _Unusable(SpfFault.SYNTAX, term) from None
        if passes:
            self.policy.networks.append(network)

    def _count_lookup(self) -> None:
        self.terms_with_lookup += 1
        if self.terms_with_lookup > MAX_LOOKUPS:
            raise _Unusable(SpfFault.TOO_MANY_LOOKUPS)

    def _count_void_lookup(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > MAX_VOID_LOOKUPS:
            raise _Unusable(SpfFault.TOO_MANY_VOID_LOOKUPS)


def _redirect(term: str, modifier: re.Match[str], earlier: str) -> str:
    """Return the domain to which a record redirects, after one of its modifiers."""
    if modifier[1].lower() != "redirect":
        return earlier
    if earlier or not modifier[2]:  # RFC 7208, section 6: at most once
        raise _Unusable(SpfFault.SYNTAX, term)
    return modifier[2]
