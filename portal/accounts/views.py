"""The pages of an account. Signing in and passwords are Flask-Security's pages, in our templates."""

import base64
from collections.abc import Callable

from flask import Blueprint, Flask, current_app, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_security import auth_required
from werkzeug.exceptions import BadRequest

from portal.accounts import language, policy, sessions, two_factor
from portal.accounts.access import signed_in, system_administrator
from portal.accounts.door import KEY
from portal.accounts.forms import CodeForm
from portal.accounts.models import Account
from portal.accounts.security import FRESH
from portal.errors import Refusal
from portal.languages import LANGUAGES
from portal.ui import respond

PROPOSED = "proposed_totp_secret"  # in the session, sealed: the secret of an authenticator that is being set up

account = Blueprint("account", __name__, url_prefix="/account")
system = Blueprint("system_sign_in", __name__, url_prefix="/system/sign-in")
BLUEPRINTS = (account, system)

# Who finds a browser in which somebody is signed in does not know the password.
confirmed = auth_required("session", within=lambda: FRESH, grace=lambda: FRESH)


def init_app(app: Flask, draw_qr_code: Callable[[str], bytes]) -> None:
    """Let the pages draw their QR code with a function of a room above, which returns a PNG."""
    app.extensions["draw_qr_code"] = draw_qr_code
    app.extensions["security"].reauthn_handler(_confirm)


@account.get("")
def security() -> ResponseReturnValue:
    """Show how one signs in, and where one is signed in."""
    return _page()


@account.post("/language")
def choose_language() -> ResponseReturnValue:
    """Choose the language of the pages; none is the browser's."""
    owner, chosen = signed_in(), request.form.get("locale", "")
    if chosen and chosen not in LANGUAGES:
        raise BadRequest
    language.choose(owner, chosen or None)
    flash(gettext("The language is saved."), "success")
    return redirect(url_for("account.security"), 303)


@account.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> ResponseReturnValue:
    """End one of the account's sessions."""
    sessions.end(signed_in(), session_id)
    return _sessions_page()


@account.post("/sessions/end-others")
def end_other_sessions() -> ResponseReturnValue:
    """End all of the account's sessions except this one."""
    sessions.end_others(signed_in(), session[KEY])
    return _sessions_page()


@account.route("/two-factor", methods=["GET", "POST"])
@confirmed
def set_up_two_factor() -> ResponseReturnValue:
    """Set an authenticator up, also in place of an older one, and show the recovery codes."""
    owner, form = signed_in(), CodeForm()
    secret = _proposed_secret(owner)
    if form.validate_on_submit():
        codes = two_factor.turn_on(owner, secret, form.code.data)
        if not isinstance(codes, Refusal):
            session.pop(PROPOSED)
            sessions.end_others(owner, session[KEY])  # which began without a code
            return _show_codes(codes)
        form.refuse(codes)
    proposal = two_factor.describe(owner, secret)
    draw: Callable[[str], bytes] = current_app.extensions["draw_qr_code"]
    picture = "data:image/png;base64," + base64.b64encode(draw(proposal.address)).decode()
    required = policy.requires_two_factor() and not owner.has_two_factor
    status = 422 if form.is_submitted() else 200
    return respond(
        "accounts/two_factor.html", status=status, form=form, proposal=proposal, picture=picture, required=required
    )


@account.post("/two-factor/off")
@confirmed
def turn_two_factor_off() -> ResponseReturnValue:
    """Sign in with the password alone from now on."""
    refusal = two_factor.turn_off(signed_in())
    flash(refusal.text if refusal else gettext("Two-factor authentication is off."), "error" if refusal else "success")
    return redirect(url_for("account.security"), 303)


@account.post("/recovery-codes")
@confirmed
def renew_recovery_codes() -> ResponseReturnValue:
    """Show new recovery codes, once."""
    return _show_codes(two_factor.renew_recovery_codes(signed_in()))


@system.get("")
def edit() -> ResponseReturnValue:
    """Show what is asked of everybody who signs in."""
    system_administrator()
    return respond("accounts/system.html", required=policy.requires_two_factor())


@system.post("/two-factor")
def require_two_factor() -> ResponseReturnValue:
    """Require a second factor of all accounts, or leave it to them."""
    system_administrator()
    policy.require_two_factor("enabled" in request.form)
    if not request.htmx:  # type: ignore[attr-defined]
        return redirect(url_for("system_sign_in.edit"), 303)
    return respond("accounts/system.html", "accounts/_required.html", required=policy.requires_two_factor())


def _confirm(_within: object, _grace: object) -> ResponseReturnValue:
    """Ask for the password, and go on where that was asked for, if it was not a form that was sent."""
    to = request.path if request.method == "GET" else url_for("account.security")
    return redirect(url_for("security.verify", next=to), 303)


def _proposed_secret(owner: Account) -> str:
    """Return the secret that the browser was shown, so that nobody has to scan again after a typing error."""
    secret = two_factor.open_proposal(owner, session.get(PROPOSED))
    if secret is None:
        secret, session[PROPOSED] = two_factor.propose(owner)
    return secret


def _show_codes(codes: list[str]) -> ResponseReturnValue:
    return respond("accounts/recovery_codes.html", codes=codes)


def _sessions_page() -> ResponseReturnValue:
    if request.htmx:  # type: ignore[attr-defined]
        return _page()
    return redirect(url_for("account.security"), 303)


def _page() -> ResponseReturnValue:
    owner = signed_in()
    return respond(
        "accounts/security.html",
        "accounts/_sessions.html",
        sessions=sessions.of_account(owner),
        this=sessions.find(session[KEY]),
        required=policy.requires_two_factor(),
    )
