"""The command that installs a portal: settings, database, schema and the first account."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click
from sqlalchemy import select

from portal import config, installation, settings_file
from portal.accounts import service as account_service
from portal.accounts.models import SYSTEM_ADMINISTRATOR, Account
from portal.commands.group import entered_password, in_portal, unwrap
from portal.commands.output import echo, echo_text, fail
from portal.commands.schema import upgrade_schema
from portal.config import EMBEDDED, Settings
from portal.extensions import db
from portal.installation import CannotInstall
from portal.setting_formats import check_database_url, without_path

AGAIN = "When that is solved, run the same command again: it keeps what exists and creates the rest."
NEXT_STEPS = """
What comes next:
  1. Start the portal: systemctl enable --now pbx-portal-web pbx-portal-worker
     (without systemd: `pbx-portal run` and `pbx-portal worker`).
  2. Point a reverse proxy with TLS for {url} at http://127.0.0.1:8000.
  3. Sign in at {url} as {email} and enter a mail server.
  4. Keep a copy of {folder} in a safe place: without ENCRYPTION_KEYS, stored passwords cannot be read.
  5. Check all of it: pbx-portal doctor
"""


def _portal_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return without_path(value)
    except ValueError as error:
        raise click.BadParameter(f"{value} {error}") from None


def _superuser_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value:
        return value
    with suppress(ValueError):
        if "://" in value:
            check_database_url(value)
            return value
    raise click.BadParameter("It must be like postgresql://user:password@host/postgres.")


@click.command("init")
@click.option("--url", prompt="URL of the portal", callback=_portal_url, help="For example https://portal.example.com.")
@click.option("--administrator", metavar="EMAIL", prompt="Email of the first administrator", help="Your own email.")
@click.option("--proxies", default=1, show_default=True, help="Number of reverse proxies in front of the portal.")
@click.option(
    "--superuser-url",
    metavar="URL",
    envvar="SUPERUSER_DATABASE_URL",
    default="",
    callback=_superuser_url,
    help="postgresql://… of a Postgres superuser. Default: this machine's Postgres, if you are root.",
)
@click.option("--database", default="portal", show_default=True, help="Name of the new database.")
@click.option("--embedded", is_flag=True, help="Use a Postgres of the portal's own in VAR_DIR instead.")
@click.pass_context
def init(
    context: click.Context,
    url: str,
    administrator: str,
    proxies: int,
    superuser_url: str,
    database: str,
    embedded: bool,
) -> None:
    """Install the portal: secrets, database, schema and first administrator.

    Can be repeated: it keeps what exists and creates the rest. PORTAL_PASSWORD is the administrator's password; if
    unset, you are asked for it.
    """
    try:
        created = _create_settings(url, proxies, None if embedded else superuser_url, database)
        echo(f"Settings: {settings_file.path()} {'was created' if created else 'was there already and is kept'}")
        _create_database(superuser_url, config.load())
        with in_portal(context):
            upgrade_schema()
            echo("Database: its schema is current")
            email = _first_administrator(administrator)
            echo(f"Administrator: {email}")
            echo_text(
                NEXT_STEPS.format(url=config.current().portal_url, email=email, folder=settings_file.path().parent)
            )
    except (CannotInstall, click.ClickException) as error:
        fail(*getattr(error, "message", str(error)).split("\n"), AGAIN)


def _create_settings(url: str, proxies: int, superuser_url: str | None, database: str) -> bool:
    """Create the settings files and return True, or False if they exist. `superuser_url` None: embedded Postgres."""
    file = settings_file.path()
    try:
        if file.exists():
            return False
    except PermissionError:
        raise CannotInstall(f"{file.parent} cannot be read. Run the command as root.") from None
    if file.is_symlink():
        raise CannotInstall(
            f"{file} is a link to {file.readlink()}, which does not exist. Restore it, or remove the link."
        )
    values = {"PORTAL_URL": url, "TRUSTED_PROXIES": str(proxies)}
    if superuser_url is None:
        urls: Mapping[str, str] = {"DATABASE_URL": EMBEDDED, "VAR_DIR": str(_var_dir())}
    else:
        urls = installation.new_urls(superuser_url, database, file)
    installation.create_settings(file, values, urls)
    return True


def _var_dir() -> Path:
    """Return the folder of the embedded Postgres."""
    return Path(os.environ.get("VAR_DIR") or Settings.model_fields["var_dir"].default).absolute()


def _create_database(superuser_url: str, settings: Settings) -> None:
    """Create what the URLs of the settings name, unless it is there. Raise CannotInstall if that is not possible."""
    if settings.uses_embedded_postgres:
        return
    if settings.migration_database_url is None:
        owner_file = settings_file.owner_file(settings_file.path())
        raise CannotInstall(f"MIGRATION_DATABASE_URL is missing: restore {owner_file}, or run the command as root.")
    urls = [str(url).replace("+psycopg", "", 1) for url in (settings.database_url, settings.migration_database_url)]
    if any(map(installation.login_problem, urls)):
        installation.create_database(superuser_url, *urls)
    for url in urls:
        if problem := installation.login_problem(url):
            raise CannotInstall(problem)


def _first_administrator(email: str) -> str:
    """Return the email of a system administrator, who is created if there is none."""
    query = select(Account).where(Account.roles.any(name=SYSTEM_ADMINISTRATOR)).order_by(Account.id).limit(1)
    existing = db.session.scalar(query)
    return (existing or unwrap(account_service.add(email, entered_password(), system_administrator=True))).email
