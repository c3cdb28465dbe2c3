"""Apple's 52 face-tracking shapes by the names of a head model's expressions, and their weights.

The source is deploy/configurations/shared/arkit_names.py; `make configs` copies it into the version folders that use
it. Names: Apple's ARKit documentation, ``ARFaceAnchor.BlendShapeLocation``; ``Left`` and ``Right`` are the person's
own. ICT-FaceKit names its shapes after them: ``_L`` and ``_R`` for sides, and a side each where Apple has one for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_SIDED = (
    "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp",
    "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch",
    "mouthUpperUp", "noseSneer",
)  # fmt: skip
_WHOLE = (
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel", "mouthLeft", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
_SUMMED = ("browInnerUp", "cheekPuff")  # one shape for both sides
TONGUE_OUT = "tongueOut"

# Apple's name -> the model's expressions that are added up for it; `tongueOut` has none.
EXPRESSIONS: dict[str, tuple[str, ...]] = dict(
    sorted(
        [(name + side, (f"{name}_{side[0]}",)) for name in _SIDED for side in ("Left", "Right")]
        + [(name, (name,)) for name in _WHOLE]
        + [(name, (f"{name}_L", f"{name}_R")) for name in _SUMMED]
        + [(TONGUE_OUT, ())]
    )
)
NAMES = tuple(EXPRESSIONS)


def slots(names: Sequence[str]) -> dict[str, int]:
    """Where each expression stands among the coefficients; ``""`` is an empty mode."""
    return {name: k for k, name in enumerate(names) if name}


def weights_of(names: Sequence[str], expression: F32) -> F32:
    """ARKit weights [52] nearest to expression coefficients [64], each within 0..1, in the order of `NAMES`.

    Where one shape of Apple's adds up two sides, its weight is their mean. Expressions that Apple does not have
    (``cheekRaiser``) and what lies outside of 0..1 are lost: a recorded face keeps them in its neutral shape or not at
    all.

    Args:
        names: of the 64 modes.
        expression: float32 [64].
    """
    slot = slots(names)
    found = [np.mean([expression[slot[part]] for part in parts]) if parts else 0.0 for parts in EXPRESSIONS.values()]
    return np.clip(np.array(found, np.float32), 0, 1)
