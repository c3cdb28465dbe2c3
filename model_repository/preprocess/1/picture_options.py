"""What a request may say about its picture, read from its parameters and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from refusals import BadPicture
from tiles import GREATEST_FACE, LEAST_FACE

# Side of a texture up to which the working picture has all the pixels that count.
USUAL_TEXTURE = 1024


@dataclass(frozen=True)
class Options:
    """The options of a request.

    Attributes:
        fine: whether the picture is wanted at more than the working size.
        min_face: longer side in source pixels of the smallest faces that matter; 0 where nothing is said.
    """

    fine: bool = False
    min_face: float = 0.0


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        BadPicture: ``BadOption``.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    min_face = given.get("min_face")
    size = 0.0 if min_face is None else _face(min_face)
    return Options(size > 0 or _is_large(given.get("texture_size")), size)


def _is_large(value: Any) -> bool:
    """Whether a texture is larger than usual; what cannot be meant is left to `postprocess`, which refuses it."""
    try:
        return int(value) > USUAL_TEXTURE
    except (TypeError, ValueError, OverflowError):
        return False


def _face(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not LEAST_FACE <= number <= GREATEST_FACE:
        raise BadPicture(
            "BadOption", f"`min_face` is {value!r:.40}: give a number from {LEAST_FACE:g} to {GREATEST_FACE:g}."
        )
    return number
