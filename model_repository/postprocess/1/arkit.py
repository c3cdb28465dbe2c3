"""Apple's 52 face-tracking shapes as combinations of the head model's expressions.

Names: Apple's ARKit documentation, ``ARFaceAnchor.BlendShapeLocation``; ``Left`` and ``Right`` are the person's own.
ICT-FaceKit names its shapes after them: ``_L`` and ``_R`` for sides, and a side each where Apple has one for both.
"""

from __future__ import annotations

import numpy as np
from head import F32, Head

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


def shapes(head: Head) -> F32:
    """Compute each shape's displacement at full weight, [52, N, 3] float32 decimetres, in the order of `NAMES`."""
    slot = {name: k for k, name in enumerate(head.expression_names) if name}
    out = np.zeros((len(NAMES), *head.tongue_out.shape), np.float32)
    for row, (name, parts) in zip(out, EXPRESSIONS.items(), strict=True):
        for part in parts:
            row += head.expression[slot[part]]
        if name == TONGUE_OUT:
            row += head.tongue_out
    return out


def weights(head: Head, expression: F32) -> F32:
    """Find the ARKit weights [52], each within 0..1, nearest to expression coefficients [64].

    Where one shape of Apple's adds up two sides, its weight is their mean. Expressions that Apple does not have
    (``cheekRaiser``) and what lies outside of 0..1 are lost: a recorded face keeps them in its neutral shape or not at
    all.
    """
    slot = {name: k for k, name in enumerate(head.expression_names) if name}
    found = [np.mean([expression[slot[part]] for part in parts]) if parts else 0.0 for parts in EXPRESSIONS.values()]
    return np.clip(np.array(found, np.float32), 0, 1)
