"""The file of a backup: a zip file with a description, Postgres's dump and, if wanted, the encrypted settings."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated, Final, Self
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from pydantic import AfterValidator, StringConstraints, TypeAdapter

from portal.backup import BackupError
from portal.transfer import sealing
from portal.transfer.sealing import CannotUnseal
from portal.transfer.tenant_document import SealedSecrets

FORMAT: Final = 1
DESCRIPTION, DUMP, SETTINGS = "backup.json", "database.dump", "settings.json"
MAX_DESCRIPTION_BYTES: Final = 10_000_000
ENCRYPTED: Final = 1  # among the flags of a part of a zip file
PURPOSE: Final = b"settings in a backup of the portal"
COUNTED: Final = ("tenants", "accounts", "events")  # tables whose numbers of rows are shown
# What reading a zip file or JSON raises if it is damaged. NotImplementedError and RecursionError are RuntimeErrors.
DAMAGED: Final = (BadZipFile, EOFError, KeyError, OSError, OverflowError, RuntimeError, ValueError, struct.error)
# Whatever else a file has here would reach psql, which also runs programs of this machine.
TableName = Annotated[str, StringConstraints(pattern="^[a-z0-9_]+$")]
RoleName = Annotated[str, StringConstraints(pattern="^[^\\x00-\\x1f]+$")]


def _with_counted(rows: Mapping[str, int]) -> Mapping[str, int]:
    if missing := [name for name in COUNTED if name not in rows]:
        raise ValueError(f"no number of {missing[0]}")
    return rows


@dataclass(frozen=True, slots=True)
class Description:
    """What a backup is of. Everything in it is of the moment of the dump.

    `keys` has a fingerprint of each encryption key that a stored secret needs, by its id. `rows` has the number of rows
    by table, `roles` the roles that have rights to the tables.
    """

    format: int
    portal_version: str
    schema: str
    postgres: int
    created_at: str
    portal_url: str
    keys: Mapping[str, str]
    rows: Annotated[Mapping[TableName, int], AfterValidator(_with_counted)]
    roles: tuple[RoleName, ...]

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read one. Raise ValueError for anything else."""
        return TypeAdapter(cls).validate_json(content)


@contextmanager
def writing(target: Path) -> Iterator[ZipFile]:
    """Yield a new zip file that only its owner may read. It is at `target` once the block has ended well, whole.

    Raises:
        FileExistsError: there is such a file. It is left alone.
        OSError: the folder cannot be written, or the disk is full.
    """
    if target.exists():
        raise FileExistsError(target)
    handle, name = mkstemp(dir=target.parent, prefix=".backup-")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            with ZipFile(stream, "w", ZIP_STORED) as file:
                yield file
            stream.flush()
            os.fsync(stream.fileno())
        target.hardlink_to(temporary)  # unlike a rename, it replaces nothing
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_description(file: ZipFile, description: Description) -> None:
    """Add the description."""
    file.writestr(DESCRIPTION, json.dumps(asdict(description), indent=2))


def read_description(file: ZipFile) -> Description:
    """Return the description. Raise BackupError."""
    try:
        if file.getinfo(DESCRIPTION).file_size > MAX_DESCRIPTION_BYTES:
            raise BackupError("The file is not a backup of the portal.")
        description = Description.from_json(file.read(DESCRIPTION))
    except DAMAGED:
        raise BackupError("The file is not a backup of the portal.") from None
    if description.format > FORMAT:
        raise BackupError(f"The backup is of a newer version of the portal: {description.portal_version}. Install it.")
    return description


@contextmanager
def reading(source: Path) -> Iterator[ZipFile]:
    """Yield a backup to read. Raise BackupError."""
    try:
        file = ZipFile(source)
        if any(part.compress_type != ZIP_STORED or part.flag_bits & ENCRYPTED for part in file.infolist()):
            raise BadZipFile
    except FileNotFoundError:
        raise BackupError(f"There is no file {source}.") from None
    except PermissionError:
        raise BackupError(f"{source} cannot be read. Run the command as its owner.") from None
    except OSError as error:
        raise BackupError(f"{source} cannot be read: {error.strerror}.") from None
    except DAMAGED:
        raise BackupError(f"{source} is not a backup of the portal, or it is damaged.") from None
    with file:
        yield file


def write_settings(file: ZipFile, settings: Mapping[str, str], passphrase: str) -> None:
    """Add the settings, encrypted with the passphrase."""
    file.writestr(SETTINGS, sealing.encrypt(json.dumps(settings).encode(), passphrase, PURPOSE).model_dump_json())


def read_settings(file: ZipFile, passphrase: str) -> Mapping[str, str]:
    """Return the settings in a backup. Raise BackupError."""
    if SETTINGS not in file.namelist():
        raise BackupError("The settings and keys were left out of this backup.")
    try:
        sealed = SealedSecrets.model_validate_json(file.read(SETTINGS))
        settings = TypeAdapter(dict[str, str]).validate_json(sealing.decrypt(sealed, passphrase, PURPOSE))
    except DAMAGED:  # pydantic's ValidationError is a ValueError
        raise BackupError("The settings in this backup are damaged.") from None
    except CannotUnseal:
        raise BackupError("The passphrase is wrong, or the settings in this backup were changed.") from None
    return settings
