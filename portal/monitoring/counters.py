"""What this process counts and measures, in memory: on the path of an event each number costs one call.

`processes` adds them to the numbers of all processes in Postgres every few seconds. Each metric says which values its
labels have, so that none can be a tenant or an address.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Collection
from typing import Final, TypeAlias

Counts: TypeAlias = defaultdict[tuple[str, tuple[str, ...]], float]  # by a metric's name and its label values

SUM: Final = "sum"  # in place of a histogram's bucket: the sum of all seconds
OWNERS: Final = ("tenant", "system")  # of mail servers
MAX_NOTED: Final = 100_000  # more than a process notes between two reports; one without reports keeps only these


class Counter:
    """A number that only grows, for each combination of label values."""

    def __init__(self, name: str, help_text: str, **labels: Collection[str]) -> None:
        self.name, self.help_text, self.labels = name, help_text, labels

    def add(self, counts: Counts, number: float, values: tuple[str, ...]) -> None:
        """Add a number to the counts."""
        counts[self.name, values] += number


class Histogram:
    """How many things took up to how many seconds, for each combination of label values."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...], **labels: Collection[str]) -> None:
        self.name, self.help_text, self.labels, self.bounds = name, help_text, labels, bounds
        self.buckets: tuple[str, ...] = (*map(str, bounds), "+Inf")

    def add(self, counts: Counts, number: float, values: tuple[str, ...]) -> None:
        """Add something that took this number of seconds to the counts."""
        counts[self.name, (*values, self.buckets[bisect_left(self.bounds, number)])] += 1
        counts[self.name, (*values, SUM)] += number


_noted: deque[tuple[Counter | Histogram, float, tuple[str, ...]]] = deque(maxlen=MAX_NOTED)
note = _noted.append  # a metric, the number or the seconds to add, and the label values


def take(counts: Counts) -> None:
    """Add what was noted since the last time to the counts."""
    for _ in range(len(_noted)):
        metric, number, values = _noted.popleft()
        metric.add(counts, number, values)


EVENTS: Final = Counter(
    "pbx_portal_events",
    "Requests with events, by the result in the response.",
    result=(
        *("sent", "partial", "deferred", "failed", "held", "ignored", "expired", "discarded"),
        *("duplicate", "rejected", "error"),
    ),
)
EVENT_SECONDS: Final = Histogram(
    "pbx_portal_event_seconds",
    "Time from an accepted event's arrival to its response, email included.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
EMAILS: Final = Counter(
    "pbx_portal_emails",
    "Attempts to send emails about events, and emails that expired, by outcome and owner of the mail server.",
    outcome=("sent", "partial", "deferred", "failed", "held", "busy", "expired"),
    owner=(*OWNERS, "none"),
)
SMTP_SECONDS: Final = Histogram(
    "pbx_portal_smtp_seconds",
    "Time of an attempt to send an email, by owner of the mail server.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
    owner=OWNERS,
)
REJECTED: Final = Counter(
    "pbx_portal_rejected_requests",
    "Requests that were rejected, by reason.",
    reason=(
        *("no_key", "unknown_key", "expired_key", "revoked_key", "no_signature", "wrong_signature", "late_signature"),
        *("foreign_tenant", "conflict", "malformed", "too_large", "media_type", "invalid", "too_many"),
        *("busy", "incomplete"),
    ),
)
COUNTERS: Final = (EVENTS, EMAILS, REJECTED)
HISTOGRAMS: Final = (EVENT_SECONDS, SMTP_SECONDS)
