"""The pages of an account. Signing in and passwords are Flask-Security's views with the portal's templates."""

import base64
from collections.abc import Sequence

from flask import Blueprint, Flask, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_security import auth_required
from werkzeug.exceptions import BadRequest

from portal import config
from portal.accounts import email_change, kept_forms, sessions, two_factor
from portal.accounts import service as account_service
from portal.accounts.access import current_account, kept_as, public, require_system_administrator
from portal.accounts.forms import AuthenticatorCodeForm, NameForm, NewEmailForm
from portal.accounts.models import Account
from portal.accounts.request_guards import ACCOUNT_SESSION
from portal.accounts.security import CONFIRMED_FOR
from portal.accounts.single_sign_on.provider import redirect_url
from portal.alerts import preferences
from portal.alerts.texts import KIND_LABELS
from portal.errors import Refusal
from portal.people import invitations
from portal.provisioning import qr
from portal.tenants import service as tenant_service
from portal.web.i18n import LANGUAGES
from portal.web.responses import flash_result, respond

PROPOSED_TOTP = "proposed_totp_secret"  # in the cookie, encrypted: of an authenticator app that is being set up

blueprint = Blueprint("account", __name__, url_prefix="/account")
system_blueprint = Blueprint("system_sign_in", __name__, url_prefix="/system/sign-in")
BLUEPRINTS = (blueprint, system_blueprint)

# Someone who finds a signed-in browser does not know the password.
password_confirmed = auth_required("session", within=lambda: CONFIRMED_FOR, grace=lambda: CONFIRMED_FOR)


def init_app(app: Flask) -> None:
    """Make Flask-Security ask for the password on the portal's page."""
    app.extensions["security"].reauthn_handler(_ask_for_password)


@blueprint.get("")
def security() -> ResponseReturnValue:
    """Show how the account signs in, and where it is signed in."""
    return _page()


@blueprint.route("/name", methods=["GET", "POST"])
@kept_as(".change_name")
def change_name() -> ResponseReturnValue:
    """Change the name of the account's owner."""
    account, form = current_account(), NameForm(obj=current_account())
    if form.validate_on_submit():
        account_service.set_name(account, form.name.data)
        flash(gettext("Your name has been saved."), "success")
        return redirect(url_for("account.security"), 303)
    return respond("accounts/name.html", None, 422 if form.is_submitted() else 200, form=form)


@blueprint.route("/email", methods=["GET", "POST"])
@password_confirmed
def change_email() -> ResponseReturnValue:
    """Email links to the old and the new email address, which change it together."""
    form = NewEmailForm()
    if form.validate_on_submit():
        refusal = email_change.start(current_account(), form.email.data)
        if refusal is None:
            return redirect(url_for("account.security"), 303)
        form.refuse(refusal)
    return respond("accounts/email_form.html", None, 422 if form.is_submitted() else 200, form=form)


@blueprint.post("/email/cancel")
def cancel_email_change() -> ResponseReturnValue:
    """Forget an email address that still has to be confirmed."""
    email_change.cancel(current_account())
    flash(gettext("Your email address stays the same."), "success")
    return redirect(url_for("account.security"), 303)


@blueprint.get("/email/confirm/<token>")
@public
def show_email_change(token: str) -> ResponseReturnValue:
    """Show what a link confirms. Opening it confirms nothing: programs that scan email open it too."""
    change = email_change.find_by_token(token)
    status = 200 if change else 404
    return respond("accounts/email_confirm.html", None, status, token=token, change=change, refusal=None)


@blueprint.post("/email/confirm/<token>")
@public
def confirm_email(token: str) -> ResponseReturnValue:
    """Confirm the old or the new email address of an account."""
    result = email_change.confirm(token)
    if isinstance(result, Refusal):
        return respond("accounts/email_confirm.html", None, 404, token=token, change=None, refusal=result)
    if result.old_confirmed and result.new_confirmed:
        flash(gettext("Your email address is now %(email)s. Sign in with it.", email=result.new_email), "success")
        return redirect(url_for("security.login"), 303)
    flash(gettext("This address is confirmed. Now open the link in the email to the other one."), "success")
    return redirect(url_for("tenants.home"), 303)


@blueprint.post("/language")
@kept_as(".choose_language")
def choose_language() -> ResponseReturnValue:
    """Set the language of the pages. An empty one is the browser's."""
    language = request.form.get("language", "")
    if language and language not in LANGUAGES:
        raise BadRequest
    account_service.set_language(current_account(), language or None)
    flash(gettext("The language has been saved."), "success")
    return redirect(url_for("account.security"), 303)


@blueprint.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> ResponseReturnValue:
    """End one of the account's sessions."""
    sessions.end(current_account(), session_id)
    return _sessions_page()


@blueprint.post("/sessions/end-others")
def end_other_sessions() -> ResponseReturnValue:
    """End all of the account's sessions except this one."""
    sessions.end_others(current_account(), session[ACCOUNT_SESSION])
    return _sessions_page()


