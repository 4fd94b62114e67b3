"""Checks that need nothing but this machine: settings, keys, files, the database's disk."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from portal import config, crypto, settings_file
from portal.alerts import conditions
from portal.config import Settings
from portal.doctor.diagnoses import Diagnosis, State, Topic
from portal.setting_formats import is_strong

MIN_DIFFERENT_BYTES: Final = 16  # of 32 random ones, about 30 differ
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
MIN_FREE_BYTES: Final = 200_000_000  # of the folder in which CSV files are made
NEW_KEY: Final = "Create another key and rotate: see “Rotating the encryption key”."


def _settings() -> Iterator[Diagnosis]:
    settings, name = config.current(), "settings"
    if settings.portal_env == "development":
        seen = "PORTAL_ENV is development: for this machine only."
        yield Diagnosis(name, State.WARNING, seen, "Set PORTAL_ENV=production before other people use the portal.")
    elif not settings.is_https and not settings.is_loopback:
        seen = f"PORTAL_URL is {settings.portal_url}: passwords, cookies and keys are sent without encryption."
        yield Diagnosis(name, State.FAILED, seen, "Use a reverse proxy with TLS, and an https:// URL.")
    elif settings.sso_only and not settings.sso_email_domains and settings.sso_trust_email:
        seen = "SSO_TRUST_EMAIL is on without SSO_EMAIL_DOMAINS: the provider may vouch for any email address."
        yield Diagnosis(name, State.WARNING, seen, "Set SSO_EMAIL_DOMAINS to your own domains.")
    else:
        yield Diagnosis(name, State.OK, f"The settings are valid. The portal is {settings.portal_url}.")
    yield _secret_key(settings)
    yield _encryption_keys(settings)


def _secret_key(settings: Settings) -> Diagnosis:
    name, (current, *earlier) = "secret key", settings.secret_keys
    if not is_strong(current):
        seen = "SECRET_KEY is short, or does not look random."
        return Diagnosis(name, State.FAILED, seen, "Replace it: see “Replacing the secret key”.")
    if any(current == key for key in earlier):
        seen = "SECRET_KEY_FALLBACKS has the present SECRET_KEY too."
        return Diagnosis(name, State.WARNING, seen, "Put only earlier keys into SECRET_KEY_FALLBACKS.")
    count = f" SECRET_KEY_FALLBACKS has {len(earlier)} earlier: remove each a month after it was replaced."
    return Diagnosis(name, State.OK, "SECRET_KEY is long and looks random." + (count if earlier else ""))


def _encryption_keys(settings: Settings) -> Diagnosis:
    name, keys = "encryption keys", crypto.keyring().keys
    weak = [key_id for key_id, key in keys.items() if len(set(key)) < MIN_DIFFERENT_BYTES]
    if weak:
        seen = f"The key {weak[0]} in ENCRYPTION_KEYS does not look random."
        return Diagnosis(name, State.FAILED, seen, NEW_KEY)
    if len(set(keys.values())) < len(keys):
        seen = "ENCRYPTION_KEYS has the same key under two ids."
        return Diagnosis(name, State.WARNING, seen, NEW_KEY)
    secret = settings.encryption_keys.get_secret_value() if settings.encryption_keys else ""
    if any(key in secret for key in settings.secret_keys):
        seen = "SECRET_KEY and ENCRYPTION_KEYS share a value."
        return Diagnosis(name, State.FAILED, seen, "Replace SECRET_KEY: see “Replacing the secret key”.")
    return Diagnosis(
        name, State.OK, f"ENCRYPTION_KEYS has {len(keys)}, and {crypto.keyring().current_key_id} encrypts."
    )


def _files() -> Iterator[Diagnosis]:
    name, settings = "files", config.current()
    private = (settings.var_dir / "secrets.json", *settings_file.readable())
    # As root, the portal's user is known by its folder.
    owners = {0, os.geteuid(), settings.var_dir.stat().st_uid if settings.var_dir.exists() else 0}
    for secrets in private:
        if secrets.exists() and (owner := secrets.stat().st_uid) not in owners:
            seen = f"{secrets} has secrets and belongs to another user of this machine (ID {owner})."
            yield Diagnosis(name, State.FAILED, seen, f"chown root {secrets}, or give it to the portal's user.")
            return
    for file, forbidden, change in (
        *((file, OTHERS, "600") for file in private),
        (settings.var_dir, stat.S_IWOTH, "o-w"),
        (settings.mail_ca_file, WRITABLE_BY_OTHERS, "go-w"),
    ):
        mode = _mode(file)
        if mode & forbidden:
            can = "read" if forbidden == OTHERS else "change"
            seen = f"Other users of this machine can {can} {file} (mode {mode:04o})."
            yield Diagnosis(name, State.FAILED, seen, f"chmod {change} {file}")
            return
    folder = Path(tempfile.gettempdir())
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < MIN_FREE_BYTES:
        seen = f"Only {free // 1_000_000} MB are free in {folder}, where CSV files are made."
        yield Diagnosis(name, State.WARNING, seen, "Free space there, or set TMPDIR to another folder.")
        return
    yield Diagnosis(name, State.OK, f"Nobody else can change the portal's files, and {folder} can be written.")


def _mode(file: Path | None) -> int:
    """Return the permissions of a file, 0 if there is none."""
    try:
        return stat.S_IMODE(file.stat().st_mode) if file else 0
    except FileNotFoundError:
        return 0


def _disk() -> Iterator[Diagnosis]:
    name, free = "database disk", conditions.free_disk_share()
    if free is None:
        named = config.current().database_disk
        seen = f"DATABASE_DISK is {named}, which cannot be read." if named else "This machine does not see it."
        advice = "Set DATABASE_DISK to a folder on that disk if this machine has it; otherwise watch it where it is."
        yield Diagnosis(name, State.FAILED if named else State.SKIPPED, seen, advice)
    elif free < conditions.FULL:
        seen = f"Only {free:.0%} of it are free. When it is full, events are answered with 503."
        yield Diagnosis(
            name, State.FAILED, seen, "Free space or enlarge it. RETENTION_DAYS says how long events are kept."
        )
    else:
        yield Diagnosis(name, State.OK, f"{free:.0%} of it are free.")


TOPICS: Final = (
    Topic(("settings", "secret key", "encryption keys"), _settings),
    Topic(("files",), _files),
    Topic(("database disk",), _disk),
)
