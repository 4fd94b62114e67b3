"""The browsers in which an account is signed in. Each is a row, and its cookie is worthless once the row is deleted."""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.orm import joinedload

from portal.accounts.models import Account, AccountSession
from portal.audit.log import record
from portal.crypto import hash_token, new_token
from portal.database import clock, fast_sql
from portal.extensions import db

LAST_SEEN_INTERVAL: Final = timedelta(minutes=1)


class SessionLifetime(NamedTuple):
    """How long a session lasts: without a request, and at most."""

    idle: timedelta
    absolute: timedelta


# A working day, on a shared computer. NIST SP 800-63B-4, section 2.2.3, allows a day.
DEFAULT_LIFETIME: Final = SessionLifetime(timedelta(hours=8), timedelta(hours=24))
# "Stay signed in", on one's own computer. Section 2.1.3 allows a month.
REMEMBERED_LIFETIME: Final = SessionLifetime(timedelta(days=14), timedelta(days=30))

TOUCH: Final = """
    UPDATE account_sessions SET last_seen_at = now(), ip_address = %(ip_address)s,
        expires_at = least(now() + %(idle)s, created_at + %(absolute)s)
    WHERE id = %(id)s
"""
# The first match counts: most browsers also name those that they are compatible with.
BROWSERS: Final = {
    "Edge": r"Edg(e|A|iOS)?/",
    "Opera": r"OPR/|Opera",
    "Samsung Internet": r"SamsungBrowser/",
    "Firefox": r"Firefox/|FxiOS/",
    "Chrome": r"Chrome/|CriOS/",
    "Safari": r"Safari/",
}
SYSTEMS: Final = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "ChromeOS": "CrOS",
    "macOS": "Mac OS X",
    "Linux": "Linux",
}


def start(
    account: Account, ip_address: str, user_agent: str, *, remembered: bool, previous_token: str | None
) -> tuple[str, bool]:
    """Start a session that replaces the one with the previous token, and is remembered if that one was.

    Return its token, which only the cookie holds, and whether it is remembered.
    """
    previous = find(previous_token)
    if previous:
        remembered = remembered or (previous.remembered and previous.account_id == account.id)
        db.session.delete(previous)
    token = new_token()
    db.session.add(
        AccountSession(
            account_id=account.id,
            token_hash=hash_token(token),
            expires_at=clock.now() + _lifetime(remembered).idle,
            remembered=remembered,
            ip_address=ip_address,
            browser=browser_name(user_agent),
        )
    )
    db.session.commit()
    return token, remembered


def find(token: str | None) -> AccountSession | None:
    """Return the session with this token, or None if there is none or it has expired."""
    if token is None:
        return None
    query = select(AccountSession).where(AccountSession.token_hash == hash_token(token))
    return db.session.scalar(query.where(AccountSession.expires_at > clock.now()))


def find_with_account(token: str | None) -> AccountSession | None:
    """Do the same, and load the account with its roles and memberships in the same statement."""
    values = {"token_hash": hash_token(token or ""), "now": clock.now()}
    return db.session.scalars(_session_with_account(), values).unique().one_or_none()


@cache
def _session_with_account() -> Select[AccountSession]:
    """Return the query, built once: every page runs it."""
    account = joinedload(AccountSession.account)
    query = select(AccountSession).options(account.joinedload(Account.roles), account.joinedload(Account.memberships))
    is_valid = (AccountSession.token_hash == bindparam("token_hash"), AccountSession.expires_at > bindparam("now"))
    return query.where(*is_valid)


def touch(session: AccountSession, ip_address: str) -> None:
    """Record that the session was used, at most once a minute."""
    if clock.now() - session.last_seen_at > LAST_SEEN_INTERVAL:
        lifetime = _lifetime(session.remembered)
        values = {"id": session.id, "ip_address": ip_address, "idle": lifetime.idle, "absolute": lifetime.absolute}
        fast_sql.run(TOUCH, values)


def active_sessions(account: Account) -> Sequence[AccountSession]:
    """Return the account's sessions, the most recently used one first."""
    query = select(AccountSession).where(
        AccountSession.account_id == account.id, AccountSession.expires_at > clock.now()
    )
    return db.session.scalars(query.order_by(AccountSession.last_seen_at.desc(), AccountSession.id.desc())).all()


def end(account: Account, session_id: int) -> None:
    """End one of the account's sessions. The id of another account's session has no effect."""
    for session in active_sessions(account):
        if session.id == session_id:
            db.session.delete(session)
            record("account.session_ended", account.email)
    db.session.commit()


def end_others(account: Account, token: str | None) -> None:
    """End the account's sessions, except the one with this token."""
    query = delete(AccountSession).where(AccountSession.account_id == account.id)
    db.session.execute(query.where(AccountSession.token_hash != hash_token(token)) if token else query)
    db.session.commit()


def end_by_token(token: str) -> None:
    """End the session with this token."""
    db.session.execute(delete(AccountSession).where(AccountSession.token_hash == hash_token(token)))
    db.session.commit()


def delete_expired() -> None:
    """Delete the sessions that have expired."""
    fast_sql.run("DELETE FROM account_sessions WHERE expires_at < now()", {})


def browser_name(user_agent: str) -> str:
    """Return a browser's name, like "Firefox (Linux)", which reads the same in all languages."""
    browser = _first_match(BROWSERS, user_agent) or "Browser"
    system = _first_match(SYSTEMS, user_agent)
    return f"{browser} ({system})" if system else browser


def _first_match(patterns: dict[str, str], text: str) -> str | None:
    return next((name for name, pattern in patterns.items() if re.search(pattern, text)), None)


def _lifetime(remembered: bool) -> SessionLifetime:
    return REMEMBERED_LIFETIME if remembered else DEFAULT_LIFETIME
