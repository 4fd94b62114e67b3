"""Rate limits, counted in Postgres so that all processes share them.

Each limit is a leaky bucket (GCRA, ITU-T I.371): a request adds to it, and it drains at a constant rate. Every request
counts, whether it succeeds or fails, and whether or not the account exists. A request that is rejected for where it
comes from does not count against the account: otherwise a stranger could lock its owner out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import current_app
from flask_security import EmailValidateException
from werkzeug.exceptions import TooManyRequests

from portal.crypto import hash_token
from portal.database import fast_sql
from portal.web.deployment import network
from portal.web.forms import MAX_EMAIL_LENGTH

MINUTE, HOUR = 60, 3600
ACCOUNT: Final = ("account",)
IP_ADDRESS: Final = ("ip_address",)
ACCOUNT_AND_IP_ADDRESS: Final = ("account", "ip_address")
ACCOUNT_AND_BROWSER: Final = ("account", "browser")

ACCOUNT_DIGEST_BYTES: Final = 16  # the key of an account's bucket begins with them


@dataclass(frozen=True, slots=True)
class Limit:
    """The number of requests at once, and in the long run the number in each period (in seconds).

    `per` says what is counted: requests of an account, of an IP address, of an account from an IP address, or of an
    account from a browser in which it has signed in before (see `known_browsers`).
    """

    requests: int
    period: int
    per: tuple[str, ...]

    @property
    def interval(self) -> float:
        """The seconds after which one more request is free."""
        return self.period / self.requests


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits on one kind of request. Its name keeps its counts apart from those of other rules."""

    name: str
    limits: tuple[Limit, ...]


OVERFLOW: Final = 0.001  # seconds: a bucket that overflows is filled no further than this
# Each row is written in the order of the keys, so that two of these statements never wait for each other.
COUNT: Final = """
    WITH requested AS (
        SELECT * FROM unnest(%(subjects)s::bytea[], %(intervals)s::float8[], %(periods)s::float8[])
            AS t (subject_hash, interval_s, period_s)
    ), counted AS (
        INSERT INTO rate_limits AS old (subject_hash, empty_at)
        SELECT subject_hash, now() + interval_s * interval '1 second' FROM requested ORDER BY subject_hash
        ON CONFLICT (subject_hash) DO UPDATE SET empty_at = (
            SELECT least(greatest(old.empty_at, now()) + interval_s * interval '1 second',
                now() + (period_s + %(overflow)s) * interval '1 second')
            FROM requested WHERE requested.subject_hash = excluded.subject_hash
        )
        RETURNING subject_hash, empty_at
    )
    SELECT max(CASE WHEN extract(epoch FROM empty_at - now()) > period_s THEN interval_s ELSE 0 END)::float8 AS wait
    FROM counted JOIN requested USING (subject_hash)
"""


def enforce(rule: Rule, **subjects: str) -> None:
    """Count a request as `count` does. If it exceeds a limit, reject it, with the seconds to wait as `Retry-After`."""
    if wait := count(rule, **subjects):
        raise TooManyRequests(retry_after=wait)


def count(rule: Rule, *, account: str = "", ip_address: str = "", browser: str = "") -> int | None:
    """Count a request and return the seconds to wait before the next one, or None if this one is within the limits.

    `account` is an email address as it was typed, or another name; `browser` is the id of a known browser, to which
    only its own limit applies if the rule has one.
    """
    of_known_browser = [limit for limit in rule.limits if limit.per == ACCOUNT_AND_BROWSER]
    limits = (browser and of_known_browser) or [limit for limit in rule.limits if limit not in of_known_browser]
    subjects = {"account": _normalize_account(account), "ip_address": network(ip_address), "browser": browser}
    of_source = [limit for limit in limits if limit.per != ACCOUNT]
    of_account = [limit for limit in limits if limit.per == ACCOUNT]
    return _count(rule, of_source, subjects) or _count(rule, of_account, subjects)


def clear(account: str) -> None:
    """Empty all buckets of an account, from wherever its requests came."""
    statement = "DELETE FROM rate_limits WHERE substring(subject_hash FOR %(length)s) = %(digest)s"
    fast_sql.run(statement, {"length": ACCOUNT_DIGEST_BYTES, "digest": account_digest(account)})


def account_digest(account: str) -> bytes:
    """Return the digest of an account, as it is in the keys of its buckets and in cookies."""
    return hash_token(_normalize_account(account))[:ACCOUNT_DIGEST_BYTES]


def delete_empty() -> None:
    """Delete the buckets that have drained."""
    fast_sql.run("DELETE FROM rate_limits WHERE empty_at < now()", {})


def _count(rule: Rule, limits: Sequence[Limit], subjects: Mapping[str, str]) -> int | None:
    if not limits:
        return None
    row = fast_sql.run(
        COUNT,
        {
            "subjects": [_bucket_key(rule, limit, subjects) for limit in limits],
            "intervals": [limit.interval for limit in limits],
            "periods": [float(limit.period) for limit in limits],
            "overflow": OVERFLOW,
        },
    )
    return math.ceil(row["wait"]) or None if row else None


def _bucket_key(rule: Rule, limit: Limit, subjects: Mapping[str, str]) -> bytes:
    # JSON keeps the names apart, whatever was typed.
    key = hash_token(json.dumps([rule.name, limit.period, *(subjects[name] for name in limit.per)]))
    return account_digest(subjects["account"]) + key if "account" in limit.per else key


def _normalize_account(account: str) -> str:
    """Return the account as sign-in looks it up, so that another spelling does not get a count of its own."""
    if len(account) > MAX_EMAIL_LENGTH:  # no account has it
        return account
    with suppress(EmailValidateException):  # not an address: it is counted as it is
        account = current_app.extensions["security"].mail_util.normalize(account)
    return account.lower()
