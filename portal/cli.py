"""The commands of `flask` for operators and scripts. They use the functions and forms of the pages."""

import getpass
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import click
from flask import Flask, current_app
from flask.cli import AppGroup, ScriptInfo, with_appcontext

from portal import config, key_rotation
from portal.accounts import service as account_service
from portal.accounts.models import ADMINISTRATOR, VIEWER, Account
from portal.audit.log import Actor, set_actor
from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import enter_scope
from portal.deliveries import worker as deliveries_worker
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.forms import MailServerForm
from portal.mail_servers.smtp.client import AuthMode
from portal.notifications import recipients as recipient_service
from portal.notifications import settings
from portal.pbx import api_keys
from portal.pbx.forms import OVERLAP_HOURS, KeyForm, OverlapForm, RotationForm
from portal.pbx.models import ApiKey
from portal.people import members
from portal.tenants import service as tenant_service
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant
from portal.web.forms import PortalForm

Result = TypeVar("Result")
FormType = TypeVar("FormType", bound=PortalForm)


class CommandGroup(AppGroup):
    """A group of commands whose errors, including invalid options, are one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with ctx.ensure_object(ScriptInfo).load_app().app_context():
                set_actor(_actor)
                return super().invoke(ctx)
        except click.UsageError as error:
            raise click.ClickException(error.format_message()) from None
        except DATABASE_ERRORS:
            raise click.ClickException("The database does not respond.") from None
        except click.Abort:
            raise click.ClickException("No password was entered. Set PORTAL_PASSWORD.") from None


accounts = CommandGroup("accounts", help="The accounts that people sign in with.")
tenants = CommandGroup("tenants", help="The tenants of the PBX.")
keys = CommandGroup("keys", help="The API keys with which PBXs post events.")
mail_server = CommandGroup("mail-server", help="The mail servers of the system and of tenants.")
recipients = CommandGroup("recipients", help='The "Emails of Recipients" of a tenant.')
stored_secrets = CommandGroup("secrets", help="The encrypted values in the database.")
notifications = CommandGroup("notifications", help="The events that send email.")


ACCOUNT = click.argument("account", metavar="EMAIL", callback=lambda _context, _parameter, email: _account(email))
KEY = click.argument("key_id", metavar="ID", type=int)
TENANT = click.option(
    "--tenant", metavar="DOMAIN", required=True, callback=lambda _context, _parameter, domain: _tenant(domain)
)
EVENT_TYPE_NAMES = click.argument("event_types", nargs=-1, required=True, metavar="TYPE...|all")
OVERLAP = click.option(
    "--hours",
    type=click.Choice(list(OVERLAP_HOURS)),
    default="24",
    show_default=True,
    help="How long the old one stays valid.",
)


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Send due emails, expire overdue ones and delete old events until a signal stops it."""
    config.remove_secrets_from_environment()
    deliveries_worker.run(current_app._get_current_object(), concurrency=config.current().worker_concurrency)  # type: ignore[attr-defined]


def init_app(app: Flask) -> None:
    """Add the commands to `flask`."""
    app.cli.add_command(worker)
    for group in (accounts, tenants, keys, mail_server, recipients, notifications, stored_secrets):
        app.cli.add_command(group)


@accounts.command("add")
@click.argument("email")
@click.option("--system-admin", is_flag=True, help="Make the account a system administrator.")
@click.option("--tenant", metavar="DOMAIN", help="Give the account access to this tenant.")
@click.option("--viewer", is_flag=True, help="With --tenant: as a viewer, who changes nothing. Default: administrator.")
def add_account(email: str, system_admin: bool, tenant: str | None, viewer: bool) -> None:
    """Add an account, or a role to an existing one. PORTAL_PASSWORD is its password; if unset, you are asked for it."""
    owner = _owner(tenant, system_admin, "--system-admin")
    existing = account_service.find(email)
    password = None if existing and not existing.is_only_invited else _password()
    tenant_id, role = owner.id if owner else None, VIEWER if viewer else ADMINISTRATOR
    account = _unwrap(
        account_service.add(email, password, system_administrator=system_admin, tenant_id=tenant_id, role=role)
    )
    if tenant_id:
        _refuse_if(members.set_role(account, tenant_id, role, by=None))
    doing = f"views {tenant}." if viewer else f"administers {tenant}."
    click.echo(f"{account.email} " + (doing if tenant else "is a system administrator."))


@accounts.command("reset-two-factor")
@ACCOUNT
def reset_two_factor(account: Account) -> None:
    """Remove the second factor of an account whose owner lost the authenticator app and the recovery codes."""
    _refuse_if(members.reset_two_factor(account, by=None))
    click.echo(f"{account.email} can sign in with the password only.")


@accounts.command("remove-role")
@ACCOUNT
@click.option("--system-admin", is_flag=True, help="The account is no longer a system administrator.")
@click.option("--tenant", metavar="DOMAIN", help="The account has no access to this tenant any more.")
def remove_role(account: Account, system_admin: bool, tenant: str | None) -> None:
    """Remove a role from an account."""
    owner = _owner(tenant, system_admin, "--system-admin")
    if owner:
        _refuse_if(members.remove(account, owner.id, by=None))
    else:
        _refuse_if(members.set_system_administrator(account, False, by=None))
    click.echo(
        f"{account.email} " + (f"has no access to {tenant}." if tenant else "is no longer a system administrator.")
    )


