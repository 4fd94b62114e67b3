"""Mail to accounts (a forgotten password, a changed one), through the system's mail server."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any

from flask import Flask, current_app, url_for
from flask_security import MailUtil
from sqlalchemy.exc import SQLAlchemyError

from portal import config
from portal.extensions import db
from portal.mail_servers import composing, pause, sending
from portal.mail_servers.composing import UnsafeHeader, Words
from portal.mail_servers.outcome import Kind, Outcome, advice
from portal.mail_servers.selection import of_owner
from portal.mail_servers.sender import sender

AT_ONCE = 2
AFTER = 0.2  # seconds, when the answer is out: the work would slow it down, and so tell of itself
WAITING = 50  # mails; more are not sent


class AccountMail(MailUtil):
    """Sends Flask-Security's mails behind the visitor's back.

    The visitor's answer neither waits for a mail server nor tells by its time or its words whether there was a mail.
    """

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self._app = app
        self._workers = ThreadPoolExecutor(AT_ONCE, "account-mail")
        self._places = BoundedSemaphore(AT_ONCE + WAITING)

    def send_mail(
        self,
        template: str,  # noqa: ARG002 (Flask-Security's signature)
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],  # noqa: ARG002
        body: str | None,
        html: str | None,
        **kwargs: Any,
    ) -> None:
        """Have the mail sent, unless it is for nobody: a `user` that is not stored.

        Whatever fails is logged, without addresses and without what the mail says.
        """
        address = recipient if isinstance(recipient, str) else recipient[1]
        words = Words(str(subject), _at_home(body or ""), _at_home(html or ""))
        if not self._places.acquire(blocking=False):
            current_app.logger.error("Mail to an account was not sent: too many are waiting.")
            return
        work = self._send if kwargs["user"].id else _send_nothing
        self._workers.submit(work, words, address).add_done_callback(lambda _: self._places.release())

    def _send(self, words: Words, address: str) -> None:
        time.sleep(AFTER)
        with self._app.app_context():
            try:
                failure = _send(words, address)
            except (SQLAlchemyError, UnsafeHeader) as error:
                failure = type(error).__name__
            if failure:
                self._app.logger.error("Mail to an account was not sent: %s", failure)


def _send_nothing(_words: Words, _address: str) -> None:
    """For somebody without an account: the visitor's answer is made in the same way, and takes as long."""


def _send(words: Words, address: str) -> str | None:
    """Return why the mail was not sent, or None."""
    server = of_owner(None)
    if server is None:
        return "the system has no mail server."
    if server.rejected_at:
        return "the system's mail server refused its settings; save them again."
    saved_at, from_ = server.saved_at, sender(None, server.sender_email)
    message_id = composing.new_message_id(from_.address)
    message = composing.compose(words, from_, [address], message_id=message_id, date=datetime.now(UTC))
    result = sending.submit_apart(server.smtp_settings, message, from_.address, [address])
    outcome = result.outcomes[address]
    pause.apply(server.id, saved_at, result.pause, outcome.text)
    db.session.commit()
    return None if outcome.kind is Kind.SENT else _reason(outcome, server.port)


def _reason(outcome: Outcome, port: int) -> str:
    return f"{outcome.stage} {outcome.code or ''} {advice(outcome, port)}"


def _at_home(text: str) -> str:
    """Return the text with its links under PORTAL_URL.

    Flask-Security makes them from the request's Host header, which a stranger who asks for somebody's new password
    could choose.
    """
    here = url_for("tenants.home", _external=True)
    return text.replace(here, f"{config.current().portal_url}/")
