"""What a request may ask of `postprocess`, read from its parameters and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

POSES = ("canonical", "camera")
# Values of `pose` from before `expression` was an option: what each means.
_OLD_POSES = {"head": ("canonical", None), "neutral": ("canonical", "neutral")}
EXPRESSIONS = ("photo", "neutral")
MESHES = ("head", "face")
RIGS = ("none", "arkit")
FORMATS = ("png", "jpeg")
LIGHTS = ("photo", "albedo")
GLASSES = ("keep", "remove")
HAIR = ("skin", "paint")
SMALLEST_TEXTURE, LARGEST_TEXTURE = 64, 4096
STRONGEST_DETAIL = 2.0
MOST_LIKENESS = 2.0


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
        texture_size: side of the texture in pixels, as far as the photograph has the pixels for it; None: up to 1024.
        upscale: enhance a face of few pixels, whose texture has up to 1024 texels a side then.
        texture_light: ``photo``, as photographed, or ``albedo``: the light is taken out.
        detail: strength of the skin's relief, a normal map in the mesh; 0 for none.
        glasses: ``keep`` what the photograph shows of them, or ``remove`` them: filled like other covered skin.
        hair: of the scalp: ``skin``, or ``paint`` what the photograph shows of it.
        mesh: ``head`` or ``face``, the face alone.
        rig: ``arkit`` gives the mesh ARKit's 52 morph targets.
        expression: ``photo``, that of the photograph, or ``neutral``.
        pose: ``canonical`` (upright, in the head's frame) or ``camera`` (as in the picture).
        likeness: how far the mesh goes from the mean head: 1 as measured, 2 twice as far, 0 the mean head.
    """

    white_balance: bool = False
    sharpen: float = 0.3
    texture_format: str | None = None
    texture_size: int | None = None
    upscale: bool = False
    texture_light: str = "photo"
    detail: float = 0.0
    glasses: str = "keep"
    hair: str = "skin"
    mesh: str = "head"
    rig: str = "none"
    expression: str = "photo"
    pose: str = "canonical"
    likeness: float = 1.0


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
    return Options(**_without_old_poses(values))


def _without_old_poses(values: dict[str, Any]) -> dict[str, Any]:
    old = values.get("pose")
    if old not in _OLD_POSES:
        return values
    pose, expression = _OLD_POSES[old]
    if expression and values.get("expression", expression) != expression:
        raise Refused(
            "BadOption",
            f'`pose` "{old}" means `expression` "{expression}", but `expression` is "{values["expression"]}": '
            'give `pose` "canonical" or "camera".',
        )
    return {**values, "pose": pose, **({"expression": expression} if expression else {})}


def _boolean(value: Any) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _share(value: Any, most: float = 1.0) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ValueError
    return number


def _likeness(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= MOST_LIKENESS:
        raise ValueError
    return number


def _side(value: Any) -> int:
    number = int(value)
    if isinstance(value, (bool, float)) or not SMALLEST_TEXTURE <= number <= LARGEST_TEXTURE:
        raise ValueError
    return number


def _one_of(names: tuple[str, ...], value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return names[names.index(value.lower())]


_OPTIONS = (
    ("white_balance", _boolean, "true or false"),
    ("sharpen", _share, "a number from 0 to 1"),
    ("texture_format", lambda value: _one_of(FORMATS, value), "png or jpeg"),
    ("texture_size", _side, f"a whole number from {SMALLEST_TEXTURE} to {LARGEST_TEXTURE}"),
    ("upscale", _boolean, "true or false"),
    ("texture_light", lambda value: _one_of(LIGHTS, value), "photo or albedo"),
    ("detail", lambda value: _share(value, STRONGEST_DETAIL), f"a number from 0 to {STRONGEST_DETAIL:g}"),
    ("glasses", lambda value: _one_of(GLASSES, value), "keep or remove"),
    ("hair", lambda value: _one_of(HAIR, value), "skin or paint"),
    ("mesh", lambda value: _one_of(MESHES, value), "head or face"),
    ("rig", lambda value: _one_of(RIGS, value), "none or arkit"),
    ("expression", lambda value: _one_of(EXPRESSIONS, value), "photo or neutral"),
    ("pose", lambda value: _one_of((*POSES, *_OLD_POSES), value), "canonical or camera"),
    ("likeness", _likeness, f"a number from 0 to {MOST_LIKENESS:g}"),
)
