"""Leaving a mail server alone that does not answer, or that refuses its settings. Every process sees it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from portal.database import every_tenant
from portal.extensions import db
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Pause

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


def paused_until(server: MailServer) -> datetime | None:
    """Return until when the server is left alone, or None where it is not."""
    return server.paused_until if server.paused_until and server.paused_until > datetime.now(UTC) else None
