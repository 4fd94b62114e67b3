"""Whether the system itself works: workers that run, mail that is overdue, calls that nobody's key stands for."""

from collections.abc import Iterator, Sequence

from sqlalchemy import text

from portal.deliveries import unsent
from portal.extensions import db
from portal.overview.attention import Concern, number
from portal.pbx import rejections

ALIVE = "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '1 minute'"


def concerns() -> Sequence[Concern]:
    """Return what needs the system administrator's attention."""
    return [*_workers(), *_overdue(), *_rejected()]


def _workers() -> Iterator[Concern]:
    if not db.session.scalar(text(ALIVE)):
        yield Concern("bad", "No worker is running, so no mail is tried again: start “flask --app wsgi worker”.")


def _overdue() -> Iterator[Concern]:
    count = unsent.overdue()
    if count:
        yield Concern("bad", f"{number(count, 'mail')} overdue by more than 5 minutes: the workers do not keep up.")


def _rejected() -> Iterator[Concern]:
    count = rejections.total(None)
    if count:
        text = f"{number(count, 'call', 'was', 'were')} rejected in the last 7 days, of the system's keys or of none."
        yield Concern("warn", text, "See why", "system_keys.keys", {"_anchor": "rejected"})
