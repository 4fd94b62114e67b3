"""The health check of this process, for a load balancer or a monitor."""

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from portal.accounts.access import for_clients
from portal.database.engine import ROLE
from portal.extensions import db

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@for_clients
def healthz() -> ResponseReturnValue:
    """Answer 200 if the database responds and its schema is current, else 503 with the reason."""
    reason = _find_problem()
    return (jsonify(status="ok"), 200) if reason is None else (jsonify(status="unavailable", reason=reason), 503)


def _find_problem() -> str | None:
    """Return why this process cannot work, or None."""
    try:
        with db.engine.connect() as connection:
            revisions = set(MigrationContext.configure(connection).get_current_heads())
    except SQLAlchemyError as error:
        if f'role "{ROLE}" does not exist' not in str(error):
            return "The database does not respond."
        revisions = set()
    latest = set(ScriptDirectory(current_app.extensions["migrate"].directory).get_heads())
    return None if revisions == latest else "The database schema is not current. Run: flask --app wsgi db upgrade"
