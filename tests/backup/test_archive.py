"""The file of a backup: whatever is damaged in it, the reason is a sentence."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from portal.backup import BackupError, archive
from portal.backup.archive import Description
from tests.conftest import make_sealing_cheap

PASSPHRASE = "four words are enough"
ROWS = {"tenants": 1, "accounts": 2, "events": 3}
DESCRIPTION = Description(1, "0.2.0", "0018", 15, "2026-11-29T12:00:00Z", "", {"1": "ab"}, ROWS, ("pbx_portal",))


def read(file: Path) -> tuple[Description, dict[str, str]] | str:
    """Return what is in a backup, or why it cannot be read."""
    try:
        with archive.reading(file) as parts:
            return archive.read_description(parts), dict(archive.read_settings(parts, PASSPHRASE))
    except BackupError as error:
        return str(error)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup."""
    make_sealing_cheap(monkeypatch)
    with archive.writing(tmp_path / "backup") as parts:
        archive.write_description(parts, DESCRIPTION)
        archive.write_settings(parts, {"SSO_LABEL": "x"}, PASSPHRASE)
    assert read(tmp_path / "backup") == (DESCRIPTION, {"SSO_LABEL": "x"})
    return tmp_path / "backup"


def test_a_byte_that_changed_and_an_end_that_is_missing_are_found(file: Path) -> None:
    content = file.read_bytes()
    for index in range(len(content)):
        changed = bytearray(content)
        changed[index] ^= (0x01, 0x80, 0xFF)[index % 3]
        file.write_bytes(changed)
        read(file)  # raises nothing
    for length in range(0, len(content), 20):
        file.write_bytes(content[:length])
        assert isinstance(read(file), str)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda it, name=name: it["rows"].pop(name) for name in ROWS),
        *(lambda it, name=name: it.pop(name) for name in asdict(DESCRIPTION)),
        lambda it: it.update(rows=[]),
        lambda it: it["rows"].update(tenants="many"),
        lambda it: it.update(roles=["", "a"]),
        lambda it: it.update(roles=["a\0b"]),
        lambda it: it.update(keys=None),
    ],
)
def test_a_description_that_lacks_something_is_refused(file: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    description = asdict(DESCRIPTION)
    damage(description)
    with ZipFile(file, "w") as parts:
        parts.writestr(archive.DESCRIPTION, json.dumps(description))
    assert read(file) == "The file is not a backup of the portal."


@pytest.mark.parametrize("settings", [[], {"SSO_LABEL": 1}, "x"])
def test_settings_of_another_structure_are_refused(file: Path, settings: Any) -> None:
    with ZipFile(file, "w") as parts:
        archive.write_description(parts, DESCRIPTION)
        archive.write_settings(parts, settings, PASSPHRASE)
    assert read(file) == "The settings in this backup are damaged."


def test_a_folder_is_no_backup(tmp_path: Path) -> None:
    assert read(tmp_path) == f"{tmp_path} cannot be read: Is a directory."
