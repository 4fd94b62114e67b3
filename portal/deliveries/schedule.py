"""When a mail is tried again."""

import random
from datetime import datetime, timedelta

RETRY_AFTER = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440))
SPREAD = 0.2
AFTER_PAUSE = timedelta(seconds=30)
AFTER_OTHERS = timedelta(seconds=5)
LEASE = timedelta(minutes=3)  # the two mails of an event may take 10 s up to the final dot and 60 s for its reply


def next_attempt(attempts: int, now: datetime) -> datetime:
    """Return when to try again after `attempts` attempts, spread by 20 % so that many do not come at once."""
    wait = RETRY_AFTER[min(attempts, len(RETRY_AFTER)) - 1]
    return now + wait * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 (no secret)


def after_pause(until: datetime) -> datetime:
    """Return when to try again after a pause: soon, but not all at once."""
    return until + AFTER_PAUSE * random.random()  # noqa: S311


def after_others(now: datetime) -> datetime:
    """Return when to try again what found all places of its mail server taken."""
    return now + AFTER_OTHERS * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311
