"""The certificate by which results of fusion are signed: the operator's, or a test one that is made here.

`python -m server.signing FOLDER` makes a test certificate that stays: name its files with --fusion-certificate and
--fusion-key, and let whoever shall trust it have its root. It says of itself that it is a test one, and nobody trusts
it who was not told to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFICATE, KEY, ROOT = "certificate.pem", "key.pem", "root.pem"
ORGANIZATION: Final = "Face3D TEST certificate, do not trust"

_DAYS: Final = 90
# A clock that is behind this one's must not find the certificate not yet valid.
_SLACK: Final = timedelta(hours=1)
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class SigningFiles:
    """Where certificate and key lie.

    Attributes:
        certificate: PEM certificates, the signer's first.
        key: the signer's private key, PEM, without a password.
    """

    certificate: Path
    key: Path


def make_test_certificate(folder: Path) -> SigningFiles:
    """Write a root, and a certificate of its with its key, into a folder; the root's key is thrown away.

    They fit C2PA's profile: a certificate that did not sign itself, for digital signatures, with an extended usage that
    readers take (https://spec.c2pa.org/, Trust Model). Valid for 90 days.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name("test root"), _name("test signer")
    root = (
        _certificate(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    signer = (
        _certificate(name, root_name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    (folder / ROOT).write_bytes(root.public_bytes(Encoding.PEM))
    (folder / CERTIFICATE).write_bytes(signer.public_bytes(Encoding.PEM))
    (folder / KEY).touch(mode=0o600)
    (folder / KEY).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return SigningFiles(folder / CERTIFICATE, folder / KEY)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Face3D {common}"),
        ]
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """``FOLDER``: make a test certificate there; 2 and a sentence when it cannot be made."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) != 1 or words[0].startswith("-"):
        print("usage: python -m server.signing FOLDER", file=sys.stderr)
        return 2
    folder = Path(words[0])
    if (folder / KEY).exists():
        print(f"error: {folder / KEY} is there already: name another folder.", file=sys.stderr)
        return 2
    try:
        made = make_test_certificate(folder)
    except OSError as error:
        print(f"error: {folder} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    print(f"--fusion-certificate {made.certificate} --fusion-key {made.key}")
    print(f"who shall trust it: {folder / ROOT} (valid for {_DAYS} days; a test certificate)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
