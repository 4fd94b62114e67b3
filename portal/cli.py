"""The commands for set-up by an operator or a script. They call what the pages call, and check with the same forms."""

import getpass
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import click
from flask import Flask, current_app
from flask.cli import AppGroup, ScriptInfo, with_appcontext

from portal import config, rotation
from portal.accounts import registration, two_factor
from portal.audit.who import Actor, act_as
from portal.database import DATABASE_FAULTS, enter_scope
from portal.deliveries import jobs
from portal.errors import Refusal
from portal.forms import PortalForm
from portal.mail_servers import settings as mail_server_settings
from portal.mail_servers.forms import MailServerForm
from portal.notifications import recipients as recipient_list
from portal.notifications import switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys as pbx_keys
from portal.pbx.forms import OVERLAPS, KeyForm, OverlapForm, RotationForm
from portal.pbx.models import PbxKey
from portal.tenants import directory
from portal.tenants.forms import TenantForm
from portal.tenants.models import Tenant

Result = TypeVar("Result")


class OneLine(AppGroup):
    """A group whose errors are one line and exit status 1, wrong options included."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with ctx.ensure_object(ScriptInfo).load_app().app_context():
                act_as(_operator)
                return super().invoke(ctx)
        except click.UsageError as error:
            raise click.ClickException(error.format_message()) from None
        except DATABASE_FAULTS:
            raise click.ClickException("The database does not answer.") from None
        except click.Abort:
            raise click.ClickException("Nobody answers: set PORTAL_PASSWORD.") from None


accounts = OneLine("accounts", help="People who sign in.")
tenants = OneLine("tenants", help="Customers of the PBX.")
keys = OneLine("keys", help="Keys with which a PBX reports events.")
mail_server = OneLine("mail-server", help="The system's mail server and those of tenants.")
recipients = OneLine("recipients", help='The "Emails of Recipients" of a tenant.')
stored_secrets = OneLine("secrets", help="What stands encrypted in the database.")
notifications = OneLine("notifications", help="Which events send mail.")


OVERLAP = click.option(
    "--hours",
    type=click.Choice(list(OVERLAPS)),
    default="24",
    show_default=True,
    help="How long the old one works beside the new one.",
)


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Try deferred mails again, give up expired ones, delete old events: until a signal ends it."""
    jobs.run(current_app._get_current_object(), concurrency=config.current().worker_concurrency)  # type: ignore[attr-defined]


def init_app(app: Flask) -> None:
    """Give the `flask` command these groups."""
    app.cli.add_command(worker)
    for group in (accounts, tenants, keys, mail_server, recipients, notifications, stored_secrets):
        app.cli.add_command(group)


@accounts.command("add")
@click.argument("email")
@click.option("--system-admin", is_flag=True, help="Make it a system administrator.")
@click.option("--tenant", metavar="DOMAIN", help="Let it administer this tenant.")
def add_account(email: str, system_admin: bool, tenant: str | None) -> None:
    """Add an account, or a role to one. Its password is PORTAL_PASSWORD, or asked for."""
    if system_admin == (tenant is not None):
        _fail("Give either --system-admin or --tenant DOMAIN.")
    tenant_id = _tenant(tenant).id if tenant else None
    password = os.environ.get("PORTAL_PASSWORD")
    if password is None and not registration.exists(email):
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    added = _done(registration.add(email, password, system_administrator=system_admin, tenant_id=tenant_id))
    click.echo(f"{added.email} " + (f"administers {tenant}." if tenant else "is a system administrator."))


@accounts.command("reset-two-factor")
@click.argument("email")
def reset_two_factor(email: str) -> None:
    """Let an account sign in with its password alone: its owner lost the authenticator and the recovery codes."""
    click.echo(f"{_done(two_factor.reset(email)).email} signs in with the password alone.")


