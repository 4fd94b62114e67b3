"""The pages of the guides. Most need no account: who cannot sign in, or who connects the PBX, reads them too."""

from flask import Blueprint, Flask, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user
from werkzeug.exceptions import NotFound

from portal.accounts.access import public
from portal.help.guides import GUIDES, guide_page, visible_guides
from portal.help.topics import topic_of
from portal.web.responses import respond

blueprint = Blueprint("help", __name__, url_prefix="/help")


def init_app(app: Flask) -> None:
    """Let each page link to what helps with it."""
    app.jinja_env.globals["help_url"] = _help_url


@blueprint.get("/")
@public
def index() -> ResponseReturnValue:
    """List the guides."""
    to_operators = _is_for_operators()
    guides = [
        (guide, guide_page(guide, to_operators=to_operators)) for guide in visible_guides(to_operators=to_operators)
    ]
    return respond("help/index.html", guides=guides)


@blueprint.get("/<name>")
@public
def show(name: str) -> ResponseReturnValue:
    """Show a guide."""
    guide, to_operators = GUIDES.get(name), _is_for_operators()
    if guide is None or (guide.is_for_operators and not to_operators):
        raise NotFound
    return respond("help/guide.html", page=guide_page(guide, to_operators=to_operators))


def _is_for_operators() -> bool:
    return bool(current_user.is_authenticated and current_user.is_system_administrator)


def _help_url() -> str:
    """Return the URL of what helps with the current page."""
    topic = topic_of(request.endpoint, of_tenant="domain" in (request.view_args or {}))
    name, _, anchor = topic.partition("#")
    return url_for("help.show", name=name, _anchor=anchor or None) if name else url_for("help.index")
