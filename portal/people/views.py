"""The pages of people: of a tenant, of all accounts, and the page on which an invitation is accepted."""

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_security import current_user
from flask_security.utils import login_user

from portal import config
from portal.accounts import service as account_service
from portal.accounts import sessions
from portal.accounts.access import current_account, kept_as, public
from portal.accounts.models import ADMINISTRATOR, SYSTEM_ADMINISTRATOR, Account
from portal.audit.log import Actor, set_actor
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.people import invitations, listing, members
from portal.people.forms import AcceptForm, InvitationForm, RoleForm, TenantInvitationForm
from portal.people.models import Invitation
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace_or_system
from portal.web.i18n import to_translate
from portal.web.responses import flash_result, respond

blueprint = Blueprint("people", __name__)
invitation_blueprint = Blueprint("invitation", __name__, url_prefix="/invitations")
BLUEPRINTS = (blueprint, invitation_blueprint)

Action = Callable[..., Refusal | None]


def _make_system_administrator(account: Account, *, by: Account, **_: object) -> Refusal | None:
    return members.set_system_administrator(account, True, by=by)


def _remove_system_administrator(account: Account, *, by: Account, **_: object) -> Refusal | None:
    return members.set_system_administrator(account, False, by=by)


def _unlock(account: Account, **_: object) -> None:
    account_service.unlock(account)


# What the page of a person does, and the message afterwards.
ACTIONS: Final[dict[str, tuple[Action, str]]] = {
    "deactivate": (
        lambda account, **who: members.set_active(account, False, **who),
        to_translate("%(email)s is deactivated and signed out everywhere."),
    ),
    "reactivate": (
        lambda account, **who: members.set_active(account, True, **who),
        to_translate("%(email)s can sign in again."),
    ),
    "end-sessions": (members.end_sessions, to_translate("%(email)s is signed out everywhere.")),
    "reset-two-factor": (
        members.reset_two_factor,
        to_translate("Two-factor authentication of %(email)s is off. The owner gets an email."),
    ),
}
SYSTEM_ACTIONS: Final[dict[str, tuple[Action, str]]] = {
    "make-system-administrator": (_make_system_administrator, to_translate("%(email)s is a system administrator.")),
    "remove-system-administrator": (
        _remove_system_administrator,
        to_translate("%(email)s is no longer a system administrator."),
    ),
    "unlock": (_unlock, to_translate("%(email)s can try to sign in again.")),
}


@blueprint.get("/tenants/<domain>/people")
@blueprint.get("/system/people")
def index(domain: str | None = None) -> ResponseReturnValue:
    """List the people with access to a tenant, or all accounts."""
    return _index(workspace_or_system(domain))


@blueprint.route("/tenants/<domain>/people/invite", methods=["GET", "POST"])
@blueprint.route("/system/people/invite", methods=["GET", "POST"])
@kept_as(".invite")
def invite(domain: str | None = None) -> ResponseReturnValue:
    """Invite a person to a tenant, or as a system administrator."""
    tenant = workspace_or_system(domain)
    form = TenantInvitationForm() if tenant else InvitationForm()
    if form.validate_on_submit():
        role = form.role.data if tenant else SYSTEM_ADMINISTRATOR
        link = invitations.invite(tenant, form.email.data, role, by=current_account())
        if not isinstance(link, Refusal):
            return _invited(tenant, form.email.data, link)
        form.refuse(link)
    status, is_emailed = 422 if form.is_submitted() else 200, _is_emailed()
    return respond_in_workspace(tenant, "people/invite.html", None, status, form=form, is_emailed=is_emailed)


