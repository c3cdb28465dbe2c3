"""Reads what a picture says about its own making: its C2PA manifest, by the package c2pa-python.

c2pa-python is an extra (``pip install face3d-client[provenance]``) and carries no types, so it is imported by name.
"""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast, get_args

from face3d_client._clips import is_clip
from face3d_client._errors import BadImage
from face3d_client._images import ImageSource, image_bytes

__all__ = ["CONSENT", "Manifest", "State", "read_manifest"]

State: TypeAlias = Literal["Trusted", "Valid", "Invalid"]
"""``Valid``: the picture is as it was signed. ``Trusted``: and the signer's certificate comes from a root that the
reader trusts. ``Invalid``: it was changed since, or the signature does not hold."""

# What the service calls the assertion with the consent statement; `internal` is a domain that belongs to nobody.
CONSENT: Final = "internal.face3d.consent"
_ACTIONS: Final = ("c2pa.actions", "c2pa.actions.v2")
# By how a file begins: at which byte, with what.
_MEDIA: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (8, b"WEBP", "image/webp"),
)
# Nothing is fetched because a picture says so.
_OFFLINE: Final = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


@dataclass(frozen=True)
class Manifest:
    """What a picture says about its making, and how far that can be believed.

    Attributes:
        label: of the manifest, ``urn:c2pa:...``; the server's log has it too.
        state: see `State`.
        failures: codes of the checks that failed, in C2PA's words; ``signingCredential.untrusted`` alone means that
            nobody told this reader to trust the signer.
        issuer: the organisation in the signer's certificate.
        consent: the statement that was given with the request. None: the picture was not fused here.
        source_type: IPTC's digital source type, a URI, of the last action that has one.
        actions: what was done, in order: ``c2pa.opened``, ``c2pa.placed``, ``c2pa.edited``.
        raw: the whole manifest store, as c2pa writes it in JSON.
    """

    label: str
    state: State
    failures: tuple[str, ...]
    issuer: str
    consent: str | None
    source_type: str | None
    actions: tuple[str, ...]
    raw: Mapping[str, Any]


def read_manifest(picture: ImageSource, *, trust: str | os.PathLike[str] | None = None) -> Manifest | None:
    """Read and check the active C2PA manifest of a PNG or JPEG file, or of a clip (MP4, MOV, WebP).

    Args:
        picture: a path, or the file's bytes; a clip by its path may have any size.
        trust: PEM file of the roots to trust. None: no signer is trusted.

    Returns:
        None where the picture has no manifest.

    Raises:
        BadImage: none of these, or its manifest cannot be read.
        ModuleNotFoundError: c2pa-python is not installed.
        OSError: a file cannot be read.
    """
    try:
        c2pa: Any = importlib.import_module("c2pa")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading a manifest needs c2pa-python: pip install 'face3d-client[provenance]'."
        ) from error
    with _opened(picture) as file:
        return _read(c2pa, file, trust)


def _opened(picture: ImageSource) -> BinaryIO:
    if isinstance(picture, (str, os.PathLike)) and is_clip(Path(picture)):
        return Path(picture).open("rb")
    return io.BytesIO(image_bytes(picture))


def _read(c2pa: Any, file: BinaryIO, trust: str | os.PathLike[str] | None) -> Manifest | None:
    start = file.read(16)
    file.seek(0)
    media = next((media for place, first, media in _MEDIA if start[place:].startswith(first)), None)
    if media is None:
        raise BadImage("only PNG, JPEG, MP4, MOV and WebP files are looked at for a manifest.")
    anchors = {} if trust is None else {"trust": {"trust_anchors": Path(trust).read_text(encoding="ascii")}}
    try:
        context = c2pa.Context.from_dict({**_OFFLINE, **anchors})
        reader = c2pa.Reader.try_create(media, file, context=context)
        if reader is None:
            return None
        with reader:
            return _manifest(json.loads(reader.json()))
    except (c2pa.C2paError, KeyError, TypeError, ValueError) as error:
        raise BadImage(f"the picture's manifest cannot be read: {error}.") from error


def _manifest(store: Mapping[str, Any]) -> Manifest:
    label = str(store["active_manifest"])
    active = store["manifests"][label]
    data = {entry["label"]: entry["data"] for entry in active.get("assertions", ())}
    actions = [action for name in _ACTIONS for action in data.get(name, {}).get("actions", ())]
    types = [str(action["digitalSourceType"]) for action in actions if "digitalSourceType" in action]
    failed = store.get("validation_results", {}).get("activeManifest", {}).get("failure", ())
    state = store.get("validation_state")
    consent = data.get(CONSENT, {}).get("statement")
    return Manifest(
        label=label,
        state=cast(State, state) if state in get_args(State) else "Invalid",
        failures=tuple(str(entry["code"]) for entry in failed),
        issuer=str(active.get("signature_info", {}).get("issuer", "")),
        consent=None if consent is None else str(consent),
        source_type=types[-1] if types else None,
        actions=tuple(str(action["action"]) for action in actions),
        raw=store,
    )
