"""The one-time link: a document for Linphone, a page for people and for programs that follow links in emails."""

import base64
from http import HTTPStatus

from flask import Blueprint, Response, make_response, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from portal.accounts import rate_limits
from portal.accounts.access import public
from portal.accounts.rate_limits import IP_ADDRESS, MINUTE, Limit, Rule
from portal.mail_templates.branding import DEFAULT_COLOUR
from portal.provisioning import linphone, qr, tokens
from portal.provisioning.tokens import TokenState

RATE_LIMIT = Rule("provisioning", (Limit(120, MINUTE, IP_ADDRESS),))  # a whole office may share one address

blueprint = Blueprint("provisioning", __name__)


@blueprint.get("/provision/<token>")
@public
def provision(token: str) -> ResponseReturnValue:
    """Give Linphone the SIP account, once. All others, and HEAD requests, get a page and the token stays unspent."""
    rate_limits.enforce(RATE_LIMIT, ip_address=request.remote_addr or "")
    if request.method == "GET" and linphone.asks_for_document(request.headers):
        return _for_linphone(token)
    return _for_people(token)


def _for_linphone(token: str) -> Response:
    account = tokens.spend(token)
    if isinstance(account, TokenState):
        status = HTTPStatus.NOT_FOUND if account is TokenState.UNKNOWN else HTTPStatus.GONE
        return Response(f"{status.phrase}\n", status, mimetype="text/plain")
    return Response(linphone.provisioning_document(account), mimetype=linphone.MEDIA_TYPE)


def _for_people(token: str) -> Response:
    state, tenant = tokens.check(token)
    if state is TokenState.UNKNOWN:
        raise NotFound
    company = {
        "company": tenant.display_name if tenant else "",
        "colour": (tenant and tenant.brand_color) or DEFAULT_COLOUR,
        "contact": tenant.reply_to if tenant else None,
    }
    if state is not TokenState.UNSPENT:
        status = HTTPStatus.OK if state is TokenState.SAMPLE else HTTPStatus.GONE
        return make_response(render_template("provisioning/gone.html", state=state, **company), status)
    url = qr.provisioning_url(token)
    image = f"data:image/png;base64,{base64.b64encode(qr.qr_code_png(url)).decode()}"
    links = {"linphone_url": linphone.URI_SCHEME + url, "qr_code_url": image, "apps": linphone.APPS}
    return make_response(render_template("provisioning/page.html", **links, **company))


@blueprint.after_request
def _keep_private(response: Response) -> Response:
    """Keep the URL, which is a secret, out of caches, search engines and the logs of other sites."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Robots-Tag"] = "noindex"
    return response