@accounts.command("change-password")
@ACCOUNT
def change_password(account: Account) -> None:
    """Set an account's password and sign it out everywhere. PORTAL_PASSWORD is used as in `add`."""
    _refuse_if(account_service.change_password(account, _password()))
    click.echo(f"{account.email} has a new password.")


@accounts.command("deactivate")
@ACCOUNT
def deactivate_account(account: Account) -> None:
    """Sign an account out everywhere and block it."""
    _refuse_if(members.set_active(account, False, by=None))
    click.echo(f"{account.email} is deactivated.")


@accounts.command("activate")
@ACCOUNT
def activate_account(account: Account) -> None:
    """Unblock a deactivated account."""
    _refuse_if(members.set_active(account, True, by=None))
    click.echo(f"{account.email} is active.")


@accounts.command("unlock")
@ACCOUNT
def unlock_account(account: Account) -> None:
    """Let an account sign in again after too many attempts at its password, its code or a new password."""
    account_service.unlock(account)
    click.echo(f"{account.email} can sign in again.")


@tenants.command("add")
@click.argument("name")
@click.option("--domain", required=True, help="The tenant's SIP domain on the PBX.")
@click.option("--time-zone", default="UTC", show_default=True, help="For example Europe/Berlin.")
@click.option("--realm", help="With which the PBX challenges softphones. Default: the SIP domain.")
def add_tenant(name: str, domain: str, time_zone: str, realm: str | None) -> None:
    """Add a tenant."""
    values = {"name": name, "domain": domain, "time_zone": time_zone, "realm": realm}
    form = _validated(TenantForm.from_values(values))
    tenant = _unwrap(tenant_service.add(form.name.data, form.domain.data, form.time_zone.data, form.realm.data))
    click.echo(f"{tenant.name} was added with the domain {tenant.domain}.")


@keys.command("issue")
@click.option("--tenant", metavar="DOMAIN", help="A key for the events of this tenant.")
@click.option("--system", is_flag=True, help="A key for the events of all tenants.")
@click.option("--name", default="PBX", show_default=True, help="The PBX that uses it.")
@click.option("--expires", metavar="DATE", help="The last day on which it is valid, for example 2027-01-31.")
@click.option("--signed", is_flag=True, help="Require signed requests.")
def issue_key(tenant: str | None, system: bool, name: str, expires: str | None, signed: bool) -> None:
    """Issue a key and print it, and its signing secret on a second line if it has one. Neither is shown again."""
    owner = _owner(tenant, system)
    form = _validated(KeyForm.from_values({"name": name, "expires_on": expires}))
    if refusal := api_keys.limit_refusal(owner):
        _fail(refusal.text)
    _print_secrets(api_keys.issue(owner, form.name.data, form.expires_on.data, signed=signed))


@keys.command("rotate")
@KEY
@OVERLAP
@click.option("--expires", metavar="DATE", help="The last day on which the new key is valid.")
def rotate_key(key_id: int, hours: str, expires: str | None) -> None:
    """Issue a key's successor and print it. The old key stays valid for a while."""
    key, owner = _key(key_id)
    form = _validated(RotationForm.from_values({"hours": hours, "expires_on": expires}))
    _print_secrets(_unwrap(api_keys.rotate(owner, key, form.overlap, form.expires_on.data)))


@keys.command("renew-secret")
@KEY
@OVERLAP
def renew_secret(key_id: int, hours: str) -> None:
    """Create a new signing secret for a key and print it. The previous one stays valid for a while."""
    form = _validated(OverlapForm.from_values({"hours": hours}))
    _print_secrets(_unwrap(api_keys.renew_secret(_key(key_id)[0], form.overlap)))


@keys.command("list")
def list_keys() -> None:
    """List the keys: ID, first characters, owner, name, state, last use."""
    for key, owner in api_keys.list_all():
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
        end = key.revoked_at or key.expires_at
        state = f"{key.state} {end:%Y-%m-%d}" if end else key.state
        click.echo(f"{key.id}\t{key.prefix}…\t{owner.domain if owner else 'system'}\t{key.name}\t{state}\t{used}")


@keys.command("revoke")
@KEY
def revoke_key(key_id: int) -> None:
    """Reject a key from now on."""
    key, _ = _key(key_id)
    api_keys.revoke(key)
    click.echo(f"Key {key.id} ({key.prefix}…) is revoked.")


