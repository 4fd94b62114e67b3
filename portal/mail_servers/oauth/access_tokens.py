"""Access tokens of stored connections: taken from the database while they are valid, otherwise requested again.

One process at a time requests a token for a connection: it holds a lease, and the others wait for its result or use the
token that is still valid. A lease expires with a process that died. Two requests at once would do no harm at Microsoft
and Google, which keep the earlier refresh token valid.

Each statement is a transaction of its own, so that no connection to Postgres waits for a token server.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from portal import crypto
from portal.crypto import UnreadableSecret
from portal.database import clock, fast_sql
from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import EVERY_TENANT
from portal.mail_servers.oauth import token_requests
from portal.mail_servers.oauth.identity_providers import provider_of_host
from portal.mail_servers.oauth.models import OAuthConnection, secret_context
from portal.mail_servers.oauth.token_errors import (
    BUSY_REFRESHING,
    NOT_CONNECTED,
    UNREADABLE,
    temporary_failure,
)
from portal.mail_servers.oauth.token_requests import GrantedTokens
from portal.mail_servers.smtp.connect import settings_failure
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpFailure, Stage

logger = logging.getLogger(__name__)

REFRESH_MARGIN: Final = timedelta(minutes=5)  # a token is replaced this long before it expires
LEASE: Final = timedelta(seconds=20)  # longer than a request to a token server takes
MAX_WAIT: Final = 5.0  # seconds for another process's request
POLL_INTERVAL: Final = 0.2  # seconds
STORE_RETRY_DELAYS: Final = (0.2, 1.0)  # seconds

LOAD: Final = """
    SELECT *, clock_timestamp() AS database_time FROM oauth_connections
    WHERE tenant_id = %(owner)s OR (%(owner)s::integer IS NULL AND tenant_id IS NULL)
"""
BEGIN_REFRESH: Final = """
    UPDATE oauth_connections SET refreshing_until = clock_timestamp() + %(lease)s
    WHERE id = %(id)s AND connected_at = %(connected_at)s
        AND (refreshing_until IS NULL OR refreshing_until < clock_timestamp())
        AND access_token_encrypted IS NOT DISTINCT FROM %(seen)s
    RETURNING *, clock_timestamp() AS database_time
"""
STORE: Final = """
    UPDATE oauth_connections SET refreshing_until = NULL, lapsed_at = NULL, lapse_reason = NULL,
        access_token_encrypted = %(access_token)s, access_token_expires_at = clock_timestamp() + %(lifetime)s,
        refresh_token_encrypted = coalesce(%(refresh_token)s, refresh_token_encrypted)
    WHERE id = %(id)s AND connected_at = %(connected_at)s
    RETURNING id
"""
END_REFRESH: Final = """
    UPDATE oauth_connections SET refreshing_until = NULL,
        lapsed_at = CASE WHEN %(reason)s::text IS NULL THEN lapsed_at ELSE coalesce(lapsed_at, clock_timestamp()) END,
        lapse_reason = coalesce(%(reason)s, lapse_reason)
    WHERE id = %(id)s AND connected_at = %(connected_at)s
