"""SPF records: what they allow, and the limits of RFC 7208."""

import pytest

from portal.mail_servers.dns_lookup import DnsLookups, LookupFailed
from portal.mail_servers.spf import SpfFault, SpfPolicy, read_policy
from tests.dns_server import DnsFault, DnsServer, dns_server

__all__ = ["dns_server"]

NAME = "acme.com"


def read(server: DnsServer, *records: str) -> SpfPolicy:
    server.add_text(NAME, *records)
    return read_policy(NAME, DnsLookups(3, 60))


def chain(server: DnsServer, length: int) -> str:
    """Make so many records, each of which includes the next, and return a record that includes the first."""
    for number in range(1, length):
        server.add_text(f"_{number}.net", f"v=spf1 include:_{number + 1}.net -all")
    server.add_text(f"_{length}.net", "v=spf1 ip4:192.0.2.1 -all")
    return "v=spf1 include:_1.net ~all"


def test_what_is_included_is_followed(dns_server: DnsServer) -> None:
    dns_server.add_text("spf.protection.outlook.com", "v=spf1 ip4:40.92.0.0/15 ip6:2a01:111:f400::/48 -all")
    dns_server.add_text("spf.acme.com", "v=spf1 include:spf.protection.outlook.com ?all")
    policy = read(dns_server, "google-site-verification=x", "v=spf1 include:SPF.acme.com. ip4:192.0.2.9 -all")
    assert policy.fault is None
    assert policy.final == "-all"
    assert policy.includes_one_of(["spf.protection.outlook.com"])
    assert not policy.includes_one_of(["outlook.com.evil", "otection.outlook.com", "_spf.google.com"])
    assert policy.allows_host("smtp.x.net", ["40.93.1.1"])
    assert policy.allows_host("smtp.x.net", ["2a01:111:f400::1"])
    assert policy.allows_host("smtp.x.net", ["192.0.2.9"])
    assert not policy.allows_host("smtp.x.net", ["192.0.2.8"])


def test_hosts_are_looked_up(dns_server: DnsServer) -> None:
    dns_server.add(NAME, "MX", "10 mx.acme.com.")
    dns_server.add("mail.acme.com", "A", "192.0.2.25")
    policy = read(dns_server, "v=spf1 mx a:mail.acme.com/24 -all")
    assert policy.fault is None
    assert policy.hosts == {"mx.acme.com", "mail.acme.com"}
    assert policy.allows_host("other.acme.com", ["192.0.2.25"])


def test_only_what_passes_counts(dns_server: DnsServer) -> None:
    dns_server.add_text("a.net", "v=spf1 ip4:192.0.2.1 -all")
    policy = read(dns_server, "v=spf1 -include:a.net ~ip4:192.0.2.7 -all")
    assert policy.allows_nobody
    assert not policy.includes_one_of(["a.net"])
    assert not policy.allows_host("", ["192.0.2.1", "192.0.2.7"])


@pytest.mark.parametrize(
    ("record", "final"),
    [
        ("v=spf1", ""),
        ("v=spf1 all", "+all"),
        ("V=SPF1 +ALL", "+all"),
        ("v=spf1 -all ip4:192.0.2.1 include:none.net", "-all"),  # nothing after it is used
        ("v=spf1 redirect=b.net", "~all"),
        ("v=spf1 redirect=b.net ?all", "?all"),
        ("v=spf1 exp=why.acme.com other.thing=x ~all", "~all"),
    ],
)
def test_the_end_of_a_record(dns_server: DnsServer, record: str, final: str) -> None:
    dns_server.add_text("b.net", "v=spf1 ip4:192.0.2.2 ~all")
    policy = read(dns_server, record)
    assert (policy.fault, policy.final.lower()) == (None, final)


def test_a_redirect_brings_what_the_other_record_allows(dns_server: DnsServer) -> None:
    dns_server.add_text("_spf.google.com", "v=spf1 ip4:192.0.2.0/24 ~all")
    policy = read(dns_server, "v=spf1 redirect=_spf.google.com")
    assert policy.includes_one_of(["_spf.google.com"])
    assert policy.allows_host("", ["192.0.2.99"])


@pytest.mark.parametrize(
    ("records", "fault", "culprit"),
    [
        (["other"], SpfFault.MISSING, ""),
        (["v=spf10 -all"], SpfFault.MISSING, ""),
        (["v=spf1 -all", "v=spf1 ~all"], SpfFault.SEVERAL, ""),
        (["v=spf1 ipv4:192.0.2.1 -all"], SpfFault.SYNTAX, "ipv4:192.0.2.1"),
        (["v=spf1 ip4:192.0.2.300 -all"], SpfFault.SYNTAX, "ip4:192.0.2.300"),
        (["v=spf1 ip4:192.0.2.0/99 -all"], SpfFault.SYNTAX, "ip4:192.0.2.0/99"),
        (["v=spf1 include: -all"], SpfFault.SYNTAX, "include:"),
        (["v=spf1 redirect="], SpfFault.SYNTAX, "redirect="),
        (["v=spf1 redirect=b.net redirect=b.net"], SpfFault.SYNTAX, "redirect=b.net"),
        (["v=spf1 -all\u00e9"], SpfFault.SYNTAX, "-all\ufffd\ufffd"),
        (["v=spf1 include:none.net -all"], SpfFault.INCLUDES_NOTHING, "none.net"),
        (["v=spf1 include:two.net -all"], SpfFault.INCLUDES_NOTHING, "two.net"),
        (["v=spf1 a:x1.net a:x2.net -all"], None, ""),
        (["v=spf1 a:x1.net a:x2.net mx:x3.net -all"], SpfFault.TOO_MANY_VOID_LOOKUPS, ""),
    ],
)
def test_faults(dns_server: DnsServer, records: list[str], fault: SpfFault | None, culprit: str) -> None:
    dns_server.add_text("two.net", "v=spf1 -all", "v=spf1 ~all")
    dns_server.add_text("b.net", "v=spf1 -all")
    policy = read(dns_server, *records)
    assert (policy.fault, policy.culprit) == (fault, culprit)


def test_ten_lookups_are_allowed_and_eleven_are_not(dns_server: DnsServer) -> None:
    assert read(dns_server, chain(dns_server, 10)).fault is None
    assert read(dns_server, chain(dns_server, 11)).fault is SpfFault.TOO_MANY_LOOKUPS
    macros = " ".join(f"exists:%{{i}}.{number}.net" for number in range(8))
    assert read(dns_server, f"v=spf1 {macros} ptr a:%{{d}} -all").fault is None
    assert read(dns_server, f"v=spf1 {macros} ptr a:%{{d}} include:%{{d}} -all").fault is SpfFault.TOO_MANY_LOOKUPS


def test_records_that_include_each_other_come_to_an_end(dns_server: DnsServer) -> None:
    dns_server.add_text("a.net", "v=spf1 include:b.net -all")
    dns_server.add_text("b.net", "v=spf1 redirect=a.net")
    assert read(dns_server, "v=spf1 include:a.net -all").fault is SpfFault.TOO_MANY_LOOKUPS
    assert len(dns_server.queries) == 11


def test_an_included_name_that_does_not_answer_fails(dns_server: DnsServer) -> None:
    dns_server.faults["broken.net"] = DnsFault.SERVFAIL
    with pytest.raises(LookupFailed):
        read(dns_server, "v=spf1 include:broken.net -all")


def test_ten_thousand_terms_are_bounded(dns_server: DnsServer) -> None:
    read(dns_server, "v=spf1 " + "a " * 10_000)
    assert len(dns_server.queries) <= 30
