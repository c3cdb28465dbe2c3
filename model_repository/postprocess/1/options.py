"""What a request may ask of `postprocess`, read from its parameters and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# Which of the regressor's three shapes goes into the mesh.
POSES = ("camera", "head", "neutral")
FORMATS = ("png", "jpeg")
SMALLEST_TEXTURE, LARGEST_TEXTURE = 64, 2048


class Refused(Exception):
    """A request that cannot be served.

    Attributes:
        tag: the name of the client's exception: ``BadOption``, ``BadFace`` or ``FaceModelMismatch``; or ``BadTensor``
            for what only callers of this model alone can send.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


@dataclass(frozen=True)
class Options:
    """The options of a request.

    Attributes:
        white_balance: take the colour of the light out of the texture.
        sharpen: strength of the unsharp mask, 0 to 1.
        texture_format: ``png`` or ``jpeg`` for both the texture file and the one in the mesh; None for a PNG file and
            a JPEG in the mesh, which halves the mesh without a visible difference.
        texture_size: side of the texture in pixels.
        pose: ``head`` (upright, with the expression), ``camera`` (as in the picture), ``neutral`` (upright, no
            expression).
    """

    white_balance: bool = False
    sharpen: float = 0.3
    texture_format: str | None = None
    texture_size: int = 512
    pose: str = "head"


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        Refused: ``BadOption`` with the option's name, what was given, and what may be.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    values: dict[str, Any] = {}
    for name, read, may_be in _OPTIONS:
        if name in given:
            try:
                values[name] = read(given[name])
            except (TypeError, ValueError, KeyError, OverflowError):  # int(inf) is the last
                raise Refused("BadOption", f"`{name}` is {given[name]!r:.40}: give {may_be}.") from None
    return Options(**values)


def _boolean(value: Any) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _share(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError
    return number


def _side(value: Any) -> int:
    number = int(value)
    if isinstance(value, (bool, float)) or not SMALLEST_TEXTURE <= number <= LARGEST_TEXTURE:
        raise ValueError
    return number


def _one_of(names: tuple[str, ...], value: Any) -> str:
    return names[names.index(str(value).lower())]


_OPTIONS = (
    ("white_balance", _boolean, "true or false"),
    ("sharpen", _share, "a number from 0 to 1"),
    ("texture_format", lambda value: _one_of(FORMATS, value), "png or jpeg"),
    ("texture_size", _side, f"a whole number from {SMALLEST_TEXTURE} to {LARGEST_TEXTURE}"),
    ("pose", lambda value: _one_of(POSES, value), "head, camera or neutral"),
)
