"""Types of numbers on command lines, for argparse: what is out of range is refused with a sentence."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

# What fits into the 32-bit integers of Triton's own options.
LARGEST = 2**31 - 1


def whole_number(low: int, high: int = LARGEST) -> Callable[[str], int]:
    """Make a type for whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a whole number from {low} to {high}")
        return value

    return read


def positive_number(high: float = 1e9) -> Callable[[str], float]:
    """Make a type for numbers above 0 and up to ``high``; infinity and NaN are none."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= high:
            raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a number above 0 and up to {high:g}")
        return value

    return read