"""


@dataclass(frozen=True, slots=True)
class ConnectionTokens:
    """The access tokens of the connection of a tenant, or of the system (None): a `TokenSource`.

    Two are equal as long as the mail server was not saved again, and nobody has signed in again.
    """

    owner: int | None
    mailbox_provider: str
    saved_at: datetime | None

    def access_token(self, *, rejected: str | None = None) -> str:
        """Return an access token that is valid now. `rejected` is one that the mail server has just rejected.

        Raises:
            SmtpFailure: at the stage TOKEN. Its kind is SETTINGS if a person has to act.
            DATABASE_ERRORS: Postgres does not answer.
        """
        give_up_at = time.monotonic() + MAX_WAIT
        while True:
            connection = self._load()
            token = self._valid_token(connection, rejected)
            if token and _time_left(connection) > REFRESH_MARGIN:
                return token
            if leased := self._begin_refresh(connection):
                return self._refresh(leased, token)
            if token:
                return token
            if time.monotonic() > give_up_at:
                raise temporary_failure(BUSY_REFRESHING)
            time.sleep(POLL_INTERVAL)

    def _load(self) -> OAuthConnection:
        row = self._run(LOAD, {"owner": self.owner})
        if row is None or row["connected_at"] is None or row["provider"] != self.mailbox_provider:
            raise settings_failure(Stage.TOKEN, NOT_CONNECTED)
        return _detached(row)

    def _valid_token(self, connection: OAuthConnection, rejected: str | None) -> str | None:
        token = _readable(connection, "access_token")
        return token if token != rejected and _time_left(connection) > timedelta(0) else None

    def _begin_refresh(self, connection: OAuthConnection) -> OAuthConnection | None:
        values = {**_identity(connection), "lease": LEASE, "seen": connection.access_token_encrypted}
        row = self._run(BEGIN_REFRESH, values)
        return _detached(row) if row else None

    def _refresh(self, connection: OAuthConnection, still_valid: str | None) -> str:
        """Request a token and store it. Where the token server fails for a moment, the old token still does."""
        try:
            granted = token_requests.fetch(_request_of(connection))
        except SmtpFailure as failure:
            needs_person = failure.reply.kind is ReplyKind.SETTINGS
            reason = failure.reply.text if needs_person else None
            self._run(END_REFRESH, {**_identity(connection), "reason": reason})
            if still_valid and not needs_person:
                return still_valid
            raise
        self._store(connection, granted)
        return granted.access_token

    def _store(self, connection: OAuthConnection, granted: GrantedTokens) -> None:
        """Store what was granted: a refresh token that is lost may be the only one that is valid."""
        values = {
            **_identity(connection),
            "lifetime": timedelta(seconds=granted.lifetime),
            "access_token": _encrypted("access_token", granted.access_token, self.owner),
            "refresh_token": _encrypted("refresh_token", granted.refresh_token, self.owner),
        }
        for delay in (*STORE_RETRY_DELAYS, None):
            try:
                self._run(STORE, values)
            except DATABASE_ERRORS:
                if delay is None:
                    logger.exception("The new access token of a connection is not stored.")
                    return
                time.sleep(delay)
            else:
                return

    def _run(self, statement: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return fast_sql.run(statement, values, scope=str(self.owner) if self.owner else EVERY_TENANT)


def token_source(owner: int | None, host: str, saved_at: datetime | None) -> ConnectionTokens | None:
    """Return the tokens for an owner's mail server at this host. None: they are for no server there."""
    provider = provider_of_host(host)
    return ConnectionTokens(owner, provider.key, saved_at) if provider else None


def _detached(row: Mapping[str, Any]) -> OAuthConnection:
    """Return a read-only row that belongs to no session: several threads may get tokens for one request."""
    values = dict(row)
    clock.note(values.pop("database_time"))
    connection = OAuthConnection.__new__(OAuthConnection)
    vars(connection).update(values)
    return connection


def _identity(connection: OAuthConnection) -> dict[str, Any]:
    """Return the values that find the row, unless somebody has connected another mailbox meanwhile."""
    return {"id": connection.id, "connected_at": connection.connected_at}


def _time_left(connection: OAuthConnection) -> timedelta:
    return (connection.access_token_expires_at or clock.now()) - clock.now()


def _readable(connection: OAuthConnection, column: str) -> str | None:
    try:
        return connection.read_secret(column)
    except UnreadableSecret:
        raise settings_failure(Stage.TOKEN, UNREADABLE) from None


def _request_of(connection: OAuthConnection) -> token_requests.TokenRequest:
    try:
        return connection.token_request()
    except UnreadableSecret:
        raise settings_failure(Stage.TOKEN, UNREADABLE) from None


def _encrypted(column: str, value: str | None, owner: int | None) -> bytes | None:
    return crypto.keyring().encrypt(value, secret_context(column, owner)) if value else None
