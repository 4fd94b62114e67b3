"""What the commands share: how they report errors, and how they find what an argument names."""

import getpass
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import click
from flask.cli import AppGroup, ScriptInfo

from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.audit.log import Actor, set_actor
from portal.commands.output import fail
from portal.database.engine import DATABASE_ERRORS
from portal.database.scope import enter_scope
from portal.errors import Refusal
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant
from portal.transfer.sealing import MIN_PASSPHRASE_LENGTH
from portal.web.forms import PortalForm

Result = TypeVar("Result")
FormType = TypeVar("FormType", bound=PortalForm)


@contextmanager
def in_portal(context: click.Context) -> Iterator[None]:
    """Load the portal for a command, whose errors, including invalid options, are one line and exit status 1."""
    try:
        with context.ensure_object(ScriptInfo).load_app().app_context():
            set_actor(_actor)
            logging.getLogger("portal").setLevel(logging.WARNING)  # a command prints what it does
            yield
    except click.UsageError as error:
        fail(error.format_message())
    except DATABASE_ERRORS:
        fail("The database does not respond.")
    except click.Abort:
        fail("No password was entered. Set PORTAL_PASSWORD.")


class CommandGroup(AppGroup):
    """A group of commands that work on the portal's data."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with in_portal(ctx):
            return super().invoke(ctx)


class PortalCommand(click.Command):
    """A command without a group that works on the portal's data."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with in_portal(ctx):
            return super().invoke(ctx)


ACCOUNT = click.argument("account", metavar="EMAIL", callback=lambda _context, _parameter, email: _account(email))
TENANT = click.option(
    "--tenant", metavar="DOMAIN", required=True, callback=lambda _context, _parameter, domain: find_tenant(domain)
)


def unwrap(result: Result | Refusal) -> Result:
    """Return the result. End the command with the text of a refusal."""
    if isinstance(result, Refusal):
        fail(result.text)
    return result


def refuse_if(refusal: Refusal | None) -> None:
    """End the command with the text of a refusal, if there is one."""
    if refusal:
        fail(refusal.text)


def validated(form: FormType) -> FormType:
    """Return the form. End the command with its first error."""
    if not form.validate():
        fail(form.first_error or "")
    return form


def new_passphrase(alternative: str) -> str:
    """Return a passphrase to encrypt with. The alternative is the option with which none is needed."""
    passphrase = ask_passphrase(alternative)
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        fail(f"A passphrase needs at least {MIN_PASSPHRASE_LENGTH} characters.")
    return passphrase


def ask_passphrase(alternative: str = "") -> str:
    """Return PORTAL_PASSPHRASE, or ask for it: twice if there is an alternative, because it is new then."""
    given = os.environ.get("PORTAL_PASSPHRASE")
    if given is None and not sys.stdin.isatty():
        fail(f"Set PORTAL_PASSPHRASE, or use {alternative}." if alternative else "Set PORTAL_PASSPHRASE.")
    if given is None:
        is_new = bool(alternative)
        given = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, default="", show_default=False)
    return str(given)


def find_tenant(domain: str) -> Tenant:
    """Return the tenant with this domain, and enter its scope."""
    tenant = tenant_service.find(domain) or fail(f"There is no tenant with the domain {domain}.")
    enter_scope(tenant.id)
    return tenant


def owner_of(domain: str | None, system: bool, option: str = "--system") -> Tenant | None:
    """Return the tenant that was named, or None for the system."""
    if system == (domain is not None):
        fail(f"Use either {option} or --tenant DOMAIN.")
    return find_tenant(domain) if domain else None


def entered_password() -> str:
    """Return PORTAL_PASSWORD, or ask for a password."""
    chosen = os.environ.get("PORTAL_PASSWORD")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True) if chosen is None else chosen)


def _account(email: str) -> Account:
    return account_service.find(email) or fail(f"There is no account {email}.")


def _actor() -> Actor:
    user = str(os.getuid())
    with suppress(KeyError, OSError):  # in a container the user may have no name
        user = getpass.getuser()
    return Actor(f"command line ({user})")
