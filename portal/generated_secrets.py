"""Secrets of a developer's portal: generated once, and kept in a file that only its owner may read."""

import base64
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from portal.setting_formats import ENCRYPTION_KEY_BYTES


def read_or_generate(file: Path) -> dict[str, str]:
    """Return the secrets in the file, by the names of their settings. The first time they are generated."""
    if not file.exists():
        key = base64.b64encode(secrets.token_bytes(ENCRYPTION_KEY_BYTES)).decode()
        new = {"secret_key": secrets.token_urlsafe(48), "encryption_keys": f"1:{key}"}
        write_private(file, new, keep_existing=True)
    kept: dict[str, str] = json.loads(file.read_text())
    return kept


def write_private(file: Path, content: object, *, keep_existing: bool = False) -> None:
    """Write a JSON file that only its owner may read: whole or not at all, whatever ends this process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as stream:
        json.dump(content, stream)
    new = Path(name)
    if keep_existing:
        with suppress(FileExistsError):
            file.hardlink_to(new)
        new.unlink()
    else:
        new.replace(file)
