"""Which cosine says "the same person", by how often it may be wrong about two different ones.

The figures are measured (`python -m training.evaluate_recognition`) and belong to an embedder; docs/guides/recognise.md
names the photographs.
"""

from __future__ import annotations

import math
from typing import Final

from face3d_client._errors import BadOption

__all__ = ["DEFAULT_FALSE_ACCEPTS", "threshold_for"]

DEFAULT_FALSE_ACCEPTS: Final = 1e-3
"""Part of the comparisons of two different people that may be taken for the same one."""
# False-accept rate -> cosine, of SFace: 404,100 comparisons of different people.
_MEASURED: Final = ((1e-2, 0.262), (1e-3, 0.334), (1e-4, 0.406))


def threshold_for(false_accepts: float, people: int = 1) -> float:
    """Return the smallest cosine that counts as the same person.

    Between the measured rates, and beyond them, the cosine is taken to be linear in the logarithm of the rate.

    Args:
        false_accepts: part of the answers about an unknown person that may be wrong, 1e-6..0.1.
        people: with how many enrolled people one is compared: each comparison gets a part of the rate.

    Raises:
        BadOption: another rate.
    """
    if not 1e-6 <= false_accepts <= 0.1:
        raise BadOption(f"false_accepts={false_accepts!r}: a rate from 0.000001 to 0.1 is needed.")
    place = -math.log10(false_accepts / max(1, people))
    (_, low), (_, middle), (_, high) = _MEASURED
    step = middle - low if place < 3 else high - middle
    return min(0.95, middle + step * (place - 3))
