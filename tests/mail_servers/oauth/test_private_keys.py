"""Private keys that administrators paste: which are taken, and that none of them keeps the portal busy."""

import base64
import datetime
import json
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flask import Flask

from portal.mail_servers.oauth.private_keys import parse_certificate, parse_service_account

RSA = bytes.fromhex("06092a864886f70d010101")
DIFFIE_HELLMAN = bytes.fromhex("06092a864886f70d010301")
UNKNOWN = bytes.fromhex("06092a864886f70d01017e")
CERTIFIED = rsa.generate_private_key(65537, 2048)


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def sequence(*numbers: int) -> bytes:
    return der(0x30, b"".join(der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers))


def pem(label: str, content: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n"


def huge_rsa_key() -> str:
    """Return a valid RSA key of 8676 bits, made from Mersenne's primes."""
    p, q = 2**4423 - 1, 2**4253 - 1
    d = pow(65537, -1, (p - 1) * (q - 1))
    values = (0, p * q, 65537, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return pem("RSA PRIVATE KEY", sequence(*values))


def diffie_hellman_key() -> str:
    prime = 2**4423 - 1
    kind = der(0x30, DIFFIE_HELLMAN + sequence(prime, 3))
    key = der(0x04, der(0x02, (prime // 3).to_bytes(553, "big")))
    return pem("PRIVATE KEY", der(0x30, der(0x02, b"\0") + kind + key))


def rsa_key(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "portal")])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=20)
    made = x509.CertificateBuilder(name, name, CERTIFIED.public_key(), 1, now, end).sign(CERTIFIED, hashes.SHA256())
    return made.public_bytes(Encoding.DER)


def with_public_key(content: bytes) -> bytes:
    """Return the certificate with this public key instead of its own."""
    made = certificate()
    own = CERTIFIED.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = x509.load_der_x509_certificate(made).tbs_certificate_bytes
    return der(0x30, der(0x30, signed[4:].replace(own, content)) + made[4 + len(signed) :])


def diffie_hellman_certificate() -> bytes:
    prime = 2**4423 - 1
    kind = der(0x30, DIFFIE_HELLMAN + sequence(prime, 3))
    return with_public_key(der(0x30, kind + der(0x03, b"\0" + der(0x02, (prime // 3).to_bytes(553, "big")))))


def key_file(key: str) -> str:
    return json.dumps({"type": "service_account", "client_email": "portal@acme.iam.example", "private_key": key})


@pytest.mark.parametrize("make", [huge_rsa_key, diffie_hellman_key])
def test_a_key_that_takes_long_to_check_is_not_checked(app: Flask, make: Callable[[], str]) -> None:
    key, began = make(), time.process_time()
    with app.test_request_context():
        for parse, text in (
            (parse_service_account, key_file(key)),
            (parse_certificate, pem("CERTIFICATE", certificate()) + key),
        ):
            with pytest.raises(ValueError, match="2048 to 4096 bits"):
                parse(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "make", [diffie_hellman_certificate, lambda: certificate().replace(RSA, UNKNOWN)], ids=["slow", "unknown"]
)
def test_a_certificate_for_another_kind_of_key_is_rejected(app: Flask, make: Callable[[], bytes]) -> None:
    key = CERTIFIED.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    made, began = make(), time.process_time()
    with app.test_request_context(), pytest.raises(ValueError, match="does not belong"):
        parse_certificate(pem("CERTIFICATE", made) + key)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "key", ["", "\ud800", "-----BEGIN PRIVATE KEY-----\n=A\n-----END PRIVATE KEY-----", rsa_key(1024)]
)
def test_what_is_no_usable_key_is_rejected(app: Flask, key: str) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match="2048 to 4096 bits"):
        parse_service_account(key_file(key))


def test_the_longest_key_is_taken_with_windows_line_ends(app: Flask) -> None:
    key = rsa_key(4096)
    with app.test_request_context():
        assert parse_service_account(key_file(key.replace("\n", "\r\n"))).private_key == key
