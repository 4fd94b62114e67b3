"""Keeps unused connections alive, and notices that one has ended before an email has to wait for it.

Refresh tokens expire when they are not used: Microsoft's after 90 days, Google's after six months.
"""

import logging
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from portal.database.scope import every_tenant
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth.access_tokens import ConnectionTokens
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, pause_for

logger = logging.getLogger(__name__)

IDLE_TIME: Final = timedelta(hours=12)  # since its last token expired
MAX_CONNECTIONS: Final = 500  # at one time


def refresh_idle() -> int:
    """Request a token for each connection that has been idle, and return how many there were.

    A mail server whose connection has ended is rejected until somebody signs in, as after an email. While a provider's
    token server fails, its other connections wait for the next time.
    """
    failing: set[str] = set()
    idle = _idle_connections()
    for owner, provider in idle:
        if provider in failing:
            continue
        server = mail_server_service.get_server(owner)
        seen = server.saved_at if server else None
        db.session.commit()  # no transaction waits for a token server
        try:
            ConnectionTokens(owner, provider, seen).access_token()
        except SmtpFailure as failure:
            if failure.reply.kind is not ReplyKind.SETTINGS:
                failing.add(provider)
            elif server is not None and seen is not None:
                advice = mail_server_service.advice_on_pause(server, failure.reply)
                mail_server_service.pause(server.id, seen, pause_for(failure.reply), advice)
                db.session.commit()
    if failing:
        logger.warning("The token servers of %s fail; idle connections wait.", ", ".join(sorted(failing)))
    return len(idle)


def _idle_connections() -> list[tuple[int | None, str]]:
    query = (
        select(OAuthConnection.tenant_id, OAuthConnection.provider)
        .where(OAuthConnection.connected_at.is_not(None), OAuthConnection.lapsed_at.is_(None))
        .where(OAuthConnection.access_token_expires_at < func.now() - IDLE_TIME)
        .order_by(func.random())
        .limit(MAX_CONNECTIONS)
    )
    with every_tenant():
        return [(owner, provider) for owner, provider in db.session.execute(query)]