@tenants.command("add")
@click.argument("name")
@click.option("--domain", required=True, help="The SIP domain by which the PBX knows the tenant.")
@click.option("--time-zone", default="UTC", show_default=True, help="Like Europe/Berlin.")
def add_tenant(name: str, domain: str, time_zone: str) -> None:
    """Add a tenant."""
    form = _checked(TenantForm.from_values({"name": name, "domain": domain, "time_zone": time_zone}))
    tenant = _done(directory.add(form.name.data, form.domain.data, form.time_zone.data))
    click.echo(f"{tenant.name} is added as {tenant.domain}.")


@keys.command("issue")
@click.option("--tenant", metavar="DOMAIN", help="For the events of this tenant.")
@click.option("--system", is_flag=True, help="For the events of all tenants.")
@click.option("--name", default="PBX", show_default=True, help="Which PBX has it.")
@click.option("--expires", metavar="DAY", help="The last day, like 2027-01-31.")
@click.option("--signed", is_flag=True, help="Accept signed calls only.")
def issue_key(tenant: str | None, system: bool, name: str, expires: str | None, signed: bool) -> None:
    """Print a new key, alone, once. Its signing secret, where it has one, stands in the second line."""
    owner = _owner(tenant, system)
    form = _checked(KeyForm.from_values({"name": name, "last_day": expires}))
    _print_secrets(pbx_keys.issue(owner, form.name.data, form.last_day.data, signed=signed))


@keys.command("rotate")
@click.argument("key_id", metavar="ID", type=int)
@OVERLAP
@click.option("--expires", metavar="DAY", help="The last day of the new key.")
def rotate_key(key_id: int, hours: str, expires: str | None) -> None:
    """Print a key's successor, alone, once. The key works for some hours beside it."""
    key, owner = _key(key_id)
    form = _checked(RotationForm.from_values({"hours": hours, "last_day": expires}))
    _print_secrets(_done(pbx_keys.rotate(owner, key, form.overlap, form.last_day.data)))


@keys.command("renew-secret")
@click.argument("key_id", metavar="ID", type=int)
@OVERLAP
def renew_secret(key_id: int, hours: str) -> None:
    """Print a key's new signing secret, alone, once. The one before it counts for some hours beside it."""
    key, _ = _key(key_id)
    form = _checked(OverlapForm.from_values({"hours": hours}))
    _print_secrets(_done(pbx_keys.renew_secret(key, form.overlap)))


@keys.command("list")
def list_keys() -> None:
    """List the keys: number, beginning, owner, name, state, last use."""
    for key, owner in pbx_keys.every_key():
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
        end = key.revoked_at or key.expires_at
        state = f"{key.state} {end:%Y-%m-%d}" if end else key.state
        click.echo(f"{key.id}\t{key.prefix}…\t{owner.domain if owner else 'system'}\t{key.name}\t{state}\t{used}")


@keys.command("revoke")
@click.argument("key_id", metavar="ID", type=int)
def revoke_key(key_id: int) -> None:
    """Refuse a key from now on."""
    key, _ = _key(key_id)
    pbx_keys.revoke(key)
    click.echo(f"Key {key.id} ({key.prefix}…) is revoked.")


@mail_server.command("set")
@click.option("--tenant", metavar="DOMAIN", help="The tenant's own mail server.")
@click.option("--system", is_flag=True, help="The system's mail server.")
@click.option("--host", required=True)
@click.option("--port", required=True)
@click.option("--encryption", type=click.Choice(["none", "starttls", "tls"]), required=True)
@click.option("--auth", type=click.Choice(["none", "auto", "login", "plain"]), required=True)
@click.option("--username")
@click.option("--sender", required=True, metavar="ADDRESS")
def set_mail_server(tenant: str | None, system: bool, auth: str, sender: str, **values: str | None) -> None:
    """Set a mail server. Its password is PORTAL_MAIL_PASSWORD, else the saved one."""
    owner = _owner(tenant, system)
    password = os.environ.get("PORTAL_MAIL_PASSWORD")
    form = _checked(
        MailServerForm.from_values(
            {**values, "provider": "smtp", "auth_mode": auth, "sender_email": sender, "password": password}
        )
    )
    server = _done(mail_server_settings.save(owner.id if owner else None, form.entered()))
    click.echo(f"Mail of {tenant or 'the system'} goes through {server.host}, port {server.port}.")


