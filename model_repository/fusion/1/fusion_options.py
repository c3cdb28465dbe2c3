"""What a request may ask of a fusion, read from its parameters and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusion_refusals import Refused

SIDES = ("target", "source")
FORMATS = ("png", "jpeg")
QUALITIES = ("auto", "short", "long")


@dataclass(frozen=True)
class Options:
    """The options of a request.

    Attributes:
        shape: 0 for the target's features, 1 for the shape of the source's.
        eyes, mouth: whose eyes, and whose mouth's inside (the target's with lips, where expressions differ): ``target``
            or ``source``.
        picture_format: ``png`` or ``jpeg``.
        quality_mode: ``short``, ``long``, or ``auto``: as `effort.py` decides.
        mark: draw a label into the picture that says what it is.
        enhance: make the source's face sharper and cleaner where it has fewer pixels than the target's, or hardly more.
    """

    shape: float = 1.0
    eyes: str = "source"
    mouth: str = "target"
    picture_format: str = "png"
    quality_mode: str = "auto"
    mark: bool = False
    enhance: bool = False


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
            except (TypeError, ValueError, KeyError, OverflowError):
                raise Refused("BadOption", f"`{name}` is {given[name]!r:.40}: give {may_be}.") from None
    return Options(**values)


def _boolean(value: Any) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _share(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError
    return number


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return names[names.index(value.lower())]

    return read


_OPTIONS: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("shape", _share, "a number from 0 to 1"),
    ("eyes", _one_of(SIDES), "target or source"),
    ("mouth", _one_of(SIDES), "target or source"),
    ("picture_format", _one_of(FORMATS), "png or jpeg"),
    ("quality_mode", _one_of(QUALITIES), "auto, short or long"),
    ("mark", _boolean, "true or false"),
    ("enhance", _boolean, "true or false"),
)
