"""The commands of `pbx-portal` for operators and scripts. They use the functions and forms of the pages."""

from typing import Final

import click
from flask import Flask

from portal.commands import (
    accounts,
    backups,
    doctor,
    init,
    keys,
    mail_servers,
    notifications,
    schema,
    secrets,
    single_sign_on,
    tenants,
    workers,
)

COMMANDS: Final[tuple[click.Command, ...]] = (
    init.init,
    workers.worker,
    schema.upgrade,
    doctor.doctor,
    backups.backup,
    backups.restore,
    accounts.accounts,
    tenants.tenants,
    tenants.recipients,
    keys.keys,
    mail_servers.mail_server,
    notifications.notifications,
    secrets.stored_secrets,
    single_sign_on.single_sign_on,
)


def init_app(app: Flask) -> None:
    """Add the commands to `flask` too."""
    for command in COMMANDS:
        app.cli.add_command(command)
