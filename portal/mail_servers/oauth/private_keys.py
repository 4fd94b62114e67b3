"""Private keys that administrators paste: a certificate with its key, and the key file of a service account."""

import base64
import json
import re
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import PublicKeyAlgorithmOID
from flask_babel import gettext

MAX_LENGTH: Final = 20_000  # characters
MIN_KEY_BITS: Final = 2048
# The library checks a key before it says what it is, and no other thread of the process runs meanwhile: 13 seconds for
# an RSA key of 8,700 bits, and 34 for a Diffie-Hellman key in this many characters.
MAX_KEY_LENGTH: Final = 3400  # characters: an RSA key of 4096 bits
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN ((?:RSA )?PRIVATE KEY)-----([^-]+)-----END \1-----")
# How an RSA key in PKCS #8 goes on after its length (RFC 5958, section 2; RFC 8017, appendix A.1).
_PKCS8_RSA: Final = bytes.fromhex("020100 300d 06092a864886f70d010101 0500")


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
        is_rsa = certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
        certified_key = certificate.public_key() if is_rsa else None
    except ValueError:
        raise ValueError(gettext("The certificate is not readable.")) from None
    key = _load_key(key_pem[0])
    if certified_key != key.public_key():
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


def _load_key(text: str) -> RSAPrivateKey:
    pem = _PRIVATE_KEY.search(text)
    try:
        key = _load_rsa_key(pem[1], pem[2]) if pem else None
    except ValueError:
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise ValueError(gettext("The private key is not readable. It must be an RSA key of 2048 to 4096 bits."))
    return key


def _load_rsa_key(label: str, content: str) -> object:
    """Return the key in a PEM text, or None if it surely is none that can be used."""
    if len(content) > MAX_KEY_LENGTH:
        return None
    der = base64.b64decode("".join(content.split()), validate=True)
    if label == "PRIVATE KEY" and der[4 : 4 + len(_PKCS8_RSA)] != _PKCS8_RSA:  # its length takes four bytes
        return None
    pem = f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"
    return load_pem_private_key(pem.encode(), password=None)


def _pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
