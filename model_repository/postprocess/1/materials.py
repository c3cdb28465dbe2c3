"""glTF's materials of a head, and the pictures that they need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from colours import MOUTH, TEETH, linear

SKIN, EYE, LASHES, RELIEF = "skin", "eye", "lashes", "skin_normal"

# Material -> roughness, picture (or None), factor of the colour. Eyes and teeth are wet, skin is matt with some shine.
MATERIALS: dict[str, tuple[float, str | None, tuple[int, int, int]]] = {
    "skin": (0.62, SKIN, (255, 255, 255)),
    "eye_left": (0.08, EYE, (255, 255, 255)),
    "eye_right": (0.08, EYE, (255, 255, 255)),
    "teeth": (0.25, None, TEETH),
    "mouth": (0.35, None, MOUTH),
    "lashes": (0.9, LASHES, (34, 26, 22)),
}
# The lashes' square holds six strips one above the other, root up: three of the upper lid, then three of the lower one.
# Of each: v of root and tip, number of strands, their length as a share of the strip, their strength.
_STRIPS = (
    (0.988, 0.848, 30, 0.95, 0.95),
    (0.822, 0.682, 26, 0.85, 0.85),
    (0.656, 0.516, 22, 0.75, 0.75),
    (0.486, 0.346, 18, 0.42, 0.55),
    (0.320, 0.180, 13, 0.34, 0.45),
)
_LASHES_SIDE = 256


def materials_of(names: Sequence[str], relief: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """List glTF's materials of these names, in their order, and the names of the pictures that textures 0, 1, ... show.

    ``relief``: the skin has a normal map, the last of the pictures.
    """
    pictures = list(dict.fromkeys(picture for name in names if (picture := MATERIALS[name][1])))
    pictures += [RELIEF] if relief else []
    materials = []
    for name in names:
        roughness, picture, colour = MATERIALS[name]
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": roughness}
        if picture:
            surface["baseColorTexture"] = {"index": pictures.index(picture)}
        if colour != (255, 255, 255):
            surface["baseColorFactor"] = [*linear(colour), 1.0]
        material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface}
        if name == SKIN:  # open at the neck
            material["doubleSided"] = True
            if relief:
                material["normalTexture"] = {"index": pictures.index(RELIEF)}
        if name == LASHES:  # sheets of hair, seen from both sides
            material |= {"alphaMode": "BLEND", "doubleSided": True}
        materials.append(material)
    return materials, pictures


@lru_cache(maxsize=1)
def lashes_png() -> bytes:
    """Draw a PNG file of lashes: white, their alpha strands that thin toward the tip."""
    side = _LASHES_SIDE
    rng = np.random.default_rng(4)
    alpha = np.zeros((side, side), np.float32)
    columns = np.arange(side)
    for root, tip, count, length, strength in _STRIPS:
        first, last = (1 - root) * side, (1 - tip) * side
        for start in np.linspace(5, side - 5, count) + rng.uniform(-3, 3, count):
            end = first + (last - first) * length * rng.uniform(0.75, 1.0)
            lean = rng.uniform(-6, 6)
            for row in range(int(first), int(end)):
                share = (row - first) / (end - first)
                width = 1.1 * (1 - share) + 0.25
                spread = np.clip(width + 0.5 - np.abs(columns - start - lean * share**2), 0, 1)
                alpha[row] = np.maximum(alpha[row], spread * strength * (1 - 0.5 * share))
    image = np.full((side, side, 4), 255, np.uint8)
    image[..., 3] = np.rint(alpha * 255)
    done, data = cv2.imencode(".png", image)
    assert done, "OpenCV cannot write png"
    return bytes(data)
