"""Signs a fused clip: a C2PA manifest by a certificate of the caller's, since the server signs only what it has made.

c2pa-python is an extra (``pip install face3d-client[provenance]``) and carries no types, so it is imported by name.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from face3d_client._provenance import CONSENT
from face3d_client._version import __version__

__all__ = ["ClipSigner"]

_MEDIA: Final = {".mp4": "video/mp4", ".mov": "video/quicktime", ".webp": "image/webp"}
_COMPOSITE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_CURVES: Final = {256: b"es256", 384: b"es384", 521: b"es512"}
_AGENT: Final = {"name": "Face3D client", "version": __version__}


class ClipSigner:
    """Signs clips with one certificate.

    Args:
        certificate: PEM file of certificates, the signer's first.
        key: PEM file of its private key, without a password.

    Raises:
        ModuleNotFoundError: c2pa-python is not installed.
        OSError: a file cannot be read.
        ValueError: certificate or key are none that C2PA signs with.
    """

    def __init__(self, certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> None:
        try:
            self._c2pa: Any = importlib.import_module("c2pa")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "signing a clip needs c2pa-python: pip install 'face3d-client[provenance]'."
            ) from error
        chain, secret = Path(certificate).read_bytes(), Path(key).read_bytes()
        info = self._c2pa.C2paSignerInfo(_algorithm(secret, Path(key)), chain, secret, None)
        try:
            self._signer = self._c2pa.Signer.from_info(info)
        except self._c2pa.C2paError as error:
            raise ValueError(f"{certificate} and {key} cannot sign: {error}.") from error

    def sign(self, clip: Path, consent: str) -> None:
        """Put a manifest into a clip, ``.mp4``, ``.mov`` or ``.webp``; it is replaced whole or not at all.

        Raises:
            ValueError: it could not be signed.
            OSError: it could not be written.
        """
        media = _MEDIA[clip.suffix.lower()]
        settings = self._c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        temporary = clip.with_name(f".face3d-{uuid.uuid4().hex}{clip.suffix.lower()}")
        manifest = json.dumps(_manifest(media, consent))
        try:
            with (
                self._c2pa.Builder.from_json(manifest, context=settings) as builder,
                clip.open("rb") as given,
                temporary.open("w+b") as made,
            ):
                builder.sign(self._signer, media, given, made)
            temporary.replace(clip)
        except self._c2pa.C2paError as error:
            raise ValueError(f"{clip} could not be signed: {error}.") from error
        finally:
            temporary.unlink(missing_ok=True)


def _algorithm(key: bytes, path: Path) -> bytes:
    """Return the name of the signature algorithm that belongs to a key."""
    kinds: Any = importlib.import_module("cryptography.hazmat.primitives.asymmetric")
    read: Any = importlib.import_module("cryptography.hazmat.primitives.serialization")
    for kind in ("ec", "rsa", "ed25519"):
        importlib.import_module(f"{kinds.__name__}.{kind}")
    try:
        found = read.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds no private key in PEM without a password.") from None
    if isinstance(found, kinds.ec.EllipticCurvePrivateKey) and found.curve.key_size in _CURVES:
        return _CURVES[found.curve.key_size]
    if isinstance(found, kinds.rsa.RSAPrivateKey):
        return b"ps256"
    if isinstance(found, kinds.ed25519.Ed25519PrivateKey):
        return b"ed25519"
    raise ValueError(f"{path} holds a key of a kind that C2PA does not know: use an EC key (P-256).")


def _manifest(media: str, consent: str) -> dict[str, Any]:
    """Say the same of a clip as the server says of a picture."""
    edited = {
        "action": "c2pa.edited",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "softwareAgent": _AGENT,
        "digitalSourceType": _COMPOSITE,
        "description": "The face of the source photograph was put on one person in the target clip.",
    }
    actions = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": ["target"]}},
        {"action": "c2pa.placed", "parameters": {"ingredientIds": ["source"]}},
        edited,
    ]
    return {
        "claim_generator_info": [_AGENT],
        "title": "fused clip",
        "format": media,
        "ingredients": [
            {"label": "target", "title": "target clip", "relationship": "parentOf"},
            {"label": "source", "title": "source photograph", "relationship": "componentOf"},
        ],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions, "allActionsIncluded": True}},
            {"label": CONSENT, "data": {"statement": " ".join(consent.split())}},
        ],
    }
