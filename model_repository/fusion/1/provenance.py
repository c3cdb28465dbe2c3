"""Signs a fused picture: a C2PA manifest that says how it was made and who consented, and the same for readers of XMP.

The manifest follows the C2PA specification 2 (https://spec.c2pa.org/): the target was opened, the source placed, the
picture edited, with IPTC's digital source type. Nothing unsigned leaves: what was signed is read back and validated.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import c2pa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image
from source_type import COMPOSITE, with_source_type

CERTIFICATE, KEY = "FACE3D_FUSION_CERTIFICATE", "FACE3D_FUSION_KEY"
"""Environment variables that name the operator's files, both PEM: certificates, the signer's first, and its key."""

TIMESTAMPS: Final = "FACE3D_FUSION_TIMESTAMPS"
"""Environment variable with the address of a time-stamp authority (RFC 3161); without it there is no time stamp."""

CONSENT: Final = "internal.face3d.consent"
"""Label of the assertion with the consent statement. `internal` is the top-level domain that belongs to nobody."""

# Manifests are signed by certificates of the operator's choice: whom readers trust is theirs.
_ALLOWED_FAILURES: Final = frozenset({"signingCredential.untrusted"})
_SETTINGS: Final = {
    # Checked below, with reasons in words.
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_CURVES: Final = {256: b"es256", 384: b"es384", 521: b"es512"}
_AGENT: Final = {"name": "Face3D on Triton", "version": "fusion 1"}


class BadCredentials(Exception):
    """The certificate or the key cannot sign."""


class NotSigned(Exception):
    """A picture could not be signed, or its signature does not hold: it must not leave."""


@dataclass(frozen=True)
class Credentials:
    """What pictures are signed with.

    Attributes:
        certificate: PEM certificates, the signer's first, then those between it and its root.
        key: the signer's private key, PEM, without a password.
        authority: address of the time-stamp authority that stamps each signature; None for none.
    """

    certificate: bytes
    key: bytes
    authority: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the files that `CERTIFICATE` and `KEY` name, and the address in `TIMESTAMPS`.

        Raises:
            BadCredentials: a variable is not set, or a file cannot be read; what a file holds is never in the message.
        """
        certificate, key = (_read(environment, name) for name in (CERTIFICATE, KEY))
        return cls(certificate, key, environment.get(TIMESTAMPS) or None)

    def algorithm(self) -> bytes:
        """Return the name of the signature algorithm that belongs to the key.

        Raises:
            BadCredentials: the key cannot be read, or is of a kind that C2PA does not sign with.
        """
        try:
            key = load_pem_private_key(self.key, None)
        except (ValueError, TypeError):
            raise BadCredentials(f"the file that {KEY} names holds no private key in PEM without a password.") from None
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in _CURVES:
            return _CURVES[key.curve.key_size]
        if isinstance(key, rsa.RSAPrivateKey):
            return b"ps256"
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return b"ed25519"
        raise BadCredentials(f"the key that {KEY} names is of a kind that C2PA does not know: use an EC key (P-256).")


def _read(environment: Mapping[str, str], name: str) -> bytes:
    if not (path := environment.get(name)):
        raise BadCredentials(f"{name} names no file: results of fusion are signed, and that needs a certificate.")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadCredentials(f"{path}, which {name} names, cannot be read: {error.strerror}.") from None


@dataclass(frozen=True)
class Signed:
    """A picture that was signed.

    Attributes:
        picture: the file's bytes.
        manifest: the label of its manifest, ``urn:c2pa:...``; different for every picture.
    """

    picture: bytes
    manifest: str


class Signer:
    """Signs pictures with one certificate.

    Raises:
        BadCredentials: the certificate is not one that C2PA can sign with.
    """

    def __init__(self, credentials: Credentials) -> None:
        algorithm = credentials.algorithm()
        try:
            authority = None if credentials.authority is None else credentials.authority.encode()
            info = c2pa.C2paSignerInfo(algorithm, credentials.certificate, credentials.key, authority)
            self._signer = c2pa.Signer.from_info(info)
            self._context = c2pa.Context.from_dict(_SETTINGS)
            self.sign(_trial(), "image/png", "trial")
        except (c2pa.C2paError, NotSigned) as error:
            stamped = f", or {credentials.authority} ({TIMESTAMPS}) gave no time stamp" if credentials.authority else ""
            raise BadCredentials(
                f"the certificate that {CERTIFICATE} names cannot sign C2PA manifests{stamped}: {error}"
            ) from None

    def sign(self, picture: bytes, media_type: str, consent: str) -> Signed:
        """Embed manifest and XMP into a picture, and validate what was made.

        Args:
            picture: PNG or JPEG bytes, as an encoder has written them.
            media_type: ``image/png`` or ``image/jpeg``.
            consent: the statement, of `consent.consent_from`.

        Raises:
            NotSigned: the library could not sign, or what it signed is not valid (a certificate that has expired).
        """
        made = io.BytesIO()
        try:
            with c2pa.Builder.from_json(json.dumps(_manifest(media_type, consent)), context=self._context) as builder:
                builder.sign(self._signer, media_type, io.BytesIO(with_source_type(picture)), made)
            signed = made.getvalue()
            return Signed(signed, _valid_label(signed, media_type, self._context))
        except (c2pa.C2paError, ValueError) as error:
            raise NotSigned(f"the picture could not be signed: {error}") from error


def _trial() -> bytes:
    """Return a picture that is signed once at the start, so that a certificate that cannot sign is told then."""
    picture = io.BytesIO()
    Image.new("L", (1, 1)).save(picture, "PNG")
    return picture.getvalue()


def _manifest(media_type: str, consent: str) -> dict[str, Any]:
    """Build the manifest's definition.

    The two photographs are named and not enclosed: neither they nor pictures of them go into the result.
    """
    return {
        "claim_generator_info": [_AGENT],
        "title": "fused picture",
        "format": media_type,
        "ingredients": [
            {"label": "target", "title": "target photograph", "relationship": "parentOf"},
            {"label": "source", "title": "source photograph", "relationship": "componentOf"},
        ],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": _actions(), "allActionsIncluded": True}},
            {"label": CONSENT, "data": {"statement": consent}},
        ],
    }


def _actions() -> list[dict[str, Any]]:
    edited = {
        "action": "c2pa.edited",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "softwareAgent": _AGENT,
        "digitalSourceType": COMPOSITE,
        "description": "The face of the source photograph was put on the target photograph.",
    }
    return [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": ["target"]}},
        {"action": "c2pa.placed", "parameters": {"ingredientIds": ["source"]}},
        edited,
    ]


def _valid_label(picture: bytes, media_type: str, context: Any) -> str:
    """Return the label of the picture's manifest.

    Raises:
        NotSigned: a check of the manifest fails, other than whether its certificate is trusted.
    """
    with c2pa.Reader(media_type, io.BytesIO(picture), context=context) as reader:
        store = json.loads(reader.json())
    failures = store.get("validation_results", {}).get("activeManifest", {}).get("failure", ())
    codes = {failure["code"] for failure in failures} - _ALLOWED_FAILURES
    if codes or store.get("validation_state") not in ("Valid", "Trusted"):
        raise NotSigned(f"the signature does not hold: {', '.join(sorted(codes)) or store.get('validation_state')}")
    return str(store["active_manifest"])
