"""Which values an input may hold, by the configuration: of others a graph fails, or answers nonsense in silence.

A parameter ``input_range.NAME`` gives the range of the input NAME, finite by that: ``low:high`` for all of its values,
or one range for each place along its last dimension, separated by commas, ``N*low:high`` for N places of the same. It
is this backend's own; the C++ backend leaves parameters that it does not know alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = "input_range."
_ENTRY = re.compile(r"(?:(\d+)\*)?([-+.\deE]+):([-+.\deE]+)")


@dataclass(frozen=True)
class InputRange:
    """The values of one input.

    Attributes:
        name: of the input.
        low, high: float64, one number for all values, or [n] for the n places of the last dimension.
    """

    name: str
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def parse(cls, name: str, text: str) -> InputRange:
        """Read the value of the parameter.

        Raises:
            ValueError: it is not of the form that the module describes, or a range is empty.
        """
        lows: list[float] = []
        highs: list[float] = []
        for entry in text.split(","):
            match = _ENTRY.fullmatch(entry.strip())
            if match is None:
                raise ValueError(f"'{entry.strip()}' is not 'low:high' or 'N*low:high'")
            low, high = float(match[2]), float(match[3])
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"'{entry.strip()}' is no range of finite numbers")
            lows += [low] * int(match[1] or 1)
            highs += [high] * int(match[1] or 1)
        if len(lows) == 1:
            return cls(name, np.array(lows[0]), np.array(highs[0]))
        return cls(name, np.array(lows), np.array(highs))

    def violation(self, value: NDArray[Any]) -> str | None:
        """Say which value is out of range; None where all are within."""
        if value.size == 0:
            return None
        # Written so that a NaN fails. A minimum and a maximum need no memory, unlike comparing each value.
        axes = None if self.low.ndim == 0 else tuple(range(value.ndim - 1))
        least, greatest = np.atleast_1d(value.min(axis=axes), value.max(axis=axes))
        low, high = np.atleast_1d(self.low, self.high)
        inside = (least >= low) & (greatest <= high)
        if inside.all():
            return None
        place = int(np.argmin(inside))
        wrong = greatest[place] if least[place] >= low[place] else least[place]
        where = f" at place {place} of its last dimension" if self.low.ndim else ""
        return f"input '{self.name}' holds {wrong:.6g}{where}, where it may hold {low[place]:g} to {high[place]:g}"


class InputRanges:
    """The ranges of a model's inputs.

    Args:
        config: the model configuration in Triton's JSON form.

    Raises:
        ValueError: a range cannot be read, is of no input, or has not as many places as its last dimension.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        last = {str(tensor["name"]): int(tensor["dims"][-1]) for tensor in config["input"]}
        self._ranges: list[InputRange] = []
        for key, entry in config.get("parameters", {}).items():
            if not key.startswith(PREFIX):
                continue
            name = key.removeprefix(PREFIX)
            if name not in last:
                raise ValueError(f"parameter '{key}' is of no input, only {sorted(last)} are.")
            try:
                found = InputRange.parse(name, str(entry.get("string_value", "")))
            except ValueError as error:
                raise ValueError(f"parameter '{key}': {error}.") from None
            if found.low.ndim and last[name] != found.low.size:
                raise ValueError(
                    f"parameter '{key}' has {found.low.size} ranges and the input's last dimension is {last[name]}: "
                    "give one range, or as many."
                )
            self._ranges.append(found)

    def violation(self, inputs: Mapping[str, NDArray[Any]]) -> str | None:
        """Say which value of a request is out of range; None where all are within."""
        found = (allowed.violation(inputs[allowed.name]) for allowed in self._ranges)
        return next((sentence for sentence in found if sentence is not None), None)
