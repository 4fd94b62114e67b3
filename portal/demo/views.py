"""The pages of caught mail. Only the demo has them, and they ask nobody to sign in."""

import re

from flask import Blueprint, Flask, Response, render_template, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from portal import config, headers
from portal.accounts.access import public
from portal.demo.mailbox import CaughtMail, Mailbox
from portal.ui import respond

SHOWN = 50
CONTENT_ID = re.compile(r"\bcid:([^\s\"'>)]+)")
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)

blueprint = Blueprint("demo", __name__, url_prefix="/demo/mail")


def init_app(app: Flask) -> None:
    """Add the pages, and the link to them in the navigation."""
    app.register_blueprint(blueprint)
    app.jinja_env.globals["caught_mail"] = "demo.inbox"


@blueprint.get("")
@public
def inbox() -> ResponseReturnValue:
    """List the newest caught mails; the page asks for its list again and again."""
    return respond("demo/inbox.html", "demo/_list.html", mails=_mailbox().mails(SHOWN))


@blueprint.get("/<int:number>")
@public
def mail(number: int) -> ResponseReturnValue:
    """Show one mail: its headers, its HTML in a frame without scripts, its text, its source."""
    return render_template("demo/mail.html", mail=_find(number))


@blueprint.get("/<int:number>/html")
@public
def html(number: int) -> ResponseReturnValue:
    """Serve the HTML alternative for the frame, with its pictures served from the message."""
    body = _find(number).body("html")
    if body is None:
        raise NotFound
    in_a_tab = HEAD.sub(lambda found: f'{found[0]}<base target="_blank">', body, count=1)
    shown = CONTENT_ID.sub(lambda found: url_for("demo.part", number=number, content_id=found[1]), in_a_tab)
    return shown, {"Content-Security-Policy": headers.MAIL_POLICY, "X-Frame-Options": "SAMEORIGIN"}


@blueprint.get("/<int:number>/parts/<content_id>")
@public
def part(number: int, content_id: str) -> ResponseReturnValue:
    """Serve a picture that stands in the message."""
    found = _find(number).inline_part(content_id)
    if found is None or found.get_content_maintype() != "image":
        raise NotFound
    # To the browser the frame is a site of its own.
    shown = {"Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(found.get_content(), content_type=found.get_content_type(), headers=shown)


def _mailbox() -> Mailbox:
    folder = config.current().demo_mail_dir
    assert folder is not None
    return Mailbox(folder)


def _find(number: int) -> CaughtMail:
    found = _mailbox().find(number)
    if found is None:
        raise NotFound
    return found
