"""Whether the DNS of the sender's domain fits its mail server: MX, SPF, DKIM and DMARC.

All of it is advice: the email of a domain without any of them is sent all the same.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import Final

from flask_babel import gettext

from portal.mail_servers.dns_lookup import DnsLookups, LookupFailed, Records, is_on_the_internet
from portal.mail_servers.providers import Provider, host_for, host_for_mailbox, provider_of
from portal.mail_servers.smtp.client import SmtpSettings
from portal.mail_servers.spf import SpfFault, SpfPolicy, read_policy
from portal.web.i18n import to_translate

TIME_LIMIT: Final = 5.0  # seconds, for all look-ups
MAX_LOOKUPS: Final = 50
MAX_SHOWN_LENGTH: Final = 300
MAX_DMARC_LOOKUPS: Final = 8  # of a domain and those above it
DMARC_VERSION: Final = "v=DMARC1"
STRICT_POLICIES: Final = ("quarantine", "reject")


class Finding(StrEnum):
    """What a look-up means for the sender's email."""

    GOOD = "good"
    ADVICE = "advice"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DnsCheck:
    """The result about the records at a name. `record` quotes one, `fact` is good to know, `advice` says what to do."""

    label: str
    name: str
    finding: Finding
    fact: str = ""
    advice: str = ""
    record: str = ""


@dataclass(frozen=True, slots=True)
class _Sender:
    """The sender's domain, and the mail server that sends its email."""

    domain: str
    host: str
    host_ip_addresses: tuple[str, ...]
    provider: Provider | None


def check_sender(settings: SmtpSettings, sender_email: str) -> tuple[DnsCheck, ...]:
    """Look up the domain of a sender, and return what to know about it; nothing for a domain on a private network."""
    domain = sender_email.rpartition("@")[2].lower()
    if not is_on_the_internet(domain):
        return ()
    provider = provider_of(settings.host)
    if mailbox_host := host_for_mailbox(domain):
        return (_mailbox_domain(domain, provider_of(mailbox_host), provider),)
    lookups = DnsLookups(TIME_LIMIT, MAX_LOOKUPS)
    try:
        mail_exchangers = lookups.mail_exchangers(domain)
        if not mail_exchangers.name_exists:
            return (_no_such_domain(domain),)
        sender = _Sender(domain, settings.host, _public_ip_addresses(settings, lookups), provider)
        mx = _check_mx(mail_exchangers, sender, lookups)
    except LookupFailed:
        text = gettext("The DNS did not respond, so %(domain)s was not checked.", domain=domain)
        return (DnsCheck(gettext("Sender's domain"), domain, Finding.UNKNOWN, text),)
    spf = _checked("SPF", domain, partial(_check_spf, sender, lookups))
    dkim = _checked("DKIM", domain, partial(_check_dkim, sender, lookups))
    passes = Finding.GOOD in (spf.finding, dkim.finding) or Finding.UNKNOWN in (spf.finding, dkim.finding)
    dmarc = _checked("DMARC", f"_dmarc.{domain}", partial(_check_dmarc, sender, lookups, passes=passes))
    return mx, spf, dkim, dmarc


def _checked(label: str, name: str, check: Callable[[], DnsCheck]) -> DnsCheck:
    try:
        return check()
    except LookupFailed:
        return DnsCheck(label, name, Finding.UNKNOWN, gettext("The DNS did not respond."))


def _mailbox_domain(domain: str, owner: Provider | None, used: Provider | None) -> DnsCheck:
    values, label = {"domain": domain, "provider": owner.label if owner else ""}, gettext("Sender's domain")
    if owner is used:
        return DnsCheck(label, domain, Finding.GOOD, gettext("%(domain)s belongs to %(provider)s.", **values))
    advice = gettext(
        "%(domain)s belongs to %(provider)s: emails sent through another mail server look forged. Use a sender email "
        "in a domain of your own.",
        **values,
    )
    return DnsCheck(label, domain, Finding.ADVICE, advice=advice)


