"""Private keys that administrators paste: a certificate with its key, and the key file of a service account."""

import json
import re
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from flask_babel import gettext

MAX_LENGTH: Final = 20_000  # characters
MIN_KEY_BITS: Final = 2048
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN ((?:RSA )?PRIVATE KEY)-----[^-]+-----END \1-----")


class CertificateWithKey(NamedTuple):
    """A certificate and its private key, as PEM."""

    certificate: str
    private_key: str
    expires_at: datetime


class ServiceAccountKey(NamedTuple):
    """The account and the private key in the key file of a Google service account."""

    client_email: str
    private_key: str


def parse_certificate(text: str) -> CertificateWithKey:
    """Return a certificate with its key; a ValueError says what is wrong with the text."""
    certificate_pem, key_pem = _CERTIFICATE.search(text), _PRIVATE_KEY.search(text)
    if certificate_pem is None or key_pem is None:
        raise ValueError(
            gettext("Paste the certificate and its private key, both in PEM format and without a password.")
        )
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem[0].encode())
    except ValueError:
        raise ValueError(gettext("The certificate is not readable.")) from None
    key = _load_key(key_pem[0])
    if certificate.public_key() != key.public_key():
        raise ValueError(gettext("The private key does not belong to the certificate."))
    return CertificateWithKey(certificate_pem[0], _pem(key), certificate.not_valid_after_utc)


def parse_service_account(text: str) -> ServiceAccountKey:
    """Return what a key file in JSON holds; a ValueError says what is wrong with the text.

    The URLs in it are not used: an assertion is sent to the token server of the portal's settings only.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("type") != "service_account":
        raise ValueError(gettext("Paste the whole key file of the service account, as it was downloaded (JSON)."))
    email, key = content.get("client_email"), content.get("private_key")
    if not (isinstance(email, str) and re.fullmatch(r"[\w.-]{1,100}@[\w.-]{1,150}", email) and isinstance(key, str)):
        raise ValueError(gettext("Paste the whole key file of the service account, as it was downloaded (JSON)."))
    return ServiceAccountKey(email, _pem(_load_key(key)))


def _load_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise ValueError(gettext("The private key is not readable. It must be an RSA key of at least 2048 bits."))
    return key


def _pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
