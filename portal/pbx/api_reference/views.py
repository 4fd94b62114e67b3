"""The page "API reference". It is public: it describes the interface and nothing else."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from portal import config
from portal.accounts.access import public
from portal.pbx.api_reference.document import reference_document
from portal.web.responses import respond

blueprint = Blueprint("api_reference", __name__)


@blueprint.get("/api/reference")
@public
def show() -> ResponseReturnValue:
    """Show each operation, event, response and problem of the webhook."""
    return respond("pbx/api_reference.html", document=reference_document(config.current().portal_url or ""))