def _no_such_domain(domain: str) -> DnsCheck:
    advice = gettext(
        "%(domain)s does not exist, so emails from it are rejected. Check the sender email.", domain=domain
    )
    return DnsCheck(gettext("Sender's domain"), domain, Finding.ADVICE, advice=advice)


def _public_ip_addresses(settings: SmtpSettings, lookups: DnsLookups) -> tuple[str, ...]:
    """Return the IP addresses of the mail server to which the portal may connect: a tenant may not learn others."""
    found: Sequence[str] = ()
    try:
        found = (str(ip_address(settings.host)),)
    except ValueError:
        if is_on_the_internet(settings.host):
            with suppress(LookupFailed):
                found = lookups.ip_addresses(settings.host).values
    return tuple(address for address in found if settings.network_policy.allows(address, settings.port))


def _check_mx(mail_exchangers: Records, sender: _Sender, lookups: DnsLookups) -> DnsCheck:
    if mail_exchangers.values == ("",):  # RFC 7505
        advice = gettext(
            "The domain says that it receives no email (null MX): replies are lost, and some mail servers reject its "
            "emails."
        )
        return DnsCheck("MX", sender.domain, Finding.ADVICE, advice=advice)
    if mail_exchangers.values:
        receiver = provider_of(host_for(mail_exchangers.values) or "")
        fact = gettext("%(provider)s receives the domain's email.", provider=receiver.label) if receiver else ""
        return DnsCheck("MX", sender.domain, Finding.GOOD, fact or gettext("The domain receives email."))
    if lookups.ip_addresses(sender.domain).values:  # RFC 5321, section 5.1
        fact = gettext("The domain has no MX record. Its email goes to the host of the same name.")
        return DnsCheck("MX", sender.domain, Finding.GOOD, fact)
    advice = gettext("The domain receives no email: replies are lost, and some mail servers reject its emails.")
    return DnsCheck("MX", sender.domain, Finding.ADVICE, advice=advice)


SPF_FAULTS: Final = {
    SpfFault.MISSING: to_translate("The domain has no SPF record. Add a TXT record: %(example)s"),
    SpfFault.SEVERAL: to_translate(
        "The domain has %(count)s SPF records, so mail servers ignore them all. Merge them into one."
    ),
    SpfFault.SYNTAX: to_translate("The record is invalid at “%(culprit)s”. Correct it."),
    SpfFault.TOO_MANY_LOOKUPS: to_translate(
        "The record needs more than 10 look-ups in the DNS, so mail servers treat it as invalid. Remove what you no "
        "longer use."
    ),
    SpfFault.TOO_MANY_VOID_LOOKUPS: to_translate(
        "More than 2 names in the record do not exist, so mail servers treat it as invalid. Remove them."
    ),
    SpfFault.INCLUDES_NOTHING: to_translate(
        "The record includes %(culprit)s, which does not have one SPF record, so mail servers treat it as invalid. "
        "Remove the name or correct it."
    ),
}


def _check_spf(sender: _Sender, lookups: DnsLookups) -> DnsCheck:
    policy, provider = read_policy(sender.domain, lookups), sender.provider
    check = partial(DnsCheck, "SPF", sender.domain, record=_cut(policy.record))
    if provider and provider.has_own_envelope and policy.fault in (None, SpfFault.MISSING):
        text = gettext(
            "%(provider)s uses an envelope sender of its own, so this record is not used.",
            provider=provider.label,
        )
        return check(Finding.UNKNOWN, text)
    if policy.fault:
        values = {"example": f"v=spf1 {_term(sender)} ~all", "culprit": _cut(policy.culprit)}
        advice = gettext(SPF_FAULTS[policy.fault], count=policy.records_found, **values)
        return check(Finding.ADVICE, advice=advice)
    if policy.final == "+all":
        advice = gettext("The record allows everyone to send as this domain (+all). Replace it with ~all.")
        return check(Finding.ADVICE, advice=advice)
    if _allows(policy, sender):
        return check(Finding.GOOD, gettext("The record allows this mail server."))
    if policy.allows_nobody:
        text = to_translate("The record says that the domain sends no email. Add “%(term)s” before “-all”.")
    elif provider and provider.spf:
        text = to_translate("The record does not name this mail server. Add “%(term)s” after “v=spf1”.")
    else:
        fact = gettext(
            "The record does not name this mail server. It fits if the mail server sends from another IP address that "
            "the record allows."
        )
        return check(Finding.UNKNOWN, fact)
    return check(Finding.ADVICE, advice=gettext(text, term=_term(sender)))


