"""Whether the system itself works: workers that run, mail that is overdue, calls that nobody's key stands for."""

from collections.abc import Iterator, Sequence

from flask_babel import gettext, ngettext
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
        yield Concern(
            "bad", gettext("No worker is running, so no mail is tried again: start “flask --app wsgi worker”.")
        )


def _overdue() -> Iterator[Concern]:
    count = unsent.overdue()
    if count:
        sentence = ngettext(
            "%(number)s mail is overdue by more than 5 minutes: the workers do not keep up.",
            "%(number)s mails are overdue by more than 5 minutes: the workers do not keep up.",
            count,
            number=number(count),
        )
        yield Concern("bad", sentence)


def _rejected() -> Iterator[Concern]:
    count = rejections.total(None)
    if count:
        sentence = ngettext(
            "%(number)s call was rejected in the last 7 days, of the system's keys or of none.",
            "%(number)s calls were rejected in the last 7 days, of the system's keys or of none.",
            count,
            number=number(count),
        )
        yield Concern("warn", sentence, gettext("See why"), "system_keys.keys", {"_anchor": "rejected"})
