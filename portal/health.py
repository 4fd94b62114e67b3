"""Whether this process can work: for a load balancer or a monitor."""

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from portal.accounts.access import for_programs
from portal.database import ROLE
from portal.extensions import db

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@for_programs
def healthz() -> ResponseReturnValue:
    """Answer 200 when the database answers and its schema is current, else 503 with the reason."""
    reason = why_not()
    return (jsonify(status="ok"), 200) if reason is None else (jsonify(status="unavailable", reason=reason), 503)


def why_not() -> str | None:
    """Return why this process cannot work, or None."""
    try:
        with db.engine.connect() as connection:
            applied = set(MigrationContext.configure(connection).get_current_heads())
    except SQLAlchemyError as error:
        if f'role "{ROLE}" does not exist' not in str(error):
            return "The database does not answer."
        applied = set()
    newest = set(ScriptDirectory(current_app.extensions["migrate"].directory).get_heads())
    return None if applied == newest else "The database's schema is not current. Run: flask --app wsgi db upgrade"
