"""The browsers in which an account is signed in: each is a row, and its cookie is worth nothing without it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete, select

from portal import statements
from portal.accounts.models import Account, AccountSession
from portal.audit.entries import note as note_done
from portal.crypto import hash_token, new_token
from portal.extensions import db

SEEN_EVERY: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session lasts: without a request, and at most."""

    idle: timedelta
    absolute: timedelta


# A working day, on a machine that others may use; NIST SP 800-63B-4, section 2.2.3, has a day at most.
USUAL: Final = Lifetime(timedelta(hours=8), timedelta(hours=24))
# "Remember me", on a machine of one's own; section 2.1.3 has a month at most.
REMEMBERED: Final = Lifetime(timedelta(days=14), timedelta(days=30))

NOTE: Final = """
    UPDATE account_sessions SET last_seen_at = now(), address = %(address)s,
        expires_at = least(now() + %(idle)s, began_at + %(absolute)s)
    WHERE id = %(id)s
"""
# The first that is found: most browsers also name those that they are like.
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


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that has just begun, and its key, which is stored nowhere else than in the cookie."""

    key: str
    remembered: bool


def begin(account: Account, address: str, user_agent: str, *, remembered: bool, before: str | None) -> Begun:
    """Return a new session in place of the one with the key `before`. It is remembered too if that one was."""
    replaced = find(before)
    if replaced:
        remembered = remembered or (replaced.remembered and replaced.account_id == account.id)
        db.session.delete(replaced)
    key = new_token()
    db.session.add(
        AccountSession(
            account_id=account.id,
            key_hash=hash_token(key),
            expires_at=datetime.now(UTC) + _lifetime(remembered).idle,
            remembered=remembered,
            address=address,
            browser=browser_of(user_agent),
        )
    )
    db.session.commit()
    return Begun(key, remembered)


def find(key: str | None) -> AccountSession | None:
    """Return the session with this key, or None where there is none, or its time is over."""
    if key is None:
        return None
    query = select(AccountSession).where(AccountSession.key_hash == hash_token(key))
    return db.session.scalar(query.where(AccountSession.expires_at > datetime.now(UTC)))


def note(session: AccountSession, address: str) -> None:
    """Remember that the session was used, to the minute."""
    if datetime.now(UTC) - session.last_seen_at > SEEN_EVERY:
        life = _lifetime(session.remembered)
        values = {"id": session.id, "address": address, "idle": life.idle, "absolute": life.absolute}
        statements.run(NOTE, values)


def of_account(account: Account) -> Sequence[AccountSession]:
    """Return the account's sessions, the one that was used last first."""
    query = select(AccountSession).where(
        AccountSession.account_id == account.id, AccountSession.expires_at > datetime.now(UTC)
    )
    return db.session.scalars(query.order_by(AccountSession.last_seen_at.desc(), AccountSession.id.desc())).all()


def end(account: Account, session_id: int) -> None:
    """End one of the account's sessions. One that is not the account's is left alone."""
    for each in of_account(account):
        if each.id == session_id:
            db.session.delete(each)
            note_done("account.session_ended", account.email)
    db.session.commit()


def end_others(account: Account, key: str | None) -> None:
    """End the account's sessions, except the one with this key."""
    query = delete(AccountSession).where(AccountSession.account_id == account.id)
    db.session.execute(query.where(AccountSession.key_hash != hash_token(key)) if key else query)
    db.session.commit()


def sign_out(key: str) -> None:
    """End the session with this key."""
    db.session.execute(delete(AccountSession).where(AccountSession.key_hash == hash_token(key)))
    db.session.commit()


def purge() -> None:
    """Forget the sessions whose time is over."""
    statements.run("DELETE FROM account_sessions WHERE expires_at < now()", {})


def browser_of(user_agent: str) -> str:
    """Return what people call it, like "Firefox on Linux"."""
    name = _first(BROWSERS, user_agent) or "A browser"
    system = _first(SYSTEMS, user_agent)
    return f"{name} on {system}" if system else name


def _first(patterns: dict[str, str], text: str) -> str | None:
    return next((name for name, pattern in patterns.items() if re.search(pattern, text)), None)


def _lifetime(remembered: bool) -> Lifetime:
    return REMEMBERED if remembered else USUAL
