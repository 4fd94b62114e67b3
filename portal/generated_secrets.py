"""Secrets that are generated once, and kept in a file that only its owner may read."""

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
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, json.dumps(generate()), keep_existing=True)
    kept: dict[str, str] = json.loads(file.read_text())
    return kept


def generate() -> dict[str, str]:
    """Return new secrets, by the names of their settings."""
    key = base64.b64encode(secrets.token_bytes(ENCRYPTION_KEY_BYTES)).decode()
    return {"secret_key": secrets.token_urlsafe(48), "encryption_keys": f"1:{key}"}


def write_private(file: Path, content: str, *, keep_existing: bool = False) -> None:
    """Write a file that only its owner may read: whole or not at all, whatever ends this process or the machine."""
    handle, name = mkstemp(dir=file.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if keep_existing:
            with suppress(FileExistsError):
                file.hardlink_to(new)
        else:
            new.replace(file)
    finally:
        new.unlink(missing_ok=True)
