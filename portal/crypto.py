"""Stored secrets: columns encrypted with AES-GCM, tokens stored as hashes, content compared by keyed fingerprints.

An encrypted value is bound to a context (table, column and tenant or row). It does not decrypt in another one.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from flask import Flask

from portal import config
from portal.config import Settings
from portal.setting_formats import parse_keys

NONCE_BYTES = 12  # NIST SP 800-38D, section 5.2.1.1
TOKEN_BYTES = 32
CONTEXT: Final = "encryption_context"  # in the `info` of an encrypted column


class UnreadableSecret(Exception):
    """A stored secret cannot be decrypted: its key was removed from the key ring, or the value was moved or changed."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Encryption keys by id. The first one encrypts and all of them decrypt, so that a new key can take over."""

    keys: dict[str, bytes] = field(repr=False)

    @property
    def current_key_id(self) -> str:
        """The id of the key that encrypts."""
        return next(iter(self.keys))

    def encrypt(self, plaintext: str, context: str) -> bytes:
        """Return `plaintext` encrypted for this context: key id, NUL, nonce, ciphertext."""
        key_id, key = next(iter(self.keys.items()))
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = AESGCM(key).encrypt(nonce, plaintext.encode(), context.encode())
        return key_id.encode() + b"\0" + nonce + ciphertext

    def decrypt(self, stored: bytes, context: str) -> str:
        """Return what `encrypt` was given. Raise UnreadableSecret for an unknown key or another context."""
        key = self.keys.get(key_id_of(stored))
        if key is None:
            raise UnreadableSecret(f"no encryption key with the id {key_id_of(stored)!r}")
        encrypted_value = stored.partition(b"\0")[2]
        nonce, ciphertext = encrypted_value[:NONCE_BYTES], encrypted_value[NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, ciphertext, context.encode()).decode()
        except InvalidTag:
            raise UnreadableSecret("the value was changed, or belongs to another context") from None

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed digest, which shows whether contents are equal but not what short secrets in them are."""
        return _keyed_digest(next(iter(self.keys.values())), content)

    def has_fingerprint(self, content: bytes, fingerprint: bytes) -> bool:
        """Return whether this is the fingerprint of `content`, with any key of the ring."""
        return any(hmac.compare_digest(_keyed_digest(key, content), fingerprint) for key in self.keys.values())


def _keyed_digest(key: bytes, content: bytes) -> bytes:
    """Return an HMAC with SHA-256. OpenSSL needs longer to prepare one than to digest an event, so it is copied."""
    digest = _prepared_hmac(key).copy()
    digest.update(content)
    return digest.digest()


@lru_cache(maxsize=16)
def _prepared_hmac(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


def init_app(app: Flask, settings: Settings) -> None:
    """Give the application its key ring."""
    assert settings.encryption_keys is not None
    app.extensions["keyring"] = Keyring(parse_keys(settings.encryption_keys.get_secret_value()))


def keyring() -> Keyring:
    """Return the key ring of the running application."""
    ring: Keyring = config.extension("keyring")
    return ring


def key_id_of(stored: bytes) -> str:
    """Return the id of the key that encrypted a value."""
    return stored.partition(b"\0")[0].decode(errors="replace")


def encrypted(context: Callable[[Any], str]) -> dict[str, Any]:
    """Return the `info` of an encrypted column, by which key rotation finds it. `context` is that of a row's value."""
    return {CONTEXT: context}


def new_token() -> str:
    """Return a random token of 256 bits that is safe in a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> bytes:
    """Return the hash under which a random token is stored. SHA-256 suffices, as the token cannot be guessed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
