"""How migrations run: in one transaction, as the tables' owner, one process at a time."""

from alembic import context
from sqlalchemy import text

from portal.database.engine import is_portal_table
from portal.database.scope import owner_connection
from portal.extensions import Base

LOCK = 7_279_001  # any number that only migrations use


def run() -> None:
    """Apply the migrations that `alembic` chose."""
    with owner_connection() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata, include_name=is_portal_table)
        context.run_migrations()


run()
