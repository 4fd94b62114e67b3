"""What a request looks like when it reaches the portal: for the doctor, who asks through the reverse proxy."""

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from portal import config
from portal.accounts.access import for_clients
from portal.doctor.echo import is_valid

blueprint = Blueprint("doctor", __name__)


@blueprint.get("/doctor/<token>")
@for_clients
def show_request(token: str) -> ResponseReturnValue:
    """Return what the portal received, to who can sign with its secret key; else there is no such page."""
    if not is_valid(token):
        raise NotFound
    response = jsonify(
        scheme=request.scheme,
        host=request.host,
        client=request.remote_addr,
        forwarded_for=request.headers.get("X-Forwarded-For", ""),
        trusted_proxies=config.current().trusted_proxies,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
