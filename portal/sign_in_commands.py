"""The commands about single sign-on, and the report about it when the portal starts."""

from contextlib import suppress

import click
from flask import Flask

from portal import config
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.accounts.single_sign_on import identities, provider
from portal.accounts.single_sign_on.provider import ProviderUnreachable
from portal.cli import ACCOUNT, CommandGroup
from portal.database.engine import DATABASE_ERRORS

single_sign_on = CommandGroup("single-sign-on", help="Signing in at an OpenID provider.")


def init_app(app: Flask) -> None:
    """Add the commands to `flask`."""
    app.cli.add_command(single_sign_on)


@single_sign_on.command("check")
def check() -> None:
    """Ask the provider for its documents, and say what would keep people from signing in."""
    settings = config.current()
    if settings.sso_issuer is None:
        raise click.ClickException("SSO_ISSUER is not set: there is no single sign-on.")
    click.echo(f"Issuer: {settings.sso_issuer}")
    click.echo(f"Redirect URI: {provider.redirect_url()}")
    click.echo(f"Passwords: {'only of break-glass accounts' if settings.sso_only else 'of all accounts'}")
    for account in account_service.break_glass_accounts():
        click.echo(f"Break-glass account: {account.email}")
    if found := problems():
        raise click.ClickException(" ".join(found))
    click.echo("The provider responds.")


@single_sign_on.command("break-glass")
@ACCOUNT
@click.argument("state", type=click.Choice(["on", "off"]))
def break_glass(account: Account, state: str) -> None:
    """Let an account sign in with its password although SSO_ONLY is on, or no longer."""
    if refusal := account_service.set_break_glass(account, state == "on"):
        raise click.ClickException(refusal.text)
    click.echo(f"{account.email} is {'now' if account.break_glass else 'no longer'} a break-glass account.")


@single_sign_on.command("forget")
@ACCOUNT
def forget(account: Account) -> None:
    """Let the next sign-in find the account by its email address, for example if the provider has a new entry."""
    identities.unbind(account)
    click.echo(f"{account.email} is not bound to an entry of the provider.")


def report_problems(app: Flask) -> None:
    """Log what keeps people from signing in. Takes as long as the provider."""
    with app.app_context(), suppress(*DATABASE_ERRORS):  # which the portal reports itself
        if config.current().sso_issuer:
            for problem in problems():
                app.logger.error("Single sign-on: %s", problem)


def problems() -> list[str]:
    """Return what keeps people from signing in, as sentences."""
    found = []
    try:
        provider.check()
    except ProviderUnreachable as error:
        found.append(f"The provider does not work. {error}")
    if config.current().sso_only and not account_service.break_glass_accounts():
        found.append(
            "SSO_ONLY is on and there is no break-glass account"
            + (": nobody can sign in. " if found else ": when the provider fails, nobody can sign in. ")
            + "Mark an account that has a password: flask single-sign-on break-glass EMAIL on"
        )
    return found
