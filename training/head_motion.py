"""Movements that the source lacks or has wrong: eyeballs that look, a tongue that comes out, jaws that stay still.

All lengths are centimetres of the source's frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.head_eyes import LOOK_DEGREES, WEIGHTS, Eye, give_way, look
from training.head_source import Source

Float = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

# What moves gums, tongue and teeth. Other shapes of the source shift some of their vertices by a constant fifth of a
# millimetre, which is an artefact.
_MOVES_JAW = ("jawForward", "jawLeft", "jawOpen", "jawRight")


def mend_expressions(source: Source, eyes: tuple[Eye, Eye]) -> F32:
    """The source's shapes (57, N, 3) with still jaws, and with eyeballs that look where the lids say and do not cut."""
    shapes = source.expression.copy()
    inner = source.vertices("gums", "tongue", "teeth_upper", "teeth_lower")
    for name, shape in zip(source.expression_names, shapes, strict=True):
        if name not in _MOVES_JAW:
            shape[inner] = 0
        shape[source.vertices("teeth_upper")] = 0
        for eye, suffix in zip(eyes, ("L", "R"), strict=True):
            shape[eye.vertices] = 0  # the source moves its inner iris only, which is left out
            stem, _, side = name.partition("_")
            if stem in LOOK_DEGREES and side == suffix:
                shape[eye.vertices] = look(eye, source.neutral, stem)
            moved = give_way(eye, source.neutral, shape)
            if moved > 0:
                cut = max(eye.gaps(source.neutral + w * shape).cut for w in WEIGHTS)
                print(f"{name}: the eyeball {suffix} gives way by {moved * 10:.2f} mm and is cut by {cut * 10:.2f} mm")
    return shapes


def _smoothstep(x: Float, low: float, high: float) -> Float:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def tongue_out(source: Source) -> F32:
    """ARKit's ``tongueOut`` (N, 3): over the lower teeth, past the lips and down. It is meant for an open jaw.

    The further a place lies from the root, the further it goes; where it passes the incisors it is lifted above their
    edges and flattened, beyond the lips it sinks. The jaw's own shape carries all of it, as it carries the teeth.
    """
    moved = np.zeros((len(source.neutral), 3), np.float32)
    vertices = source.vertices("tongue")
    rest = source.neutral[vertices]
    root, tip = 5.0, float(rest[:, 2].max())
    along = np.clip((rest[:, 2] - root) / (tip - root), 0, 1)
    z = rest[:, 2] + 4.4 * along**1.6
    middle = -3.85  # height of the tongue's middle at rest
    lift = 1.35 * _smoothstep(z, 7.6, 10.4) - 2.3 * _smoothstep(z, 11.2, 14.6)
    thin = 1 - 0.40 * _smoothstep(z, 8.0, 10.5)
    narrow = 1 - 0.12 * _smoothstep(z, 8.5, 11.0)
    place = np.stack([rest[:, 0] * narrow, middle + (rest[:, 1] - middle) * thin + lift, z], 1)
    hold = _smoothstep(along, 0.02, 0.35)[:, None]  # the root keeps to the floor of the mouth
    moved[vertices] = (place - rest) * hold
    return moved
