"""The pages of captured email. Only the demo has them, and they need no sign-in."""

import re

from flask import Blueprint, Flask, Response, render_template, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound
from werkzeug.routing import IntegerConverter

from portal import config
from portal.accounts.access import public
from portal.demo.mailbox import CapturedEmail, Mailbox
from portal.web import security_headers
from portal.web.responses import respond

MAX_SHOWN = 50
CONTENT_ID = re.compile(r"\bcid:([^\s\"'>)]+)")
HEAD = re.compile(r"<head\b[^<>]*>", re.IGNORECASE)
EMAIL_HEADERS = security_headers.email_headers("'self' data:")


class Nanoseconds(IntegerConverter):
    """The number of a captured email in a URL."""

    regex = r"\d{1,19}"


blueprint = Blueprint("demo", __name__, url_prefix="/demo/mail")


def init_app(app: Flask) -> None:
    """Add the pages, and the link to them in the navigation."""
    app.url_map.converters["nanoseconds"] = Nanoseconds
    app.register_blueprint(blueprint)
    app.jinja_env.globals["captured_email"] = "demo.inbox"


@blueprint.get("")
@public
def inbox() -> ResponseReturnValue:
    """List the newest captured emails; the page polls the list."""
    return respond("demo/inbox.html", "demo/_list.html", emails=_mailbox().newest(MAX_SHOWN))


@blueprint.get("/<nanoseconds:number>")
@public
def email(number: int) -> ResponseReturnValue:
    """Show one email: headers, HTML in a frame without scripts, text and source."""
    return render_template("demo/email.html", email=_find(number))


@blueprint.get("/<nanoseconds:number>/html")
@public
def html(number: int) -> ResponseReturnValue:
    """Serve the HTML alternative for the frame, with images from the message."""
    body = _find(number).body("html")
    if body is None:
        raise NotFound
    with_base = HEAD.sub(lambda found: f'{found[0]}<base target="_blank">', body, count=1)
    with_images = CONTENT_ID.sub(lambda found: url_for("demo.part", number=number, content_id=found[1]), with_base)
    return with_images, EMAIL_HEADERS


@blueprint.get("/<nanoseconds:number>/parts/<content_id>")
@public
def part(number: int, content_id: str) -> ResponseReturnValue:
    """Serve an image of the message."""
    found = _find(number).inline_part(content_id)
    if found is None or found.get_content_maintype() != "image":
        raise NotFound
    # The browser treats the sandboxed frame as another site.
    headers = {"Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(found.get_content(), content_type=found.get_content_type(), headers=headers)


def _mailbox() -> Mailbox:
    folder = config.current().demo_mail_dir
    assert folder is not None
    return Mailbox(folder)


def _find(number: int) -> CapturedEmail:
    found = _mailbox().find(number)
    if found is None:
        raise NotFound
    return found
