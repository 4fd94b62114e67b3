"""The page on which a mailbox is connected, and the redirect with which a sign-in ends."""

from typing import Any, Final

from flask import Blueprint, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import NotFound

from portal.accounts import rate_limits
from portal.accounts.access import current_account, kept_as
from portal.accounts.rate_limits import ACCOUNT, HOUR, MINUTE, Limit, Rule
from portal.database import clock
from portal.errors import Refusal
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.oauth import consent
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.consent import PendingSignIn
from portal.mail_servers.oauth.forms import AppForm, AppOnlyForm, ServiceAccountForm
from portal.mail_servers.oauth.identity_providers import (
    PROVIDERS_BY_KEY,
    REDIRECT_PATH,
    GrantType,
    IdentityProvider,
    admin_consent_url,
    operator_app,
    redirect_url,
)
from portal.mail_servers.oauth.models import OAuthConnection
from portal.mail_servers.oauth.token_errors import rejection
from portal.mail_servers.smtp.outcome import SmtpFailure
from portal.tenants.models import Tenant
from portal.tenants.views import respond_in_workspace
from portal.tenants.workspace import workspace_or_system

tenant_pages = Blueprint("oauth", __name__, url_prefix="/tenants/<domain>/mail-server/oauth")
system_pages = Blueprint("system_oauth", __name__, url_prefix="/system/mail-server/oauth")
redirects = Blueprint("oauth_redirect", __name__)
BLUEPRINTS = (tenant_pages, system_pages, redirects)

PENDING: Final = "oauth_sign_in"  # in the session: a `PendingSignIn`
RATE_LIMIT: Final = Rule("connect mailbox", (Limit(10, MINUTE, ACCOUNT), Limit(60, HOUR, ACCOUNT)))
FORMS: Final = {
    GrantType.AUTHORIZATION_CODE: AppForm,
    GrantType.CLIENT_CREDENTIALS: AppOnlyForm,
    GrantType.SERVICE_ACCOUNT: ServiceAccountForm,
}
AnyForm = AppForm | AppOnlyForm | ServiceAccountForm


@kept_as(".show")
def show(domain: str | None = None) -> ResponseReturnValue:
    """Show the connection and the ways to connect; save an app, or connect without a person."""
    tenant = workspace_or_system(domain)
    owner = tenant.id if tenant else None
    provider = oauth_service.provider_of(mail_server_service.get_server(owner))
    if provider is None:
        return _redirect_to_mail_server(domain)
    grant_type = _chosen_grant_type(provider, mail_server_service.get_connection(owner))
    form = _form(provider, grant_type)
    if request.method == "GET":
        return _page(tenant, provider, grant_type)
    rate_limits.enforce(RATE_LIMIT, account=current_account().email)
    if form.validate():
        problem = _save(owner, grant_type, form)
        if problem is None:
            return _redirect_to_mail_server(domain) if grant_type != GrantType.AUTHORIZATION_CODE else _reload(domain)
        form.refuse(problem)
    return _page(tenant, provider, grant_type, form, status=422)


def sign_in(domain: str | None = None) -> ResponseReturnValue:
    """Send the browser to the provider, where the person signs in and consents."""
    tenant = workspace_or_system(domain)
    owner = tenant.id if tenant else None
    server, connection = mail_server_service.get_server(owner), mail_server_service.get_connection(owner)
    provider = oauth_service.provider_of(server)
    app = oauth_service.sign_in_app(provider, connection) if provider else None
    if server is None or provider is None or app is None:
        return _redirect_to_mail_server(domain)
    directory = oauth_service.sign_in_directory(provider, connection)
    url, state, verifier = consent.begin(provider, app, directory, server.username)
    session[PENDING] = PendingSignIn(
        owner=owner,
        domain=domain,
        account_id=current_account().id,
        provider=provider.key,
        state=state,
        code_verifier=verifier,
        began_at=clock.now().timestamp(),
    )
    return redirect(url, 303)


def disconnect(domain: str | None = None) -> ResponseReturnValue:
    """Forget the connection and its secrets."""
    tenant = workspace_or_system(domain)
    oauth_service.disconnect(tenant.id if tenant else None)
    flash(gettext("The mailbox is disconnected."), "success")
    return _redirect_to_mail_server(domain)


for blueprint in (tenant_pages, system_pages):
    blueprint.add_url_rule("", view_func=show, methods=["GET", "POST"])
    blueprint.add_url_rule("/sign-in", view_func=sign_in)
    blueprint.add_url_rule("/disconnect", view_func=disconnect, methods=["POST"])


