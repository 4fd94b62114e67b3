"""What the test email says about the DNS of the sender's domain."""

from collections.abc import Mapping

import pytest

from portal.mail_servers.deliverability import DnsCheck, Finding, check_sender
from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings
from portal.mail_servers.smtp.network_policy import PUBLIC_INTERNET
from tests.dns_server import DnsFault, DnsServer, dns_server

__all__ = ["dns_server"]

NAME = "acme.com"
OFFICE, GMAIL, SES, OWN = "smtp.office365.com", "smtp.gmail.com", "email-smtp.eu-west-1.amazonaws.com", "mail.acme.com"

pytestmark = pytest.mark.usefixtures("context")


def check(host: str = OFFICE, sender: str = "pbx@acme.com") -> dict[str, DnsCheck]:
    settings = SmtpSettings(host, 587, Encryption.STARTTLS, AuthMode.NONE, network_policy=PUBLIC_INTERNET)
    return {result.label: result for result in check_sender(settings, sender)}


def set_up(server: DnsServer, **changes: str | None) -> None:
    """Set up the domain for Microsoft 365, with other TXT records or without them."""
    server.add(NAME, "MX", "0 acme-com.mail.protection.outlook.com.")
    server.add_text("spf.protection.outlook.com", "v=spf1 ip4:40.92.0.0/15 -all")
    records: Mapping[str, tuple[str, str | None]] = {
        "spf": (NAME, "v=spf1 include:spf.protection.outlook.com -all"),
        "dkim": (f"selector1._domainkey.{NAME}", "v=DKIM1; k=rsa; p=MIGf"),
        "dmarc": (f"_dmarc.{NAME}", "v=DMARC1; p=reject; rua=mailto:x@acme.com"),
    }
    for key, (name, text) in records.items():
        text = changes.get(key, text)
        server.records.pop((name, "TXT"), None)
        if text is not None:
            server.add_text(name, text)


def findings(checks: Mapping[str, DnsCheck]) -> dict[str, str]:
    return {label: str(result.finding) for label, result in checks.items()}


def test_a_domain_that_is_set_up(dns_server: DnsServer) -> None:
    set_up(dns_server)
    checks = check()
    assert findings(checks) == dict.fromkeys(("MX", "SPF", "DKIM", "DMARC"), "good")
    assert checks["MX"].fact == "Microsoft 365 receives the domain's email."
    assert checks["SPF"].record == "v=spf1 include:spf.protection.outlook.com -all"
    assert checks["DKIM"].name == "selector1._domainkey.acme.com"
    assert checks["DMARC"].record == "v=DMARC1; p=reject; rua=mailto:x@acme.com"


def test_an_empty_domain_gets_the_records_to_add(dns_server: DnsServer) -> None:
    dns_server.add(NAME, "SOA", "ns.acme.com. x.acme.com. 1 2 3 4 5")
    checks = check()
    assert set(findings(checks).values()) == {"advice"}
    assert "v=spf1 include:spf.protection.outlook.com ~all" in checks["SPF"].advice
    assert "selector1, selector2" in checks["DKIM"].advice
    assert "v=DMARC1; p=none" in checks["DMARC"].advice
    assert checks["DMARC"].name == "_dmarc.acme.com"
    assert "v=spf1 a:mail.acme.com ~all" in check(OWN)["SPF"].advice
    assert "v=spf1 include:zoho.eu ~all" in check("smtppro.zoho.eu")["SPF"].advice
    assert "v=spf1 ip4:192.0.2.1 ~all" in check("192.0.2.1")["SPF"].advice


@pytest.mark.parametrize(
    ("spf", "finding", "part"),
    [
        ("v=spf1 include:_spf.google.com ~all", Finding.ADVICE, "Add “include:spf.protection.outlook.com” after"),
        ("v=spf1 -all", Finding.ADVICE, "sends no email. Add “include:spf.protection.outlook.com” before"),
        ("v=spf1 include:spf.protection.outlook.com +all", Finding.ADVICE, "+all"),
        ("v=spf1 include:none.net -all", Finding.ADVICE, "none.net"),
        ("v=spf1 ip4:1 -all", Finding.ADVICE, "“ip4:1”"),
        ("v=spf1" + " exists:%{i}.x.net" * 11, Finding.ADVICE, "more than 10 look-ups"),
        ("v=spf1 a:x1.net a:x2.net a:x3.net", Finding.ADVICE, "do not exist"),
        ("v=spf1 include:spf.protection.outlook.com ~all", Finding.GOOD, "allows this mail server"),
    ],
)
def test_spf_for_a_provider(dns_server: DnsServer, spf: str, finding: Finding, part: str) -> None:
    set_up(dns_server, spf=spf)
    dns_server.add_text("_spf.google.com", "v=spf1 ip4:192.0.2.0/24 ~all")
    result = check()["SPF"]
    assert result.finding is finding
    assert part in result.fact + result.advice


def test_several_spf_records(dns_server: DnsServer) -> None:
    set_up(dns_server)
    dns_server.add_text(NAME, "v=spf1 -all", "v=spf1 ~all", "other")
    assert "has 2 SPF records" in check()["SPF"].advice


@pytest.mark.parametrize(
    ("spf", "finding"),
    [
        ("v=spf1 a:mail.acme.com -all", Finding.GOOD),
        ("v=spf1 mx -all", Finding.GOOD),
        ("v=spf1 ip4:9.9.9.0/24 -all", Finding.GOOD),
        ("v=spf1 ip4:9.9.8.0/24 -all", Finding.UNKNOWN),
        ("v=spf1 ip4:10.0.0.0/8 -all", Finding.UNKNOWN),
    ],
)
def test_spf_for_an_own_server(dns_server: DnsServer, spf: str, finding: Finding) -> None:
    set_up(dns_server, spf=spf)
    dns_server.add(NAME, "MX", "0 mail.acme.com.")
    dns_server.add(OWN, "A", "9.9.9.9", "10.0.0.5")  # nothing shows that the name leads inside
    assert check(OWN)["SPF"].finding is finding


