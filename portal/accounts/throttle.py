"""How often somebody may try: counted in Postgres, so that all processes count together.

The measure of each account and of each client address fills with every attempt and runs empty by itself (GCRA, the
leaky bucket of ITU-T I.371). An attempt counts whatever becomes of it, and whether or not the account exists.
"""

import ipaddress
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import current_app
from flask_security import EmailValidateException

from portal import statements
from portal.crypto import hash_token

MINUTE, HOUR = 60, 3600
IPV6_NETWORK = 64  # bits: one customer has all addresses of such a network (RFC 6177)


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts at once, and in the long run as many in each period, in seconds."""

    attempts: int
    period: int

    @property
    def step(self) -> float:
        """The seconds after which one more attempt is free."""
        return self.period / self.attempts


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be tried how often: at an account from everywhere, from an address, and at an account from an address.

    The last one is the smallest, so that who guesses at somebody's password locks out himself. The first one is the
    100 of NIST SP 800-63B-4, section 3.2.2.
    """

    action: str
    account: Limit
    address: Limit
    account_from_address: Limit


SIGN_IN: Final = Rule("sign-in", Limit(100, HOUR), Limit(60, 15 * MINUTE), Limit(10, 15 * MINUTE))
# Who comes here knows the password. Three of a million codes are right at a time.
SECOND_FACTOR: Final = Rule("code", Limit(10, HOUR), Limit(60, 15 * MINUTE), Limit(10, HOUR))
FORGOTTEN: Final = Rule("forgotten", Limit(5, HOUR), Limit(30, HOUR), Limit(5, HOUR))
RESET: Final = Rule("reset", Limit(30, HOUR), Limit(30, HOUR), Limit(30, HOUR))
# Behind a session: whoever sits at somebody else's machine.
PASSWORD: Final = Rule("password", Limit(10, 15 * MINUTE), Limit(60, 15 * MINUTE), Limit(10, 15 * MINUTE))

OVER: Final = 0.001  # seconds: a measure that runs over is no fuller than this
# Each row is written in the order of the keys, so that two of these statements never wait for each other.
COUNT: Final = """
    WITH asked AS (
        SELECT * FROM unnest(%(subjects)s::bytea[], %(steps)s::float8[], %(rooms)s::float8[]) AS t (subject, step, room)
    ), counted AS (
        INSERT INTO attempts AS old (subject, empty_at)
        SELECT subject, now() + step * interval '1 second' FROM asked ORDER BY subject
        ON CONFLICT (subject) DO UPDATE SET empty_at = (
            SELECT least(greatest(old.empty_at, now()) + step * interval '1 second',
                now() + (room + %(over)s) * interval '1 second')
            FROM asked WHERE asked.subject = excluded.subject
        )
        RETURNING subject, empty_at
    )
    SELECT max(CASE WHEN extract(epoch FROM empty_at - now()) > room THEN step ELSE 0 END)::float8 AS wait
    FROM counted JOIN asked USING (subject)
"""


def count(rule: Rule, account: str, address: str) -> int:
    """Count an attempt and return after how many seconds it may be made: 0 is now.

    Args:
        rule: what is tried.
        account: an e-mail address as it was typed, or another name of an account.
        address: the client's IP address.
    """
    account, address = _canonical(account), _network(address)
    limits = {
        f"account {account}": rule.account,
        f"address {address}": rule.address,
        f"account {account} from {address}": rule.account_from_address,
    }
    row = statements.run(
        COUNT,
        {
            "subjects": [hash_token(f"{rule.action} {subject}") for subject in limits],
            "steps": [limit.step for limit in limits.values()],
            "over": OVER,
            "rooms": [float(limit.period) for limit in limits.values()],
        },
    )
    return math.ceil(row["wait"]) if row else 0


def purge() -> None:
    """Forget what has run empty."""
    statements.run("DELETE FROM attempts WHERE empty_at < now()", {})


def _canonical(account: str) -> str:
    """Return the account as sign-in finds it, so that another spelling has no measure of its own."""
    with suppress(EmailValidateException):  # of what finds no account
        account = current_app.extensions["security"].mail_util.normalize(account)
    return account.lower()


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False)) if parsed.version == 6 else str(parsed)
