"""How migrations run: in one transaction, as the tables' owner, one process at a time."""

import sys

import psycopg
from alembic import context
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from portal.database.engine import is_portal_table
from portal.database.scope import owner_connection
from portal.extensions import Base

LOCK = 7_279_001  # any number that only migrations use
# While a migration waits for a table that a backup or a long query uses, requests would wait for the migration.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
WAITING = "Waiting until no other transaction uses the tables. Interrupt this at any time to try again later."


def run() -> None:
    """Apply the migrations that `alembic` chose."""
    while True:
        try:
            _run()
        except OperationalError as error:
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            print(WAITING, file=sys.stderr)
        else:
            return


def _run() -> None:
    with owner_connection() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        connection.execute(text(LOCK_TIMEOUT))
        context.configure(connection=connection, target_metadata=Base.metadata, include_name=is_portal_table)
        context.run_migrations()


run()
