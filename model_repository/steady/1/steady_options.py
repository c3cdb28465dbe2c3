"""What a request may say about a clip, read from its parameters and checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

LOWEST_RATE, HIGHEST_RATE = 1.0, 240.0
"""Frames a second: a slow webcam's, and a telephone's slow motion."""
MOST_SMOOTHING = 2.0
"""Twice the usual smoothing: beyond it a blink is hardly seen."""


class Refused(Exception):
    """A request that cannot be served.

    Attributes:
        tag: the name of the client's exception: ``BadOption``; or ``BadTensor`` for what only callers of this model
            alone can send.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


@dataclass(frozen=True)
class Options:
    """The options of a request.

    Attributes:
        frame_rate: frames a second.
        smoothing: 0 to 2; 0 passes every frame as it is.
    """

    frame_rate: float = 30.0
    smoothing: float = 1.0


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        Refused: ``BadOption``.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    ranges = {"frame_rate": (LOWEST_RATE, HIGHEST_RATE), "smoothing": (0.0, MOST_SMOOTHING)}
    return Options(**{name: _number(name, given[name], *ranges[name]) for name in ranges if name in given})


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise Refused("BadOption", f"`{name}` is {value!r:.40}: give a number from {low:g} to {high:g}.")
    return number
