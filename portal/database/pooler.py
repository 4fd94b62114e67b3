"""Connection poolers between the portal and Postgres, such as PgBouncer, which the portal refuses.

A pooler lets a transaction of one process follow one of another on the same connection of Postgres. The portal keeps
more than transactions on its connections: the tenant scope, prepared statements, advisory locks, and LISTEN.
"""

from typing import Any, Final

import psycopg

from portal.database.engine import CONNECT_ARGS

SEEN: Final = "A connection pooler such as PgBouncer is between the portal and Postgres."
ADVICE: Final = "Let DATABASE_URL name Postgres: the portal keeps few connections of its own."
REFUSAL: Final = f"{SEEN} {ADVICE}"
OPTIONS_REFUSED: Final = "unsupported startup parameter"  # PgBouncer's words


def is_between(connection: psycopg.Connection[Any]) -> bool:
    """Return whether there is a pooler: it gives another number than that of Postgres's own process."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or connection.info.backend_pid != row[0]


def is_refused(database_url: str) -> bool:
    """Return whether there is a pooler at this URL. False if Postgres does not answer."""
    try:
        with psycopg.connect(database_url.replace("+psycopg", "", 1), autocommit=True, **CONNECT_ARGS) as connection:
            return is_between(connection)
    except psycopg.OperationalError as error:
        return OPTIONS_REFUSED in str(error)
    except psycopg.Error:
        return False