def test_a_service_with_its_own_envelope_needs_no_spf(dns_server: DnsServer) -> None:
    set_up(dns_server, spf=None)
    checks = check(SES)
    assert findings(checks) == {"MX": "good", "SPF": "unknown", "DKIM": "unknown", "DMARC": "good"}
    assert "Amazon SES" in checks["SPF"].fact
    assert "Amazon SES" in checks["DKIM"].fact


def test_a_revoked_key_is_none(dns_server: DnsServer) -> None:
    set_up(dns_server, dkim="v=DKIM1; p=")
    assert check()["DKIM"].finding is Finding.ADVICE
    dns_server.add(f"selector2._domainkey.{NAME}", "CNAME", "selector2-acme.onmicrosoft.com.")
    dns_server.add_text("selector2-acme.onmicrosoft.com", "v=DKIM1; p=MIGf")
    assert check()["DKIM"].finding is Finding.GOOD


@pytest.mark.parametrize(
    ("dmarc", "finding", "part"),
    [
        ("v=DMARC1;p=none", Finding.GOOD, ""),
        ("v=DMARC1; p=none; sp=reject", Finding.GOOD, ""),
        ("v=DMARC1; rua=mailto:x@acme.com", Finding.ADVICE, "exactly one"),
        ("v=DMARC1; p=sometimes", Finding.ADVICE, "exactly one"),
        ("v=DMARC2; p=none", Finding.ADVICE, "no DMARC record"),
    ],
)
def test_dmarc(dns_server: DnsServer, dmarc: str, finding: Finding, part: str) -> None:
    set_up(dns_server, dmarc=dmarc)
    result = check()["DMARC"]
    assert result.finding is finding
    assert part in result.advice


def test_a_strict_policy_needs_spf_or_dkim(dns_server: DnsServer) -> None:
    set_up(dns_server, spf=None, dkim=None)
    assert "neither SPF nor DKIM" in check()["DMARC"].advice
    set_up(dns_server, spf=None)
    assert check()["DMARC"].finding is Finding.GOOD
    set_up(dns_server, spf=None, dkim=None, dmarc="v=DMARC1; p=none")
    assert check()["DMARC"].finding is Finding.GOOD


def test_the_organisations_dmarc_record_counts(dns_server: DnsServer) -> None:
    dns_server.add("pbx.eu.acme.com", "MX", "0 mail.acme.com.")
    dns_server.add_text("_dmarc.acme.com", "v=DMARC1; p=none; sp=quarantine")
    checks = check(sender="pbx@pbx.eu.acme.com")
    assert checks["DMARC"].name == "_dmarc.acme.com"
    assert "neither SPF nor DKIM" in checks["DMARC"].advice  # the policy for subdomains
    asked = [name for name, _, _ in dns_server.queries if name.startswith("_dmarc.")]
    assert asked == ["_dmarc.pbx.eu.acme.com", "_dmarc.eu.acme.com", "_dmarc.acme.com"]
    dns_server.queries.clear()
    check(sender="pbx@" + "a." * 30 + "com")
    dns_server.add("a." * 30 + "com", "A", "192.0.2.1")
    check(sender="pbx@" + "a." * 30 + "com")
    assert len([name for name, _, _ in dns_server.queries if name.startswith("_dmarc.")]) == 8


def test_mail_exchangers(dns_server: DnsServer) -> None:
    set_up(dns_server)
    dns_server.add(NAME, "MX", "0 .")
    assert "null MX" in check()["MX"].advice
    dns_server.add(NAME, "MX", "10 mx.unknown.net.")
    assert check()["MX"].fact == "The domain receives email."
    del dns_server.records[NAME, "MX"]
    assert "receives no email" in check()["MX"].advice
    dns_server.add(NAME, "A", "192.0.2.1")
    assert check()["MX"].finding is Finding.GOOD


def test_a_domain_that_does_not_exist(dns_server: DnsServer) -> None:
    (result,) = check(sender="pbx@acne.com").values()
    assert "acne.com does not exist" in result.advice


@pytest.mark.parametrize(
    ("sender", "host", "finding"),
    [("acme@gmail.com", GMAIL, Finding.GOOD), ("acme@gmail.com", OFFICE, Finding.ADVICE)],
)
def test_a_domain_of_a_mailbox_provider(dns_server: DnsServer, sender: str, host: str, finding: Finding) -> None:
    (result,) = check(host, sender).values()
    assert result.finding is finding
    assert dns_server.queries == []


@pytest.mark.parametrize("fault", [DnsFault.SERVFAIL, DnsFault.GARBAGE])
def test_a_dns_without_answers_is_no_error(dns_server: DnsServer, fault: DnsFault) -> None:
    set_up(dns_server)
    dns_server.faults[f"_dmarc.{NAME}"] = fault
    assert findings(check()) == {"MX": "good", "SPF": "good", "DKIM": "good", "DMARC": "unknown"}
    dns_server.faults[NAME] = fault
    (result,) = check().values()
    assert (result.finding, result.fact) == (Finding.UNKNOWN, "The DNS did not respond, so acme.com was not checked.")


def test_a_private_domain_is_not_looked_up(dns_server: DnsServer) -> None:
    assert check(sender="pbx@acme.internal") == {}
    assert dns_server.queries == []
