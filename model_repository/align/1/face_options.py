"""What a request may say about the choice of a face."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from close_up import USUAL_TEXTURE
from face_rows import Refused

LARGEST_TEXTURE = 4096


@dataclass(frozen=True)
class Options:
    """What a request may say about the choice of a face.

    Attributes:
        score_threshold: faces below it do not count; None for the service's own.
        face: index among the faces that count, best score first; None for the main person's.
        box: (x1, y1, x2, y2) in source pixels: the face that overlaps most.
        roles: the same index for row 0 and for row 1 of a request of `fuse`, its source and its target.
        texture_size: side of the texture that is asked for, in texels; `postprocess` says what it may be.
    """

    score_threshold: float | None = None
    face: int | None = None
    box: tuple[float, float, float, float] | None = None
    roles: tuple[int | None, int | None] = (None, None)
    texture_size: int = USUAL_TEXTURE

    def for_row(self, row: int) -> Options:
        """The options for one row of a request."""
        role = self.roles[row] if row < len(self.roles) else None
        return self if role is None else replace(self, face=role)


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        Refused: ``BadOption``.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    threshold, face, box = given.get("score_threshold"), given.get("face"), given.get("box")
    if face is not None and box is not None:
        raise Refused("BadOption", "`face` and `box` both choose a face: give one of them.")
    return Options(
        None if threshold is None else _threshold(threshold),
        None if face is None else _index(face),
        None if box is None else _box(box),
        (_role(given, "source_face"), _role(given, "target_face")),
        _side(given.get("texture_size")),
    )


def _side(value: Any) -> int:
    """The side that is asked for; what cannot be meant counts as none, as it is `postprocess` that refuses it."""
    try:
        return min(max(int(value), 1), LARGEST_TEXTURE)
    except (TypeError, ValueError, OverflowError):
        return USUAL_TEXTURE


def _threshold(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise Refused("BadOption", f"`score_threshold` is {_shown(value)}: give a number from 0 to 1.")
    return number


def _role(given: dict[str, Any], name: str) -> int | None:
    return _index(given[name], name) if name in given else None


def _index(value: Any, name: str = "face") -> int:
    try:
        number = -1 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise Refused("BadOption", f"`{name}` is {_shown(value)}: give the index of a face, 0 for the best.")
    return number


def _box(value: Any) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in str(value).split(","))
    except ValueError:
        x1 = y1 = x2 = y2 = float("nan")
    if not (x2 > x1 and y2 > y1 and math.isfinite((x2 - x1) * (y2 - y1))):
        raise Refused("BadOption", f'`box` is {_shown(value)}: give "x1,y1,x2,y2" in pixels of the picture.')
    return x1, y1, x2, y2


def _shown(value: Any) -> str:
    return repr(value)[:40]
