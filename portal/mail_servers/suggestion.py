"""Suggests the provider that an email belongs to: the MX records of its domain show who receives its email."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from werkzeug.exceptions import TooManyRequests

from portal.accounts import rate_limits
from portal.accounts.models import Account
from portal.accounts.rate_limits import ACCOUNT, HOUR, MINUTE, Limit, Rule
from portal.mail_servers.dns_lookup import DnsLookups, LookupFailed, is_on_the_internet
from portal.mail_servers.providers import host_for, host_for_mailbox, provider_of
from portal.web.forms import normalize_domain
from portal.web.slots import Bound, Slots

TIME_LIMIT: Final = 2.0  # seconds: a person is typing
MAX_EMAILS: Final = 2
RATE_LIMIT: Final = Rule("provider suggestion", (Limit(20, MINUTE, ACCOUNT), Limit(200, HOUR, ACCOUNT)))
SLOTS: Final = Slots(running=Bound(per_account=1, total=4))


class Suggestion(NamedTuple):
    """A provider, and the host that its customers with such an email use."""

    label: str
    host: str


def suggest_provider(account: Account, emails: Sequence[str]) -> Suggestion | None:
    """Return the provider of the first of these emails that belongs to a known one, or None.

    It is also None if the DNS does not answer, or if the account has too much looked up.
    """
    domains = dict.fromkeys(filter(None, map(_domain, emails[:MAX_EMAILS])))
    hosts = (host_for_mailbox(domain) for domain in domains)
    host = next(filter(None, hosts), None) or _look_up(account, list(domains))
    provider = provider_of(host) if host else None
    return Suggestion(provider.label, host) if host and provider else None


def _domain(email: str) -> str:
    name, _, domain = email.rpartition("@")
    try:
        domain = normalize_domain(domain) if name else ""
    except ValueError:
        return ""
    return domain if is_on_the_internet(domain) else ""


def _look_up(account: Account, domains: Sequence[str]) -> str | None:
    if not domains or rate_limits.count(RATE_LIMIT, account=account.email):
        return None
    lookups = DnsLookups(TIME_LIMIT, len(domains))
    try:
        with SLOTS.hold(account.id):
            hosts = (host_for(lookups.mail_exchangers(domain).values) for domain in domains)
            return next(filter(None, hosts), None)
    except (LookupFailed, TooManyRequests):
        return None