@mail_server.command("set")
@click.option("--tenant", metavar="DOMAIN", help="The tenant's own mail server.")
@click.option("--system", is_flag=True, help="The system's mail server.")
@click.option("--host", required=True)
@click.option("--port", required=True)
@click.option("--encryption", type=click.Choice(["none", "starttls", "tls"]), required=True)
@click.option("--auth", type=click.Choice([mode.value for mode in AuthMode]), required=True)
@click.option("--username")
@click.option("--sender", required=True, metavar="EMAIL")
def set_mail_server(tenant: str | None, system: bool, auth: str, sender: str, **values: str | None) -> None:
    """Set a mail server. Its password is PORTAL_MAIL_PASSWORD; if unset, the saved one."""
    owner = _owner(tenant, system)
    password = os.environ.get("PORTAL_MAIL_PASSWORD")
    form = _validated(
        MailServerForm.from_values(
            {**values, "provider": "smtp", "auth_mode": auth, "sender_email": sender, "password": password}
        )
    )
    server = _unwrap(mail_server_service.save(owner.id if owner else None, form.entered_settings()))
    click.echo(f"Email of {tenant or 'the system'} is sent through {server.host}, port {server.port}.")


@mail_server.command("share")
@click.argument("state", type=click.Choice(["on", "off"]))
def share_mail_server(state: str) -> None:
    """Apply the system's mail server settings to all tenants, or stop doing so."""
    _unwrap(mail_server_service.share(state == "on"))
    click.echo(f"Sharing is {state}.")


@recipients.command("set")
@TENANT
@click.argument("emails", nargs=-1, required=True, metavar="EMAIL...")
def set_recipients(tenant: Tenant, emails: Sequence[str]) -> None:
    """Replace the recipients of a tenant."""
    parsed = _unwrap(recipient_service.parse_emails("\n".join(emails)))
    recipient_service.replace(tenant, parsed)
    click.echo(f"{tenant.domain} has {len(parsed)} recipient{'s' * (len(parsed) > 1)}.")


@notifications.command("on")
@TENANT
@EVENT_TYPE_NAMES
def notifications_on(tenant: Tenant, event_types: Sequence[str]) -> None:
    """Turn on email for these events."""
    _set_enabled(tenant, event_types, on=True)


@notifications.command("off")
@TENANT
@EVENT_TYPE_NAMES
def notifications_off(tenant: Tenant, event_types: Sequence[str]) -> None:
    """Turn off email for these events."""
    _set_enabled(tenant, event_types, on=False)


@stored_secrets.command("rotate")
def rotate_secrets() -> None:
    """Re-encrypt every stored secret with the first key of ENCRYPTION_KEYS, and count the secrets by key."""
    rotation = key_rotation.rotate()
    for column, count in rotation.rotated.items():
        click.echo(f"{column}: {count} re-encrypted")
    for key_id, count in rotation.stored.items():
        click.echo(f"key {key_id}: {count} secrets")
    if rotation.remaining:
        _fail(
            f"{rotation.remaining} secrets still use another key. Run the command again. "
            "If that does not help, their key is missing in ENCRYPTION_KEYS."
        )
    click.echo("All secrets use the first key. You can remove the other keys from ENCRYPTION_KEYS in a day.")


def _set_enabled(tenant: Tenant, event_types: Sequence[str], *, on: bool) -> None:
    if unknown := [name for name in event_types if name not in {*EVENT_TYPES, "all"}]:
        _fail(f"There is no event type {unknown[0]}. Use one of: {', '.join(EVENT_TYPES)}.")
    chosen = list(EVENT_TYPES) if "all" in event_types else event_types
    settings.set_enabled(tenant, chosen, on=on)
    click.echo(f"{tenant.domain}: {', '.join(chosen)} {'on' if on else 'off'}.")


def _password() -> str:
    chosen = os.environ.get("PORTAL_PASSWORD")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True) if chosen is None else chosen)


def _account(email: str) -> Account:
    return account_service.find(email) or _fail(f"There is no account {email}.")


def _tenant(domain: str) -> Tenant:
    tenant = tenant_service.find(domain) or _fail(f"There is no tenant with the domain {domain}.")
    enter_scope(tenant.id)
    return tenant


def _owner(domain: str | None, system: bool, option: str = "--system") -> Tenant | None:
    """Return the tenant that was named, or None for the system."""
    if system == (domain is not None):
        _fail(f"Use either {option} or --tenant DOMAIN.")
    return _tenant(domain) if domain else None


def _key(key_id: int) -> tuple[ApiKey, Tenant | None]:
    matches = [(key, owner) for key, owner in api_keys.list_all() if key.id == key_id]
    return matches[0] if matches else _fail("There is no key with this ID.")


def _print_secrets(issued: api_keys.IssuedKey) -> None:
    for secret in filter(None, (issued.secret, issued.signing_secret)):
        click.echo(secret)


def _unwrap(result: Result | Refusal) -> Result:
    if isinstance(result, Refusal):
        _fail(result.text)
    return result


def _refuse_if(refusal: Refusal | None) -> None:
    if refusal:
        _fail(refusal.text)


def _validated(form: FormType) -> FormType:
    if not form.validate():
        _fail(form.first_error or "")
    return form


def _fail(message: str) -> NoReturn:
    raise click.ClickException(message)


def _actor() -> Actor:
    user = str(os.getuid())
    with suppress(KeyError, OSError):  # in a container the user may have no name
        user = getpass.getuser()
    return Actor(f"command line ({user})")
