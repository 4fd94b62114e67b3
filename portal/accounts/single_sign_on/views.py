"""Signing in at the provider: the way there, and the redirect with which it ends."""

import hmac
from typing import Final, TypedDict

from authlib.common.security import generate_token
from flask import Blueprint, Flask, current_app, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user, login_user
from flask_security.utils import validate_redirect_url
from werkzeug.exceptions import NotFound

from portal import config
from portal.accounts import rate_limits
from portal.accounts.access import public
from portal.accounts.models import Account
from portal.accounts.rate_limits import IP_ADDRESS, MINUTE, Limit, Rule
from portal.accounts.request_guards import PROVEN_IDENTITY, ProvenIdentity
from portal.accounts.single_sign_on import identities, provider
from portal.accounts.single_sign_on.id_token import Claims, SignInRejected, proves_two_factor
from portal.accounts.single_sign_on.identities import NoAccess
from portal.accounts.single_sign_on.provider import REDIRECT_PATH, ProviderUnreachable
from portal.audit.log import record
from portal.database import clock
from portal.extensions import db
from portal.web.responses import respond

PENDING: Final = "single_sign_on"  # in the cookie: a `PendingSingleSignOn`
LIFETIME: Final = 600.0  # seconds; long enough for a new password and a second factor
STATE_LENGTH: Final = 43
CODE_VERIFIER_LENGTH: Final = 64  # RFC 7636, section 4.1: 43 to 128
MAX_NEXT_LENGTH: Final = 500  # characters: a browser drops a cookie of more than 4 kB
RATE_LIMIT: Final = Rule("single sign-on", (Limit(60, 15 * MINUTE, IP_ADDRESS),))

blueprint = Blueprint("single_sign_on", __name__)


class PendingSingleSignOn(TypedDict):
    """A sign-in that was begun in this browser."""

    state: str
    nonce: str
    code_verifier: str
    began_at: float
    next: str


def init_app(app: Flask) -> None:
    """Give the sign-in page what it says about single sign-on."""
    app.extensions["security"].login_context_processor(sign_in_context)


def sign_in_context() -> dict[str, object]:
    """Return the provider's name, or None, and whether passwords are for emergencies only."""
    settings = config.current()
    return {"provider": settings.sso_label if settings.sso_issuer else None, "passwords_off": settings.sso_only}


@blueprint.get("/sign-in/single-sign-on")
@public
def begin() -> ResponseReturnValue:
    """Send the browser to the provider, where the person signs in."""
    _require_provider()
    if current_user.is_authenticated:
        return redirect(url_for("tenants.home"))
    pending = PendingSingleSignOn(
        state=generate_token(STATE_LENGTH),
        nonce=generate_token(STATE_LENGTH),
        code_verifier=generate_token(CODE_VERIFIER_LENGTH),
        began_at=clock.now().timestamp(),
        next=request.args.get("next", "")[:MAX_NEXT_LENGTH],
    )
    try:
        url = provider.begin(pending["state"], pending["nonce"], pending["code_verifier"])
    except ProviderUnreachable as error:
        return _unreachable(error)
    session[PENDING] = pending
    return redirect(url)


@blueprint.get(REDIRECT_PATH)
@public
def finish() -> ResponseReturnValue:
    """Sign the person in who comes back from the provider, if that person has an account."""
    _require_provider()
    if current_user.is_authenticated:
        return redirect(url_for("tenants.home"))
    pending: PendingSingleSignOn | None = session.get(PENDING)
    if pending is None or not _is_answer_to(pending):
        return _page("interrupted", 400)
    session.pop(PENDING)
    rate_limits.enforce(RATE_LIMIT, ip_address=request.remote_addr or "")
    try:
        claims = _claims(pending)
    except ProviderUnreachable as error:
        return _unreachable(error)
    except SignInRejected as error:
        current_app.logger.warning("Single sign-on was rejected. %s", error)
        return _page("rejected", 400)
    if claims is None:
        return redirect(url_for("security.login", next=pending["next"] or None))
    account = identities.find_account(claims)
    if isinstance(account, NoAccess):
        return _no_access(account)
    return _sign_in(account, claims, pending["next"])


def _is_answer_to(pending: PendingSingleSignOn) -> bool:
    state = request.args.get("state", "")
    if not hmac.compare_digest(pending["state"].encode(), state.encode()):
        return False
    return 0 <= clock.now().timestamp() - pending["began_at"] <= LIFETIME


def _claims(pending: PendingSingleSignOn) -> Claims | None:
    """Return what the provider says about the person, or None if the person pressed "Cancel" there."""
    error, code = request.args.get("error"), request.args.get("code", "")
    if error == "access_denied":
        return None
    if error or not code:
        raise SignInRejected(f"The provider returned the error {(error or '')[:80]!r}.")
    return provider.redeem(code, pending["code_verifier"], pending["nonce"], request.args.get("iss"))


def _sign_in(account: Account, claims: Claims, next_url: str) -> ResponseReturnValue:
    """Sign the account in, after the portal's own second factor if the provider's is not trusted."""
    is_own = next_url.startswith("/") and "\\" not in next_url and validate_redirect_url(next_url)
    to = next_url if is_own else url_for("tenants.home")
    two_factor = proves_two_factor(claims, config.current())
    session[PROVEN_IDENTITY] = ProvenIdentity(account.id, claims["sub"], two_factor)
    if not two_factor:
        plugins = current_app.extensions["security"].two_factor_plugins
        response: ResponseReturnValue | None = plugins.tf_enter(account, False, "single sign-on", next_loc=to)
        if response is not None:
            return response
    login_user(account, remember=False, authn_via=["single sign-on"])
    db.session.commit()
    return redirect(to)


def _require_provider() -> None:
    if config.current().sso_issuer is None:
        raise NotFound


def _no_access(found: NoAccess) -> ResponseReturnValue:
    current_app.logger.warning("Single sign-on gave no access: %s.", found.reason)
    record("account.sign_in_failed", found.account)
    db.session.commit()
    return _page("no_access", 403)


def _unreachable(error: ProviderUnreachable) -> ResponseReturnValue:
    current_app.logger.error("Single sign-on does not work. %s", error)
    return _page("unreachable", 503)


def _page(problem: str, status: int) -> ResponseReturnValue:
    return respond("accounts/single_sign_on.html", status=status, problem=problem, **sign_in_context())