@blueprint.get("/kept-forms/<int:form_id>")
def kept_form(form_id: int) -> ResponseReturnValue:
    """Show a form that arrived after its session had ended, to send it again."""
    found = kept_forms.find(current_account(), form_id)
    if found is None:
        text = gettext(
            "These changes are no longer kept, or belong to another account. The portal keeps the last %(count)s forms "
            "of an account for a day, until they are saved or discarded.",
            count=kept_forms.MAX_KEPT_FORMS,
        )
        flash(text, "error")
        return redirect(url_for("tenants.home"), 303)
    path, values = found
    return respond("accounts/kept_form.html", form_id=form_id, path=path, values=values)


@blueprint.post("/kept-forms/<int:form_id>/discard")
def discard_kept_form(form_id: int) -> ResponseReturnValue:
    """Delete a form that was kept."""
    kept_forms.forget(current_account(), str(form_id))
    return redirect(url_for("tenants.home"), 303)


@blueprint.route("/two-factor", methods=["GET", "POST"])
@password_confirmed
def set_up_two_factor() -> ResponseReturnValue:
    """Set up an authenticator app, which replaces an older one, and show the recovery codes."""
    account, form = current_account(), AuthenticatorCodeForm()
    secret = _proposed_secret(account)
    is_required = account_service.requires_two_factor() and not account.has_two_factor
    if form.validate_on_submit():
        codes = two_factor.turn_on(account, secret, form.code.data)
        if not isinstance(codes, Refusal):
            session.pop(PROPOSED_TOTP)
            sessions.end_others(account, session[ACCOUNT_SESSION])  # they began without a code
            return _recovery_codes(codes, then="tenants.home" if is_required else "account.security")
        form.refuse(codes)
    uri, key = two_factor.authenticator_setup(account, secret)
    context = {
        "uri": uri,
        "key": key,
        "qr_code": "data:image/png;base64," + base64.b64encode(qr.qr_code_png(uri)).decode(),
        "required": is_required,
    }
    return respond("accounts/two_factor.html", status=422 if form.is_submitted() else 200, form=form, **context)


@blueprint.post("/two-factor/off")
@password_confirmed
def turn_two_factor_off() -> ResponseReturnValue:
    """Turn two-factor authentication off."""
    flash_result(two_factor.turn_off(current_account()), gettext("Two-factor authentication is off."))
    return redirect(url_for("account.security"), 303)


@blueprint.post("/recovery-codes")
@password_confirmed
def renew_recovery_codes() -> ResponseReturnValue:
    """Show new recovery codes, once."""
    return _recovery_codes(two_factor.renew_recovery_codes(current_account()), then="account.security")


def _recovery_codes(codes: Sequence[str], *, then: str) -> ResponseReturnValue:
    return respond("accounts/recovery_codes.html", codes=codes, next_url=url_for(then))


@system_blueprint.get("")
def edit() -> ResponseReturnValue:
    """Show the sign-in policy of all accounts."""
    require_system_administrator()
    return _system_page()


@system_blueprint.post("/two-factor")
@kept_as(".require_two_factor")
def require_two_factor() -> ResponseReturnValue:
    """Require two-factor authentication of all accounts, or leave it to them."""
    require_system_administrator()
    account_service.require_two_factor("enabled" in request.form)
    if not request.htmx:  # type: ignore[attr-defined]
        return redirect(url_for("system_sign_in.edit"), 303)
    return _system_page()


def _system_page() -> ResponseReturnValue:
    return respond(
        "accounts/system.html",
        "accounts/_required.html",
        required=account_service.requires_two_factor(),
        settings=config.current(),
        redirect_url=redirect_url(),
        break_glass=[account.email for account in account_service.break_glass_accounts()],
    )


def _ask_for_password(_within: object, _grace: object) -> ResponseReturnValue:
    """Redirect to the page that asks for the password and then returns here. A submitted form is not repeated."""
    to = request.path if request.method == "GET" else url_for("account.security")
    return redirect(url_for("security.verify", next=to), 303)


def _proposed_secret(account: Account) -> str:
    """Return the secret that the page already showed, so that a typing error does not require another scan."""
    secret = two_factor.open_proposed_secret(account, session.get(PROPOSED_TOTP))
    if secret is None:
        secret, session[PROPOSED_TOTP] = two_factor.propose_secret(account)
    return secret


def _sessions_page() -> ResponseReturnValue:
    if request.htmx:  # type: ignore[attr-defined]
        return _page()
    return redirect(url_for("account.security"), 303)


def _page() -> ResponseReturnValue:
    account = current_account()
    return respond(
        "accounts/security.html",
        "accounts/_sessions.html",
        has_password=account_service.has_usable_password(account),
        provider=config.current().sso_label,
        sessions=sessions.active_sessions(account),
        current_session=sessions.find(session[ACCOUNT_SESSION]),
        required=account_service.requires_two_factor(),
        email_change=email_change.pending(account),
        invitations=[
            (invitation, tenant_service.get(invitation.tenant_id).name if invitation.tenant_id else "")
            for invitation in invitations.of_account(account)
        ],
        alert_kinds=preferences.chosen(account),
        alert_labels=KIND_LABELS,
    )
