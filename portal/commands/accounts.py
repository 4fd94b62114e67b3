"""The commands about accounts."""

import click

from portal.accounts import service as account_service
from portal.accounts.models import ADMINISTRATOR, VIEWER, Account
from portal.commands.group import ACCOUNT, CommandGroup, entered_password, owner_of, refuse_if, unwrap
from portal.commands.output import echo
from portal.people import members

accounts = CommandGroup("accounts", help="The accounts that people sign in with.")


@accounts.command("add")
@click.argument("email")
@click.option("--system-admin", is_flag=True, help="Make the account a system administrator.")
@click.option("--tenant", metavar="DOMAIN", help="Give the account access to this tenant.")
@click.option("--viewer", is_flag=True, help="With --tenant: as a viewer, who changes nothing. Default: administrator.")
def add_account(email: str, system_admin: bool, tenant: str | None, viewer: bool) -> None:
    """Add an account, or a role to an existing one. PORTAL_PASSWORD is its password; if unset, you are asked for it."""
    owner = owner_of(tenant, system_admin, "--system-admin")
    existing = account_service.find(email)
    password = None if existing and not existing.is_only_invited else entered_password()
    tenant_id, role = owner.id if owner else None, VIEWER if viewer else ADMINISTRATOR
    account = unwrap(
        account_service.add(email, password, system_administrator=system_admin, tenant_id=tenant_id, role=role)
    )
    if tenant_id:
        refuse_if(members.set_role(account, tenant_id, role, by=None))
    doing = f"views {tenant}." if viewer else f"administers {tenant}."
    echo(f"{account.email} " + (doing if tenant else "is a system administrator."))


@accounts.command("reset-two-factor")
@ACCOUNT
def reset_two_factor(account: Account) -> None:
    """Remove the second factor of an account whose owner lost the authenticator app and the recovery codes."""
    refuse_if(members.reset_two_factor(account, by=None))
    echo(f"{account.email} can sign in with the password only.")


@accounts.command("remove-role")
@ACCOUNT
@click.option("--system-admin", is_flag=True, help="The account is no longer a system administrator.")
@click.option("--tenant", metavar="DOMAIN", help="The account has no access to this tenant any more.")
def remove_role(account: Account, system_admin: bool, tenant: str | None) -> None:
    """Remove a role from an account."""
    owner = owner_of(tenant, system_admin, "--system-admin")
    if owner:
        refuse_if(members.remove(account, owner.id, by=None))
    else:
        refuse_if(members.set_system_administrator(account, False, by=None))
    echo(f"{account.email} " + (f"has no access to {tenant}." if tenant else "is no longer a system administrator."))


@accounts.command("change-password")
@ACCOUNT
def change_password(account: Account) -> None:
    """Set an account's password and sign it out everywhere. PORTAL_PASSWORD is used as in `add`."""
    refuse_if(account_service.change_password(account, entered_password()))
    echo(f"{account.email} has a new password.")


@accounts.command("deactivate")
@ACCOUNT
def deactivate_account(account: Account) -> None:
    """Sign an account out everywhere and block it."""
    refuse_if(members.set_active(account, False, by=None))
    echo(f"{account.email} is deactivated.")


@accounts.command("activate")
@ACCOUNT
def activate_account(account: Account) -> None:
    """Unblock a deactivated account."""
    refuse_if(members.set_active(account, True, by=None))
    echo(f"{account.email} is active.")


@accounts.command("unlock")
@ACCOUNT
def unlock_account(account: Account) -> None:
    """Let an account sign in again after too many attempts at its password, its code or a new password."""
    account_service.unlock(account)
    echo(f"{account.email} can sign in again.")
