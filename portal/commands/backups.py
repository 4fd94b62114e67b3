"""The commands that back up and restore the whole portal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from flask import current_app

from portal.backup import BackupError, archive, create
from portal.backup import restore as restoring
from portal.backup.archive import Description
from portal.commands.group import PortalCommand, ask_passphrase, in_portal, new_passphrase
from portal.commands.output import echo, fail

LOST_WITHOUT_KEYS: Final = (
    "Keep ENCRYPTION_KEYS and SECRET_KEY apart from it. Without ENCRYPTION_KEYS these are lost: passwords of mail "
    "servers, connected mailboxes, signing secrets, second factors, and the passwords in welcome emails not yet sent."
)


@click.command("backup", cls=PortalCommand)
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--with-keys/--without-keys",
    default=None,
    help="Whether the settings and keys are in it, encrypted with PORTAL_PASSPHRASE; if unset, you are asked for it.",
)
def backup(target: Path, with_keys: bool | None) -> None:
    """Back up the database to a new file, or to a file with the time in its name in a folder. The portal may run."""
    if with_keys is None:
        fail("Choose --with-keys or --without-keys.")
    passphrase = new_passphrase("--without-keys") if with_keys else None
    if target.is_dir():
        target /= f"pbx-portal-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup"
    with _errors():
        description = create.create(target, passphrase)
    size = target.stat().st_size / 1_000_000
    echo(f"{target} ({size:,.1f} MB): {_summary(description)}")
    echo("Settings and keys are in it. Keep the passphrase apart from it." if passphrase else LOST_WITHOUT_KEYS)


@click.command("restore")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--continue", "continues", is_flag=True, help="Send its emails and end no session.")
@click.option("--accept-lost-secrets", is_flag=True, help="Restore although an encryption key is lost.")
@click.option("--settings-to", type=click.Path(path_type=Path), help="Only write the settings and keys to a new file.")
@click.pass_context
def restore(
    context: click.Context, source: Path, continues: bool, accept_lost_secrets: bool, settings_to: Path | None
) -> None:
    """Restore a backup into an empty database, as the owner of its tables. Stop the portal first.

    Emails that were not sent yet at the time of the backup are held, because they may have been sent since, and
    everyone signs in again. Use --continue only if the portal was stopped before the backup and not started since.
    """
    if settings_to:
        _write_settings(source, settings_to)
        return
    with in_portal(context), _errors():
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        restored = restoring.restore(app, source, continues=continues, accepts_lost_secrets=accept_lost_secrets)
    echo(f"Restored as of {restored.description.created_at}: {_summary(restored.description)}")
    if restored.unreadable:
        echo(f"Stored secrets that cannot be decrypted and have to be entered again: {restored.unreadable}.")
    else:
        echo("All stored secrets can be decrypted.")
    if restored.held:
        echo(f"Emails that may have been sent, and are held until someone decides: {restored.held}.")
    echo("Start the workers and the web server, and run: pbx-portal doctor")


def _write_settings(source: Path, target: Path) -> None:
    passphrase = ask_passphrase()
    with _errors(), archive.reading(source) as file:
        settings = archive.read_settings(file, passphrase)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.writelines(f"{name}={_quoted(value)}\n" for name, value in settings.items())
    echo(f"{target} has {len(settings)} settings. Add DATABASE_URL.")


def _quoted(value: str) -> str:
    """Return a value as it is written in a settings file."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _summary(description: Description) -> str:
    return f"{', '.join(f'{name}: {description.rows[name]:,}' for name in archive.COUNTED)}."


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        fail(str(error))
    except FileExistsError as error:
        fail(f"{error.filename or error} exists already.")
    except OSError as error:
        fail(f"The file cannot be written: {error.strerror}.")
