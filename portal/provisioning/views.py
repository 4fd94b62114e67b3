"""The one-time address: a document for Linphone, a page for people and for what follows links in mails."""

import base64
from http import HTTPStatus

from flask import Blueprint, Response, make_response, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from portal.accounts.access import public
from portal.extensions import limiter
from portal.provisioning import linphone, qr, tokens
from portal.provisioning.tokens import State

RATE_LIMIT = "120 per minute"  # from one address, behind which a whole office may be

blueprint = Blueprint("provisioning", __name__)


@blueprint.get("/provision/<token>")
@public
@limiter.limit(RATE_LIMIT)
def provision(token: str) -> ResponseReturnValue:
    """Hand the line to Linphone, once. Everyone else gets a page and spends nothing, as HEAD does."""
    if request.method == "GET" and linphone.HEADER in request.headers:
        return _for_linphone(token)
    return _for_people(token)


def _for_linphone(token: str) -> Response:
    line = tokens.spend(token)
    if isinstance(line, State):
        status = HTTPStatus.NOT_FOUND if line is State.UNKNOWN else HTTPStatus.GONE
        return Response(f"{status.phrase}\n", status, mimetype="text/plain")
    return Response(linphone.document(line), mimetype=linphone.MEDIA_TYPE)


def _for_people(token: str) -> Response:
    state = tokens.look(token)
    if state is State.UNKNOWN:
        raise NotFound
    if state is not State.UNSPENT:
        status = HTTPStatus.OK if state is State.SAMPLE else HTTPStatus.GONE
        return make_response(render_template("provisioning/gone.html", state=state), status)
    address = qr.address(token)
    picture = base64.b64encode(qr.png(address)).decode()
    return make_response(
        render_template("provisioning/page.html", link=linphone.SCHEME + address, qr=f"data:image/png;base64,{picture}")
    )


@blueprint.after_request
def _keep_private(response: Response) -> Response:
    """Keep the address, which is a secret, out of caches, search engines and other sites' logs."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex"
    return response
