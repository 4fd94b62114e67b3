"""Secrets in an export or a backup, encrypted with a passphrase: scrypt (RFC 7914) makes the key, AES-256-GCM encrypts.

In an export the encryption is bound to the rest of the document, which cannot be changed without the passphrase.
"""

import base64
import binascii
import secrets as random
import unicodedata
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import ValidationError

from portal.accounts.passwords import HASHING
from portal.crypto import NONCE_BYTES
from portal.transfer.tenant_document import Document, SealedSecrets, Secrets

MIN_PASSPHRASE_LENGTH: Final = 12
MAX_PASSPHRASE_LENGTH: Final = 1000
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32
BLOCK_SIZE: Final = 8
COST: Final = 2**16  # 64 MiB, as a password's hash
PARALLELISM: Final = 2
ALLOWED_COSTS: Final = (2**15, 2**16, 2**17)  # of a file; its author decides what this machine has to compute


class CannotUnseal(Exception):
    """The passphrase is wrong, or something in the file was changed."""


def seal(document: Document, secrets: Secrets, passphrase: str) -> Document:
    """Return the document with encrypted secrets."""
    with HASHING.hold():  # it takes as much as a password's hash
        sealed = encrypt(secrets.model_dump_json().encode(), passphrase, document.bound_content())
    return document.model_copy(update={"secrets": sealed})


def unseal(document: Document, passphrase: str) -> Secrets:
    """Return the secrets of a document, or raise CannotUnseal."""
    assert document.secrets is not None
    with HASHING.hold():
        content = decrypt(document.secrets, passphrase, document.bound_content())
    try:
        return Secrets.model_validate_json(content)
    except ValidationError:
        raise CannotUnseal from None


def encrypt(content: bytes, passphrase: str, bound_to: bytes) -> SealedSecrets:
    """Return the content, encrypted so that it decrypts only with what it is bound to."""
    salt, nonce = random.token_bytes(SALT_BYTES), random.token_bytes(NONCE_BYTES)
    ciphertext = AESGCM(_derive(passphrase, salt, COST, PARALLELISM)).encrypt(nonce, content, bound_to)
    return SealedSecrets(
        kdf="scrypt",
        n=COST,
        r=BLOCK_SIZE,
        p=PARALLELISM,
        salt=_encode(salt),
        cipher="AES-256-GCM",
        nonce=_encode(nonce),
        ciphertext=_encode(ciphertext),
    )


def decrypt(sealed: SealedSecrets, passphrase: str, bound_to: bytes) -> bytes:
    """Return what was encrypted, or raise CannotUnseal."""
    if sealed.n not in ALLOWED_COSTS or sealed.r != BLOCK_SIZE or not 1 <= sealed.p <= 2 * PARALLELISM:
        raise CannotUnseal
    try:
        salt, nonce, ciphertext = map(_decode, (sealed.salt, sealed.nonce, sealed.ciphertext))
        if len(nonce) != NONCE_BYTES or len(salt) != SALT_BYTES:
            raise CannotUnseal
        return AESGCM(_derive(passphrase, salt, sealed.n, sealed.p)).decrypt(nonce, ciphertext, bound_to)
    except (InvalidTag, binascii.Error):
        raise CannotUnseal from None


def _derive(passphrase: str, salt: bytes, cost: int, parallelism: int) -> bytes:
    typed = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "replace")  # the same on every keyboard
    return Scrypt(salt, KEY_BYTES, cost, BLOCK_SIZE, parallelism).derive(typed)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
