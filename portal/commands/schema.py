"""The command that brings the database's schema up to date."""

import click
import psycopg
from flask_migrate import upgrade as run_migrations
from sqlalchemy.exc import ProgrammingError

from portal import settings_file
from portal.commands.group import PortalCommand
from portal.commands.output import echo, fail


@click.command("upgrade", cls=PortalCommand)
def upgrade() -> None:
    """Bring the database's schema up to date, as the owner of its tables: see MIGRATION_DATABASE_URL."""
    upgrade_schema()
    echo("The database schema is current.")


def upgrade_schema() -> None:
    """Run the migrations that the database has not had. End the command if its role may not do that."""
    try:
        run_migrations()
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        owner_file = settings_file.owner_file(settings_file.path())
        fail(
            f"Postgres refuses to change the tables: {error.orig.diag.message_primary}. Set MIGRATION_DATABASE_URL to "
            f"the URL of their owner, or run the command as a user who may read it in {owner_file}."
        )
