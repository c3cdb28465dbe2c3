"""The call of `fuse`: what may be asked for, how it is written, how its answer is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypedDict

import numpy as np

from face3d_client._errors import BadOption, ConsentRequired
from face3d_client._fusion import Fusion
from face3d_client._mesh.pictures import check_texture
from face3d_client._protocol.calls import Call, Parameter, Reply
from face3d_client._protocol.codec import as_parameter
from face3d_client._text import printable

__all__ = ["FuseOptions", "PictureFormat", "build_fuse", "parse_fuse"]

Whose: TypeAlias = Literal["target", "source"]
PictureFormat: TypeAlias = Literal["png", "jpeg"]

_OUTPUTS: Final = ("picture", "mask", "warnings")
LONGEST_CONSENT: Final = 500


class FuseOptions(TypedDict, total=False):
    """What may be asked of a fused picture. Left out or None means: as the server does by default.

    Attributes:
        source_face: which face of the source: a number in the order of score (the main one).
        target_face: which face of the target.
        shape: the shape between the target's (0) and the source's (1).
        eyes: whose eyes are seen.
        mouth: whose mouth is seen.
        picture_format: of the result, ``"png"`` or ``"jpeg"``.
        quality_mode: ``"short"``, ``"long"``, or ``"auto"``, which goes the short way where that is good enough.
        mark: whether a small label in a corner says that the face was edited (False).
        enhance: whether a source's face of few pixels is made sharper and cleaner by a network (False).
    """

    source_face: int | None
    target_face: int | None
    shape: float | None
    eyes: Whose | None
    mouth: Whose | None
    picture_format: PictureFormat | None
    quality_mode: Literal["auto", "short", "long"] | None
    mark: bool | None
    enhance: bool | None


def build_fuse(source: bytes, target: bytes, consent: str, options: FuseOptions) -> Call:
    """Build the call that puts the face of one picture file on another.

    Raises:
        ConsentRequired: the statement is empty.
        BadOption: it is longer than the server takes.
        TypeError: an option that does not exist.
    """
    if unknown := set(options) - set(FuseOptions.__annotations__):
        raise TypeError(
            f"no such option: {', '.join(sorted(unknown))}. There are: {', '.join(FuseOptions.__annotations__)}"
        )
    statement = " ".join(consent.split())
    if not statement:
        raise ConsentRequired("a fused picture needs a consent statement: say who agreed to it, and to what.")
    if len(statement) > LONGEST_CONSENT:
        raise BadOption(f"the consent statement has {len(statement)} characters: {LONGEST_CONSENT} are allowed.")
    parameters: dict[str, Parameter] = {"consent": statement}
    given: dict[str, Any] = dict(options)
    parameters |= {name: as_parameter(value) for name, value in given.items() if value is not None}
    pictures = {"source": source, "target": target}
    inputs = {name: np.array([data], dtype=np.object_) for name, data in pictures.items()}  # a pair, and no batch
    return Call("fuse", inputs, _OUTPUTS, parameters)


def parse_fuse(reply: Reply, sources: tuple[Path | None, ...] = ()) -> Fusion:
    """Wrap an answer of `fuse`.

    Args:
        reply: the answer.
        sources: the photographs' files, which no result is written over.

    Raises:
        BadResponse: picture or mask is neither PNG nor JPEG.
    """
    return Fusion(
        check_texture(bytes(reply["picture"][0])),
        check_texture(bytes(reply["mask"][0])),
        tuple(printable(bytes(text).decode("utf-8", "replace")) for text in reply["warnings"] if text),
        tuple(source for source in sources if source is not None),
    )
