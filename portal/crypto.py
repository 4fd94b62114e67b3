"""Stored secrets: columns encrypted with AES-GCM, tokens kept as hashes, contents compared by fingerprint.

An encrypted value is bound to the place where it stands (tenant, table, column): copied elsewhere, it does not open.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import Flask, current_app

from portal.config import Settings, parse_keys

NONCE_BYTES = 12  # NIST SP 800-38D, section 5.2.1.1
TOKEN_BYTES = 32
PLACE: Final = "place"


class UnreadableSecret(Exception):
    """A stored secret does not open: its key left the ring, or it was moved or changed."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Encryption keys by id. The first one encrypts, each one decrypts, so that a new key can take over."""

    keys: dict[str, bytes] = field(repr=False)

    @property
    def first_id(self) -> str:
        """The id of the key that encrypts."""
        return next(iter(self.keys))

    def encrypt(self, plaintext: str, place: str) -> bytes:
        """Return `plaintext` encrypted for `place`: key id, NUL, nonce, ciphertext."""
        key_id, key = next(iter(self.keys.items()))
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, plaintext.encode(), place.encode())
        return key_id.encode() + b"\0" + nonce + sealed

    def decrypt(self, stored: bytes, place: str) -> str:
        """Return what `encrypt` was given.

        Raises:
            UnreadableSecret: the key is unknown, or the value was made for another place.
        """
        key = self.keys.get(key_id_of(stored))
        if key is None:
            raise UnreadableSecret(f"no encryption key with the id {key_id_of(stored)!r}")
        sealed = stored.partition(b"\0")[2]
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode()
        except InvalidTag:
            raise UnreadableSecret("the value was changed, or belongs to another place") from None

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed digest of `content`: equal contents are seen, short secrets in them cannot be guessed."""
        return hmac.digest(next(iter(self.keys.values())), content, "sha256")

    def same(self, content: bytes, fingerprint: bytes) -> bool:
        """Return whether `fingerprint` was made of `content`, with whichever key of the ring."""
        return any(hmac.compare_digest(hmac.digest(key, content, "sha256"), fingerprint) for key in self.keys.values())


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its key ring."""
    assert settings.encryption_keys is not None
    app.extensions["keyring"] = Keyring(parse_keys(settings.encryption_keys.get_secret_value()))


def keyring() -> Keyring:
    """Return the key ring of the running application."""
    ring: Keyring = current_app.extensions["keyring"]
    return ring


def key_id_of(stored: bytes) -> str:
    """Return the id of the key that encrypted a value."""
    return stored.partition(b"\0")[0].decode(errors="replace")


def encrypted(place: Callable[[Any], str]) -> dict[str, Any]:
    """Return the `info` of an encrypted column. Rotation finds it by that, and binds to the `place` of its row."""
    return {PLACE: place}


def new_token() -> str:
    """Return a random token of 256 bits, safe in an address."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> bytes:
    """Return what is stored of a random token. SHA-256 is enough where the token itself cannot be guessed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