@redirects.get(REDIRECT_PATH)
def finish_sign_in() -> ResponseReturnValue:
    """End the sign-in that this session began: for the same account, and while it may still manage the owner."""
    if "admin_consent" in request.args:
        flash(gettext("The organisation has consented to the app. Now sign in."), "success")
        return redirect(url_for("tenants.home"), 303)
    pending: PendingSignIn | None = session.get(PENDING)
    if pending is None or not consent.is_answer_to(pending, request.args.get("state", ""), now=clock.now().timestamp()):
        flash(gettext("This sign-in was not started here, or took too long. Start it again."), "error")
        return redirect(url_for("tenants.home"), 303)
    rate_limits.enforce(RATE_LIMIT, account=current_account().email)  # a cookie that was kept makes it pending again
    del session[PENDING]
    tenant = workspace_or_system(pending["domain"])
    owner = tenant.id if tenant else None
    if (current_account().id, owner) != (pending["account_id"], pending["owner"]):
        raise NotFound
    problem = _finish(owner, pending)
    flash(*((problem, "error") if problem else (gettext("The mailbox is connected."), "success")))
    return _redirect_to_mail_server(pending["domain"])


def _finish(owner: int | None, pending: PendingSignIn) -> str | None:
    """Connect the mailbox, or return why not."""
    provider = PROVIDERS_BY_KEY[pending["provider"]]
    result: object
    if error := request.args.get("error"):
        result = rejection(provider, error, request.args.get("error_description", ""))
    else:
        code, verifier = request.args.get("code", ""), pending["code_verifier"]
        result = oauth_service.complete_sign_in(owner, provider, code, verifier)
    if isinstance(result, SmtpFailure):
        return oauth_service.explain(result)
    return result.text if isinstance(result, Refusal) else None


def _save(owner: int | None, grant_type: GrantType, form: AnyForm) -> Refusal | None:
    """Save what was entered, or return why not."""
    entered = form.entered_app()
    saved: object
    if grant_type is GrantType.AUTHORIZATION_CODE:
        saved, done = oauth_service.register_app(owner, entered), gettext("The app is saved. Now sign in.")
    else:
        saved = oauth_service.connect_without_person(owner, grant_type, entered)
        done = gettext("The mailbox is connected.")
    if isinstance(saved, SmtpFailure):
        return Refusal("", oauth_service.explain(saved))
    if isinstance(saved, Refusal):
        return saved
    flash(done, "success")
    return None


def _chosen_grant_type(provider: IdentityProvider, connection: OAuthConnection | None) -> GrantType:
    """Return the way to connect that the reader chose, else the saved one, else the first."""
    wanted = request.values.get("way") or (connection.grant_type if connection else "")
    return next((way for way in provider.grant_types if way == wanted), provider.grant_types[0])


def _form(provider: IdentityProvider, grant_type: GrantType) -> AnyForm:
    form: AnyForm = FORMS[grant_type]()
    return _without_directory(provider, form)


def _without_directory(provider: IdentityProvider, form: AnyForm) -> AnyForm:
    if provider.key != "microsoft" and "directory" in form:
        del form.directory
    return form


def _page(
    tenant: Tenant | None,
    provider: IdentityProvider,
    grant_type: GrantType,
    form: AnyForm | None = None,
    status: int = 200,
) -> ResponseReturnValue:
    owner = tenant.id if tenant else None
    server, connection = mail_server_service.get_server(owner), mail_server_service.get_connection(owner)
    shown = form or _without_directory(provider, FORMS[grant_type].showing(provider, connection, grant_type))
    app = oauth_service.sign_in_app(provider, connection)
    directory = oauth_service.sign_in_directory(provider, connection)
    return respond_in_workspace(
        tenant,
        "mail_servers/oauth.html",
        None,
        status,
        server=server,
        provider=provider,
        connection=oauth_service.status(server, connection),
        can_sign_in=app is not None,
        consent_url=app and admin_consent_url(provider, app.client_id, directory),
        uses_operator_app=operator_app(provider) is not None,
        ways=provider.grant_types,
        chosen=grant_type,
        form=shown,
        redirect_url=redirect_url(),
    )


def _url_values(domain: str | None) -> dict[str, Any]:
    return {"domain": domain} if domain else {}


def _reload(domain: str | None) -> ResponseReturnValue:
    return redirect(url_for("oauth.show" if domain else "system_oauth.show", **_url_values(domain)), 303)


def _redirect_to_mail_server(domain: str | None) -> ResponseReturnValue:
    return redirect(url_for("mail_servers.edit" if domain else "system_mail_server.edit", **_url_values(domain)), 303)
