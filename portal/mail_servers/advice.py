"""What a piece of advice consists of, for the tables `advice_on_connecting` and `advice_on_sending`.

Codes and words in them are those that servers and providers document.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# Providers' hosts: these names and all names below them.
GOOGLE: Final = r"(gmail|google|googlemail)\.com"
MICROSOFT: Final = r"office365\.(com|us)|outlook\.com|partner\.outlook\.cn"
AMAZON: Final = r"email-smtp(-fips)?\.[\w-]+(\.vpce)?\.amazonaws\.com(\.cn)?"
SENDGRID: Final = r"sendgrid\.net"
MAILGUN: Final = r"mailgun\.org"
BREVO: Final = r"(brevo|sendinblue)\.com"
YAHOO: Final = r"(yahoo|aol)\.com"
ZOHO: Final = r"zoho\.(com|eu|in|com\.au|jp|sa)|zohocloud\.ca"


class Advice(NamedTuple):
    """A sentence for an administrator, and the replies that it applies to: every condition that is given must hold.

    `without_retry` replaces `text` where the portal does not retry, as with a test email. A sentence that says that the
    portal tries again has "temporary" as its `kind` or `means`. `field` is the field of the mail server's form in which
    it can be followed, `url` the provider's own page for it.
    """

    text: str
    stages: tuple[str, ...] = ()
    code: str = ""  # a regular expression for the start of "code enhanced-code text"
    words: str = ""  # one for the text without addresses and links; if both are given, one of them has to match
    general_code: str = ""  # as `code`, for a code that says less than words do
    hosts: str = ""  # one for the hosts of the provider that the advice is about
    port: int | None = None
    kind: str | None = None  # as the stage and the code alone give it
    # The kind of a 5yz at MAIL, RCPT or DATA about this, whatever the stage's own is. A 5yz at another stage keeps its
    # kind, and the advice applies only if it is the same.
    means: str | None = None
    without_retry: str = ""
    field: str = ""
    url: str = ""


def at(stages: tuple[str, ...], *table: Advice, field: str = "") -> Iterator[Advice]:
    """Yield advice for these stages and this field, except what names its own."""
    return (advice._replace(stages=advice.stages or stages, field=advice.field or field) for advice in table)


def enhanced(*details: str) -> str:
    """Return the expression for replies whose enhanced code has one of these details, permanent or temporary."""
    return rf"\d* [45]\.(?:{'|'.join(details)}) "


def is_host_of(domains: str, host: str) -> bool:
    """Return whether a host has one of a provider's names, or one below them."""
    return re.search(rf"(^|\.)({domains})$", host.lower().rstrip(".")) is not None
