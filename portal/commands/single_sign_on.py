"""The commands about single sign-on, and the report about it when the portal starts."""

from contextlib import suppress

import click
from flask import Flask

from portal import config
from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.accounts.single_sign_on import identities, provider
from portal.accounts.single_sign_on.problems import find_problems
from portal.commands.group import ACCOUNT, CommandGroup
from portal.commands.output import echo, fail
from portal.database.engine import DATABASE_ERRORS

single_sign_on = CommandGroup("single-sign-on", help="Signing in at an OpenID provider.")


@single_sign_on.command("check")
def check() -> None:
    """Ask the provider for its documents, and say what would keep people from signing in."""
    settings = config.current()
    if settings.sso_issuer is None:
        fail("SSO_ISSUER is not set: there is no single sign-on.")
    echo(f"Issuer: {settings.sso_issuer}")
    echo(f"Redirect URI: {provider.redirect_url()}")
    echo(f"Passwords: {'only of break-glass accounts' if settings.sso_only else 'of all accounts'}")
    for account in account_service.break_glass_accounts():
        echo(f"Break-glass account: {account.email}")
    if found := find_problems():
        fail(" ".join(found))
    echo("The provider responds.")


@single_sign_on.command("break-glass")
@ACCOUNT
@click.argument("state", type=click.Choice(["on", "off"]))
def break_glass(account: Account, state: str) -> None:
    """Let an account sign in with its password although SSO_ONLY is on, or no longer."""
    if refusal := account_service.set_break_glass(account, state == "on"):
        fail(refusal.text)
    echo(f"{account.email} is {'now' if account.break_glass else 'no longer'} a break-glass account.")


@single_sign_on.command("forget")
@ACCOUNT
def forget(account: Account) -> None:
    """Let the next sign-in find the account by its email address, for example if the provider has a new entry."""
    identities.unbind(account)
    echo(f"{account.email} is not bound to an entry of the provider.")


def report_problems(app: Flask) -> None:
    """Log what keeps people from signing in. Takes as long as the provider."""
    with app.app_context(), suppress(*DATABASE_ERRORS):  # which the portal reports itself
        if config.current().sso_issuer:
            for problem in find_problems():
                app.logger.error("Single sign-on: %s", problem)
