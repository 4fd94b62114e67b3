"""Leaving a mail server alone that does not answer, or that refuses its settings. Every process sees it."""

from datetime import UTC, datetime, timedelta

from flask_babel import gettext
from sqlalchemy import update

from portal.audit.entries import note
from portal.database import every_tenant
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Pause
from portal.mail_servers.selection import of_owner
from portal.signals import mend

BRIEFLY = timedelta(minutes=1)


def apply(server_id: int, seen_saved_at: datetime, pause: Pause, text: str) -> None:
    """Note a pause, without a commit. Settings that were saved since the attempt began are not paused by it."""
    if pause is Pause.NONE:
        return
    now = datetime.now(UTC)
    until_saved = pause is Pause.UNTIL_SAVED
    values = {"rejected_at": now} if until_saved else {"paused_until": now + BRIEFLY}
    with every_tenant():
        db.session.execute(
            update(MailServer)
            .where(MailServer.id == server_id, MailServer.saved_at == seen_saved_at)
            .values(**values, pause_text=text)
            .execution_options(synchronize_session=False)
        )


def lift(owner: int | None) -> None:
    """Try the paused server of a tenant, or the system's for None, again now, on a person's word.

    What was rejected stays until its settings are saved.
    """
    with every_tenant():
        server = of_owner(owner, to_change=True)
        if server is not None and server.rejected_at is None:
            server.paused_until = server.pause_text = None
            mend(owner, server_changed=True)
            note("mail_server.tried_now", tenant_id=owner)
        db.session.commit()


def why(server: MailServer) -> str:
    """Return why the server is left alone: its own words, or ours in the reader's language."""
    return gettext(server.pause_text) if server.pause_text else ""


def paused_until(server: MailServer) -> datetime | None:
    """Return until when the server is left alone, or None where it is not."""
    return server.paused_until if server.paused_until and server.paused_until > datetime.now(UTC) else None
