"""Private authorities and self-signed certificates in MAIL_CA_FILE, as operators make them with the openssl command."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from portal.mail_servers.smtp.client import AuthMode, Encryption, SmtpSettings, send
from portal.mail_servers.smtp.outcome import ReplyKind, advice_for
from tests.mail_servers.example_message import ANN, SENDER, message
from tests.smtp_peer import LOCAL, SmtpPeer


def certificate_for(
    name: str, key: EllipticCurvePrivateKey, signed_with: EllipticCurvePrivateKey, *extensions: x509.ExtensionType
) -> x509.Certificate:
    """Return a certificate of the private authority with these extensions."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Private CA")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signed_with, SHA256())


@pytest.fixture(scope="module")
def authority_by_openssl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, trustme.LeafCert]:
    """An authority as of `openssl req -x509`, which has no key usage, and a certificate as of `openssl x509 -req`.

    `openssl x509 -req` before OpenSSL 3.2 writes no authority key identifier.
    """
    ca_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = certificate_for(
        "Private CA",
        ca_key,
        ca_key,
        identifier,
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
        x509.BasicConstraints(ca=True, path_length=None),
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    server = certificate_for("127.0.0.1", key, ca_key, names)
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    file.write_bytes(ca.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return file, trustme.LeafCert(private, server.public_bytes(Encoding.PEM), [])


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, trustme.LeafCert]:
    """A certificate that signs itself, as of `openssl req -x509 -addext subjectAltName=…`, and its file."""
    key = generate_private_key(SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    basic = x509.BasicConstraints(ca=True, path_length=None)
    own = certificate_for("Private CA", key, key, names, basic).public_bytes(Encoding.PEM)
    file = tmp_path_factory.mktemp("self-signed") / "server.pem"
    file.write_bytes(own)
    return file, trustme.LeafCert(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), own, [])


def test_a_self_signed_certificate_can_be_trusted(self_signed: tuple[Path, trustme.LeafCert]) -> None:
    file, certificate = self_signed
    with SmtpPeer(certificate=certificate) as peer:
        settings = SmtpSettings("127.0.0.1", peer.port, Encryption.STARTTLS, AuthMode.NONE, network_policy=LOCAL)
        unknown = send(settings, message(), SENDER, [ANN])[ANN]
        trusted = send(replace(settings, ca_file=file), message(), SENDER, [ANN])[ANN]
    assert (unknown.kind, trusted.kind) == (ReplyKind.SETTINGS, ReplyKind.ACCEPTED)
    assert "add it to the file that MAIL_CA_FILE names" in advice_for(unknown)


@pytest.mark.parametrize("encryption", [Encryption.STARTTLS, Encryption.TLS])
def test_an_authority_by_openssls_defaults_is_trusted_on_every_python(
    authority_by_openssl: tuple[Path, trustme.LeafCert], encryption: Encryption
) -> None:
    ca_file, certificate = authority_by_openssl
    with SmtpPeer(certificate=certificate, implicit_tls=encryption is Encryption.TLS) as peer:
        settings = SmtpSettings(
            "127.0.0.1", peer.port, encryption, AuthMode.NONE, network_policy=LOCAL, ca_file=ca_file
        )
        reply = send(settings, message(), SENDER, [ANN])[ANN]
    assert reply.kind is ReplyKind.ACCEPTED, reply