def _allows(policy: SpfPolicy, sender: _Sender) -> bool:
    if sender.provider and sender.provider.spf:
        return policy.includes_one_of(sender.provider.spf)
    return policy.allows_host(sender.host, sender.host_ip_addresses)


def _term(sender: _Sender) -> str:
    """Return the term with which the domain's SPF record allows the mail server."""
    if sender.provider and sender.provider.spf:
        return f"include:{sender.provider.spf_of_host.get(sender.host, sender.provider.spf[0])}"
    try:
        return f"ip{ip_address(sender.host).version}:{sender.host}"
    except ValueError:
        return f"a:{sender.host}"


def _check_dkim(sender: _Sender, lookups: DnsLookups) -> DnsCheck:
    provider = sender.provider
    if provider is None:
        fact = gettext("Only the mail server knows its key. Look for “DKIM-Signature” in the test email's headers.")
        return DnsCheck("DKIM", sender.domain, Finding.UNKNOWN, fact)
    if not provider.dkim:
        fact = gettext("%(provider)s shows in its settings whether it signs for the domain.", provider=provider.label)
        return DnsCheck("DKIM", sender.domain, Finding.UNKNOWN, fact)
    for selector in provider.dkim:
        name = f"{selector}._domainkey.{sender.domain}"
        keys = lookups.texts(name).values
        if any(_tags(key).get("p") for key in keys):
            return DnsCheck("DKIM", name, Finding.GOOD, gettext("A key was found."))
    advice = gettext(
        "No key was found under the usual names (%(names)s). Turn on DKIM for the domain at %(provider)s, and add the "
        "DNS records that it shows.",
        names=", ".join(provider.dkim),
        provider=provider.label,
    )
    return DnsCheck("DKIM", sender.domain, Finding.ADVICE, advice=advice)


def _check_dmarc(sender: _Sender, lookups: DnsLookups, *, passes: bool) -> DnsCheck:
    domain, records = _find_dmarc(sender.domain, lookups)
    if not records:
        text = gettext(
            "The domain has no DMARC record, which large mailbox providers expect. Add a TXT record at this name: "
            "%(example)s",
            example=f"{DMARC_VERSION}; p=none",
        )
        return DnsCheck("DMARC", f"_dmarc.{sender.domain}", Finding.ADVICE, advice=text)
    check = partial(DnsCheck, "DMARC", f"_dmarc.{domain}", record=_cut(records[0]))
    tags = _tags(records[0])
    policy = tags.get("p", "")
    if domain != sender.domain:
        policy = tags.get("sp", policy)
    if len(records) > 1 or policy not in ("none", *STRICT_POLICIES):
        text = gettext("The domain needs exactly one DMARC record, which begins with “v=DMARC1; p=”.")
        return check(Finding.ADVICE, advice=text)
    if policy in STRICT_POLICIES and not passes:
        text = gettext(
            "The domain asks mail servers to reject emails, or treat them as spam, if neither SPF nor DKIM is right. "
            "Correct one of them first."
        )
        return check(Finding.ADVICE, advice=text)
    return check(Finding.GOOD)


def _find_dmarc(domain: str, lookups: DnsLookups) -> tuple[str, list[str]]:
    """Return the DMARC records of a domain or of the next one above it, and whose they are."""
    labels = domain.split(".")
    above = [".".join(labels[start:]) for start in range(len(labels) - 1)]
    for name in [*above[:1], *above[1:][1 - MAX_DMARC_LOOKUPS :]]:
        texts = lookups.texts(f"_dmarc.{name}").values
        records = [text for text in texts if re.match(rf"{DMARC_VERSION}\s*(;|$)", text)]
        if records:
            return name, records
    return domain, []


def _tags(record: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in record.split(";"))
    return {name.strip(): value.strip().lower() for name, _, value in pairs}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"
