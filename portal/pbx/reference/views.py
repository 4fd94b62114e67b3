"""The page of the API reference. Strangers may read it: it tells nothing but the interface."""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from portal import config
from portal.accounts.access import public
from portal.pbx.reference.outline import outline
from portal.ui import respond

blueprint = Blueprint("reference", __name__)


@blueprint.get("/api/reference")
@public
def show() -> ResponseReturnValue:
    """Show each operation, event, answer and problem of the webhook."""
    return respond("pbx/reference.html", outline=outline(config.current().portal_url or ""))
