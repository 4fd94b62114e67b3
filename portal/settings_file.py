"""The settings file: settings that the environment does not have, as lines `NAME='value'`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DEFAULT: Final = Path("/etc/pbx-portal/portal.env")
VARIABLE: Final = "PORTAL_ENV_FILE"  # names another file; empty: none is read


class SettingsFileUnreadable(Exception):
    """The settings file cannot be read. The text says why, and what to do."""


def path() -> Path:
    """Return the settings file."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def owner_file(file: Path) -> Path:
    """Return the file beside the settings file with MIGRATION_DATABASE_URL, which web and workers cannot read."""
    return file.with_name("owner.env")


def readable() -> Sequence[Path]:
    """Return the files to read. Raise SettingsFileUnreadable for one that is there or was named, and cannot be read."""
    if os.environ.get(VARIABLE) == "":
        return ()
    file = path()
    try:
        file.open().close()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and VARIABLE not in os.environ:
            return ()
        hint = " Run the command as its owner or as root." if isinstance(error, PermissionError) else ""
        raise SettingsFileUnreadable(f"The settings file {file} cannot be read: {error.strerror}.{hint}") from None
    owner = owner_file(file)
    return (file, owner) if os.access(owner, os.R_OK) else (file,)