@mail_server.command("share")
@click.argument("state", type=click.Choice(["on", "off"]))
def share_mail_server(state: str) -> None:
    """Apply the system's mail server settings to all tenants, or to none."""
    _done(mail_server_settings.share(state == "on"))
    click.echo(f"Sharing is {state}.")


@recipients.command("set")
@click.option("--tenant", metavar="DOMAIN", required=True)
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def set_recipients(tenant: str, addresses: Sequence[str]) -> None:
    """Make these addresses the recipients of a tenant."""
    owner = _tenant(tenant)
    parsed = _done(recipient_list.parse("\n".join(addresses)))
    recipient_list.replace(owner, parsed)
    click.echo(f"{owner.domain} has {len(parsed)} recipient{'s' * (len(parsed) > 1)}.")


@notifications.command("on")
@click.option("--tenant", metavar="DOMAIN", required=True)
@click.argument("types", nargs=-1, required=True, metavar="TYPE...|all")
def notifications_on(tenant: str, types: Sequence[str]) -> None:
    """Let these events send mail."""
    _turn(tenant, types, on=True)


@notifications.command("off")
@click.option("--tenant", metavar="DOMAIN", required=True)
@click.argument("types", nargs=-1, required=True, metavar="TYPE...|all")
def notifications_off(tenant: str, types: Sequence[str]) -> None:
    """Let these events send no mail."""
    _turn(tenant, types, on=False)


@stored_secrets.command("rotate")
def rotate_secrets() -> None:
    """Encrypt every stored secret with the first key of ENCRYPTION_KEYS, and tell what is left under which key."""
    done = rotation.rotate()
    for column, count in done.rotated.items():
        click.echo(f"{column}: {count} encrypted anew")
    for key_id, count in done.by_key.items():
        click.echo(f"key {key_id}: {count} secrets")
    if done.left:
        _fail(
            f"{done.left} are not under the first key: run this again; a key that is not in ENCRYPTION_KEYS is needed."
        )
    click.echo("All are under the first key. The others may leave ENCRYPTION_KEYS a day from now.")


def _turn(tenant: str, types: Sequence[str], *, on: bool) -> None:
    owner = _tenant(tenant)
    chosen = list(KINDS) if "all" in types else types
    if unknown := [each for each in types if each not in {*KINDS, "all"}]:
        _fail(f"There is no event type {unknown[0]}. There are: {', '.join(KINDS)}.")
    switches.turn(owner, chosen, on=on)
    click.echo(f"{owner.domain}: {', '.join(chosen)} {'on' if on else 'off'}.")


def _tenant(domain: str) -> Tenant:
    tenant = directory.find(domain)
    if tenant is None:
        _fail(f"There is no tenant with the domain {domain}.")
    enter_scope(tenant.id)
    return tenant


def _key(key_id: int) -> tuple[PbxKey, Tenant | None]:
    found = [(key, owner) for key, owner in pbx_keys.every_key() if key.id == key_id]
    return found[0] if found else _fail("There is no key with this number.")


def _print_secrets(issued: pbx_keys.IssuedKey) -> None:
    for secret in filter(None, (issued.secret, issued.signing_secret)):
        click.echo(secret)


def _owner(tenant: str | None, system: bool) -> Tenant | None:
    if system == (tenant is not None):
        _fail("Give either --system or --tenant DOMAIN.")
    return _tenant(tenant) if tenant else None


def _done(result: Result | Refusal) -> Result:
    if isinstance(result, Refusal):
        _fail(result.text)
    return result


FormType = TypeVar("FormType", bound=PortalForm)


def _checked(form: FormType) -> FormType:
    if not form.validate():
        _fail(form.first_error or "")
    return form


def _fail(sentence: str) -> NoReturn:
    raise click.ClickException(sentence)


def _operator() -> Actor:
    user = str(os.getuid())
    with suppress(KeyError, OSError):  # in a container the user may have no name
        user = getpass.getuser()
    return Actor(f"command line ({user})")
