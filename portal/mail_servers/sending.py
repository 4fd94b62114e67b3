"""Sending one mail through a mail server, in the name of this portal."""

import atexit
import os
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager

from flask import Flask, current_app

from portal import config
from portal.config import Settings
from portal.mail_servers import connection
from portal.mail_servers.composing import MimeMessage
from portal.mail_servers.connection import STANDARD_BUDGET, Budget, SendResult, SmtpSettings
from portal.mail_servers.places import PlaceLimits
from portal.mail_servers.pool import Limits, Pool
from portal.mail_servers.watching import Observer


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its mail sessions; they end with the process and do not pass to a forked one."""
    pool = Pool(Limits(), PlaceLimits(each=settings.mail_sessions, in_all=settings.mails_at_once))
    app.extensions["mail_sessions"] = pool
    atexit.register(pool.close)
    os.register_at_fork(after_in_child=pool.start_anew)


def submit(
    settings: SmtpSettings,
    message: MimeMessage,
    sender: str,
    recipients: Sequence[str],
    budget: Budget = STANDARD_BUDGET,
) -> SendResult:
    """Return what the mail server said to each recipient, within the budget of time.

    The mail goes over a kept session where there is one. Where too many mails are on their way through this mail
    server, it is not sent, and its outcome is temporary.
    """
    own = config.current()
    return _pool().send(settings, message, sender, recipients, budget, helo_name=own.host, ca_file=own.mail_ca_file)


def submit_apart(
    settings: SmtpSettings,
    message: MimeMessage,
    sender: str,
    recipients: Sequence[str],
    budget: Budget = STANDARD_BUDGET,
    observer: Observer | None = None,
) -> SendResult:
    """Return what `submit` does, over a connection of its own, which an observer may follow.

    This is for a test, which has to prove the settings, and for mail that nobody would try again.
    """
    own = config.current()
    return connection.send(
        settings, message, sender, recipients, budget, helo_name=own.host, ca_file=own.mail_ca_file, observer=observer
    )


def the_only_one(key: Hashable) -> AbstractContextManager[bool]:
    """Let one of its kind at a time be on its way: gives False where another one is, or the process has no place."""
    return _pool().places.take_only(key)


def _pool() -> Pool:
    pool: Pool = current_app.extensions["mail_sessions"]
    return pool