@blueprint.post("/tenants/<domain>/people/invitations/<int:invitation_id>/resend")
@blueprint.post("/system/people/invitations/<int:invitation_id>/resend")
def resend(invitation_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Email an invitation again, with a new link."""
    tenant, invitation = _owner_and_invitation(domain, invitation_id)
    email = invitation.email
    link = invitations.invite(tenant, email, invitation.role, by=current_account())
    if isinstance(link, Refusal):
        flash(link.text, "error")
        return redirect(url_for(".index", domain=domain), 303)
    return _invited(tenant, email, link)


@blueprint.post("/tenants/<domain>/people/invitations/<int:invitation_id>/withdraw")
@blueprint.post("/system/people/invitations/<int:invitation_id>/withdraw")
def withdraw(invitation_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Make an invitation's link invalid."""
    _tenant, invitation = _owner_and_invitation(domain, invitation_id)
    email = invitation.email
    invitations.withdraw(invitation)
    flash(gettext("The invitation of %(email)s has been withdrawn.", email=email), "success")
    return redirect(url_for(".index", domain=domain), 303)


@blueprint.get("/tenants/<domain>/people/<int:account_id>")
@blueprint.get("/system/people/<int:account_id>")
def show(account_id: int, domain: str | None = None) -> ResponseReturnValue:
    """Show a person, and what the reader may change."""
    return _person_page(*_owner_and_account(domain, account_id))


@blueprint.post("/tenants/<domain>/people/<int:account_id>/role")
def set_role(domain: str, account_id: int) -> ResponseReturnValue:
    """Change a person's role in the tenant."""
    tenant, account = _owner_and_account(domain, account_id)
    form = RoleForm()
    assert tenant is not None
    if not form.validate():
        return _person_page(tenant, account, form)
    refusal = members.set_role(account, tenant.id, form.role.data, by=current_account())
    flash_result(refusal, gettext("The role of %(email)s has been changed.", email=account.email))
    return _back_to(tenant, account)


@blueprint.post("/tenants/<domain>/people/<int:account_id>/remove")
def remove(domain: str, account_id: int) -> ResponseReturnValue:
    """Take a person's access to the tenant away."""
    tenant, account = _owner_and_account(domain, account_id)
    assert tenant is not None
    refusal = members.remove(account, tenant.id, by=current_account())
    flash_result(
        refusal, gettext("%(email)s no longer has access to %(tenant)s.", email=account.email, tenant=tenant.name)
    )
    return _back_to(tenant, account)


@blueprint.post("/tenants/<domain>/people/<int:account_id>/<action>")
@blueprint.post("/system/people/<int:account_id>/<action>")
def act(account_id: int, action: str, domain: str | None = None) -> ResponseReturnValue:
    """Do one of the `ACTIONS` to an account."""
    tenant, account = _owner_and_account(domain, account_id)
    function, done = (ACTIONS if tenant else ACTIONS | SYSTEM_ACTIONS).get(action) or abort(404)
    refusal = function(account, by=current_account(), tenant_id=tenant.id if tenant else None)
    flash_result(refusal, gettext(done) % {"email": account.email})
    return _back_to(tenant, account)


@invitation_blueprint.get("/<token>", endpoint="show")
@public
def show_invitation(token: str) -> ResponseReturnValue:
    """Show an invitation. Opening the link accepts nothing: programs that scan email open it too."""
    return _invitation_page(token)


@invitation_blueprint.post("/<token>")
@public
def accept(token: str) -> ResponseReturnValue:
    """Accept an invitation: choose a password, or get another role with the account that there is."""
    invitation = invitations.find_by_token(token)
    if invitation is None or _is_signed_in_as_other(invitation):
        return _invitation_page(token)
    account = account_service.find(invitation.email)
    set_actor(lambda: Actor(invitation.email, account.id if account else None, request.remote_addr))
    if _is_new(account):
        return _begin(token, invitation) if _may_have_password(account) else _invitation_page(token)
    assert account is not None
    return _accepted(invitation, invitations.accept(account, invitation))


@blueprint.post("/account/invitations/<int:invitation_id>/accept")
def accept_own(invitation_id: int) -> ResponseReturnValue:
    """Accept an invitation of the account that is signed in."""
    account = current_account()
    invitation = next((found for found in invitations.of_account(account) if found.id == invitation_id), None) or abort(
        404
    )
    return _accepted(invitation, invitations.accept(account, invitation))


def _begin(token: str, invitation: Invitation) -> ResponseReturnValue:
    """Accept an invitation with a first password, and sign the account in."""
    form = AcceptForm()
    if form.validate():
        account = invitations.accept_with_password(invitation, form.name.data, form.password.data)
        if isinstance(account, Account):
            login_user(account, authn_via=["invitation"])
            return _accepted(invitation, None)
        form.refuse(account)
    return _invitation_page(token, form)


def _accepted(invitation: Invitation, refusal: Refusal | None) -> ResponseReturnValue:
    flash_result(refusal, gettext("You have accepted the invitation."))
    if not current_user.is_authenticated or invitation.tenant_id is None or refusal:
        return redirect(url_for("tenants.home"), 303)
    return redirect(url_for("tenants.enter", domain=tenant_service.get(invitation.tenant_id).domain), 303)


def _invitation_page(token: str, form: AcceptForm | None = None) -> ResponseReturnValue:
    invitation = invitations.find_by_token(token)
    if invitation is None:
        return respond("people/invitation_gone.html", None, 404)
    account = account_service.find(invitation.email)
    return respond(
        "people/invitation.html",
        None,
        422 if form and form.is_submitted() else 200,
        token=token,
        invitation=invitation,
        place=tenant_service.get(invitation.tenant_id).name if invitation.tenant_id else None,
        is_new=_is_new(account),
        form=(form or AcceptForm(formdata=None)) if _may_have_password(account) else None,
        provider=config.current().sso_label if config.current().sso_issuer else None,
        is_other=_is_signed_in_as_other(invitation),
    )


def _is_new(account: Account | None) -> bool:
    """Return whether nobody has signed in to the invited account yet."""
    return account is None or not (account.password or account.last_sign_in_at)


def _may_have_password(account: Account | None) -> bool:
    return not config.current().sso_only or (account is not None and account.break_glass)


def _is_signed_in_as_other(invitation: Invitation) -> bool:
    return bool(current_user.is_authenticated and current_user.email != invitation.email)


def _owner_and_account(domain: str | None, account_id: int) -> tuple[Tenant | None, Account]:
    tenant = workspace_or_system(domain)
    return tenant, listing.find(tenant, account_id) or abort(404)


def _owner_and_invitation(domain: str | None, invitation_id: int) -> tuple[Tenant | None, Invitation]:
    tenant = workspace_or_system(domain)
    return tenant, invitations.find(tenant, invitation_id) or abort(404)


def _index(tenant: Tenant | None, **context: Any) -> ResponseReturnValue:
    if tenant is None:
        text, after = request.args.get("q", "").strip(), request.args.get("after", "")
        page = listing.search(text, after)
        context |= {"q": text, "after": after, "next_key": page.next_key, "accounts": page.rows}
        context |= {"tenants": listing.tenants_by_id(page.rows)}
    else:
        context |= {"members": listing.members(tenant)}
    response = respond_in_workspace(
        tenant,
        "people/tenant.html" if tenant else "people/system.html",
        None if tenant else "people/_accounts.html",
        invitations=invitations.list_open(tenant),
        zone=tenant.time_zone if tenant else "UTC",
        url_values={"domain": tenant.domain} if tenant else {},
        **context,
    )
    response.cache_control.no_store = True
    return response


def _invited(tenant: Tenant | None, email: str, link: str) -> ResponseReturnValue:
    """Say that the invitation was sent. If no mail server works, show its link once to a system administrator."""
    if _is_emailed():
        flash(gettext("%(email)s has been invited, and gets an email with a link.", email=email), "success")
    elif current_account().is_system_administrator:
        return _index(tenant, link=link, invited=email)
    else:
        text = gettext(
            "The invitation is saved, but no email could be sent: the system's mail server does not work. "
            "Ask your system administrator to send the invitation again."
        )
        flash(text, "error")
    return redirect(url_for(".index", domain=tenant.domain if tenant else None), 303)


def _is_emailed() -> bool:
    """Return whether the system's mail server works, as far as is known."""
    return mail_server_service.server_status(mail_server_service.get_server(None)).state == "working"


def _person_page(tenant: Tenant | None, account: Account, form: RoleForm | None = None) -> ResponseReturnValue:
    by = current_account()
    role = next(
        (member.role for member in account.memberships if tenant and member.tenant_id == tenant.id), ADMINISTRATOR
    )
    return respond_in_workspace(
        tenant,
        "people/person.html",
        None,
        422 if form else 200,
        person=account,
        is_self=account == by,
        may_control=members.may_control(by, account, tenant.id if tenant else None),
        may_reactivate=members.may_reactivate(by, account, tenant.id if tenant else None),
        form=form or RoleForm(formdata=None, data={"role": role}),
        session_count=len(sessions.active_sessions(account)),
        tenants=[] if tenant else tenant_service.tenants_of(account),
        zone=tenant.time_zone if tenant else "UTC",
        url_values={"domain": tenant.domain if tenant else None, "account_id": account.id},
    )


def _back_to(tenant: Tenant | None, account: Account) -> ResponseReturnValue:
    """Redirect to the person's page, to the list if they have no access any more, or to the reader's start page."""
    if tenant is not None and not current_account().administers(tenant.id):
        return redirect(url_for("tenants.home"), 303)
    if tenant is None and not current_account().is_system_administrator:
        return redirect(url_for("tenants.home"), 303)
    domain = tenant.domain if tenant else None
    if tenant is not None and not any(member.tenant_id == tenant.id for member in account.memberships):
        return redirect(url_for(".index", domain=domain), 303)
    return redirect(url_for(".show", account_id=account.id, domain=domain), 303)
