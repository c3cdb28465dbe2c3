"""glTF's materials of a head, and the pictures that they need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from colours import MOUTH, TEETH, linear

SKIN, EYE, LASHES = "skin", "eye", "lashes"

# Material -> roughness, picture (or None), factor of the colour. Eyes and teeth are wet, skin is matt with some shine.
MATERIALS: dict[str, tuple[float, str | None, tuple[int, int, int]]] = {
    "skin": (0.62, SKIN, (255, 255, 255)),
    "eye_left": (0.08, EYE, (255, 255, 255)),
    "eye_right": (0.08, EYE, (255, 255, 255)),
    "teeth": (0.25, None, TEETH),
    "mouth": (0.35, None, MOUTH),
    "lashes": (0.9, LASHES, (34, 26, 22)),
}
_LASHES_SIDE = (64, 256)  # rows from root to tip, columns


def materials_of(names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """GlTF's materials of these names, in their order, and the names of the pictures that textures 0, 1, ... show."""
    pictures = list(dict.fromkeys(picture for name in names if (picture := MATERIALS[name][1])))
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
        if name == LASHES:  # sheets of hair, seen from both sides
            material |= {"alphaMode": "BLEND", "doubleSided": True}
        materials.append(material)
    return materials, pictures


@lru_cache(maxsize=1)
def lashes_png() -> bytes:
    """A PNG file of lashes: white, their alpha strands that thin toward the tip (v = 1)."""
    rows, columns = _LASHES_SIDE
    rng = np.random.default_rng(4)
    alpha = np.zeros((rows, columns), np.float32)
    for root in np.linspace(4, columns - 4, 34) + rng.uniform(-2, 2, 34):
        length, lean = rng.uniform(0.6, 1.0) * rows, rng.uniform(-5, 5)
        for step in range(int(length)):
            share = step / length
            column = root + lean * share**2
            width = 1.5 * (1 - share) + 0.3
            spread = np.clip(width + 0.5 - np.abs(np.arange(columns) - column), 0, 1) * (1 - 0.35 * share)
            alpha[rows - 1 - step] = np.maximum(alpha[rows - 1 - step], spread)
    image = np.full((rows, columns, 4), 255, np.uint8)
    image[..., 3] = np.rint(alpha * 255)
    done, data = cv2.imencode(".png", image)
    assert done, "OpenCV cannot write png"
    return bytes(data)
