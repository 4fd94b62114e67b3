"""An operator at the command line: runs `pbx-portal` with the settings of a machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from click.testing import CliRunner, Result
from flask import Flask

from portal import create_app
from portal.__main__ import main
from portal.backup.create import settings_of
from portal.config import Settings
from tests.conftest import close_connections

OF_THE_MACHINE = ("database_url", "migration_database_url", "var_dir", "database_disk")


def pbx_portal(settings: Settings, *arguments: str, without: tuple[str, ...] = (), **environment: str) -> Result:
    """Run a command, and close its connections."""
    values = dict(settings_of(settings))
    values |= {name.upper(): str(value) for name in OF_THE_MACHINE if (value := getattr(settings, name))}
    apps: list[Flask] = []

    def create_and_note() -> Flask:
        apps.append(create_app())
        return apps[-1]

    kept = {name: value for name, value in values.items() if name not in without}
    given = {"PORTAL_ENV_FILE": "", **kept, **dict.fromkeys(without), **environment}
    try:
        with patch("portal.__main__.create_app", create_and_note):
            return CliRunner().invoke(main, list(arguments), env=given)
    finally:
        for app in apps:
            close_connections(app)


@contextmanager
def opened(settings: Settings) -> Iterator[Flask]:
    """Yield the portal with these settings, and close its connections."""
    app = create_app(settings)
    try:
        yield app
    finally:
        close_connections(app)
