"""Email to accounts (invitations, links and notices), through the system's mail server."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from flask import Flask, current_app
from flask_security import MailUtil
from sqlalchemy.exc import SQLAlchemyError

from portal.accounts import emails
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp import client, mime
from portal.mail_servers.smtp.mime import MessageContent, UnsafeHeader
from portal.mail_servers.smtp.outcome import Pause, ReplyKind, advice_for, pause_for
from portal.web.i18n import to_translate

WORKERS = 2
# Seconds until the response is out: sending would slow it down, which reveals that there is an account.
SEND_DELAY = 0.2
MAX_WAITING = 50  # emails; more are not sent


class NotSent(NamedTuple):
    """Why an email was not sent, and whether the mail server cannot be used for others either at the moment."""

    reason: str
    is_about_server: bool


class AccountEmail(MailUtil):
    """Sends the emails to accounts, and Flask-Security's, in the background.

    The visitor's response does not wait for a mail server, and neither its time nor its text reveals whether an email
    was sent.
    """

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self._app = app
        self._workers = ThreadPoolExecutor(WORKERS, "account-email")
        self._free_places = BoundedSemaphore(WORKERS + MAX_WAITING)

    def send_mail(
        self,
        template: str,
        subject: str,  # noqa: ARG002 (Flask-Security's signature)
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],  # noqa: ARG002
        body: str | None,  # noqa: ARG002
        html: str | None,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Send an email in the background, unless the `user` is not a stored account.

        Failures are logged, without addresses and content.
        """
        email = recipient if isinstance(recipient, str) else recipient[1]
        account = kwargs.pop("user")
        content = MessageContent.of(*emails.render(template, account, **kwargs))
        if not self._free_places.acquire(blocking=False):
            current_app.logger.error("An email to an account was not sent: too many are waiting.")
            return
        work = self._send if account.id else _send_nothing
        self._workers.submit(work, content, email).add_done_callback(lambda _: self._free_places.release())

    def _send(self, content: MessageContent, email: str) -> None:
        time.sleep(SEND_DELAY)
        with self._app.app_context():
            try:
                failed = send(content, email)
                failure = failed.reason if failed else ""
            except (SQLAlchemyError, UnsafeHeader) as error:
                failure = type(error).__name__
            if failure:
                self._app.logger.error("An email to an account was not sent: %s", failure)


def _send_nothing(_content: MessageContent, _email: str) -> None:
    """Do nothing, for a visitor without an account: the response is made in the same way and takes as long."""


def obstacle() -> str | None:
    """Return why no email to an account can be sent at the moment, as a message to translate, or None."""
    server = mail_server_service.get_server(None)
    if server is None:
        return to_translate("the system has no mail server.")
    if server.rejected_at:
        return to_translate("the system's mail server rejects its settings; check and save them again.")
    if mail_server_service.paused_until(server):
        return to_translate("the system's mail server is not responding.")
    return None


def send(content: MessageContent, email: str) -> NotSent | None:
    """Send an email, and return why it was not sent, or None."""
    server = mail_server_service.get_server(None)
    if server is None or server.rejected_at:
        return NotSent(obstacle() or "", is_about_server=True)
    saved_at, sender = server.saved_at, mail_server_service.sender_for(None, server.sender_email)
    message_id = mime.new_message_id(sender.email)
    message = mime.MimeMessage(content, sender, [email], message_id=message_id, date=datetime.now(UTC))
    reply = client.send(server.smtp_settings, message, sender.email, [email], client.WORKER_TIMEOUTS)[email]
    pause = pause_for(reply)
    if pause is Pause.NONE:
        mail_server_service.note_success(server)
    shown = mail_server_service.advice_on_pause(server, reply)
    mail_server_service.pause(server.id, saved_at, pause, shown)
    advice = advice_for(reply, server.port, host=server.host)
    db.session.commit()
    if reply.kind is ReplyKind.ACCEPTED:
        return None
    return NotSent(f"{reply.stage} {reply.code or ''} {advice}", is_about_server=pause is not Pause.NONE)
