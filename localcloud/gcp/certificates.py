"""The certificates by which clients take this machine for Google: made at the first start, never older than a month."""

from __future__ import annotations

import os
import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = "certificates"  # in the folder of the state; a reset leaves it, as clients have read what is in it
# Of Google's services, and of the Airflows of Composer.
DOMAINS = ("googleapis.com", "composer.googleusercontent.com")
VALID = timedelta(days=30)
RENEWED = timedelta(days=10)  # before the end


@dataclass(frozen=True)
class Certificates:
    authority: Path  # what clients trust
    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs to be taken for Google, by HTTP/2 as well."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context


def certificates(state: Path) -> Certificates:
    """Those in the folder of a state, made anew if there are none or they are old."""
    folder = state / FOLDER
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not all(path.is_file() for path in (found.authority, found.chain, found.key)) or _old(found.chain):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        _make(found)
    return found


def _old(chain: Path) -> bool:
    """Near its end, or not for all that it must be for."""
    found = x509.load_pem_x509_certificate(chain.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    return datetime.now(UTC) > found.not_valid_after_utc - RENEWED or names != [f"*.{domain}" for domain in DOMAINS]


def _make(wanted: Certificates) -> None:
    """An authority and one certificate of its. Its key is forgotten at once, so that nobody can have it sign anything else."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "local cloud")])
    authority = (
        _begun(name, name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(domain) for domain in DOMAINS], None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAINS[0])]), name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}") for domain in DOMAINS]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(wanted.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    wanted.chain.write_bytes(server.public_bytes(Encoding.PEM))
    wanted.authority.write_bytes(authority.public_bytes(Encoding.PEM))


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509
        .CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
