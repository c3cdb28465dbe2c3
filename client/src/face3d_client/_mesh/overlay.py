"""The mesh and landmarks drawn over the photograph they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from face3d_client._results import Reconstruction

__all__ = ["draw_overlay"]

_WIRE: Final = (80, 220, 255)
_POINT: Final = (255, 80, 60, 255)
_BOX: Final = (255, 200, 0, 255)


def draw_overlay(
    result: Reconstruction,
    photograph: Image.Image,
    scale: float = 1.0,
    *,
    wireframe: bool,
    landmarks: bool,
    box: bool,
) -> Image.Image:
    """What `Reconstruction.overlay` says, on a photograph that may have been scaled.

    Args:
        result: what was made of it.
        photograph: upright.
        scale: its pixels per source pixel.
        wireframe: draw the triangles that face the camera.
        landmarks: draw the 68 landmarks.
        box: draw the face's box.
    """
    layer = Image.new("RGBA", photograph.size)
    pen = ImageDraw.Draw(layer)
    if wireframe:
        pixels = result.camera.project(result.vertices) * scale
        edges = front_edges(pixels, result.faces)
        wire = (*_WIRE, _strength(pixels, edges))
        for start, end in edges:
            pen.line([tuple(pixels[start]), tuple(pixels[end])], fill=wire, width=1)
    # Marks keep their size on the face, not on the paper, so that they show on a phone's picture too.
    width = max(1, round(max(photograph.size) / 600))
    if landmarks:
        for x, y in np.rint(result.landmarks * scale).astype(int).tolist():
            pen.ellipse([x - width, y - width, x + width, y + width], fill=_POINT)
    if box:
        pen.rectangle([float(value) * scale for value in result.box], outline=_BOX, width=width)
    return Image.alpha_composite(photograph.convert("RGBA"), layer).convert("RGB")


def _strength(pixels: NDArray[np.floating[Any]], edges: NDArray[np.int32]) -> int:
    """Opacity of the lines, 0..255: on a small face, where they lie side by side, the face must still show through."""
    if len(edges) == 0:
        return 0
    length = float(np.median(np.linalg.norm(pixels[edges[:, 0]] - pixels[edges[:, 1]], axis=1)))
    return int(np.clip(25 * length, 30, 140))


def front_edges(pixels: NDArray[np.floating[Any]], faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """The edges, each once, of the triangles that turn toward the camera.

    Args:
        pixels: (N, 2) projected vertices, y down.
        faces: (F, 3) triangles, counter-clockwise from outside (so clockwise in signed area where y points down).

    Returns:
        int32 (E, 2): vertex numbers.
    """
    first, second, third = (pixels[faces[:, corner]] for corner in range(3))
    to_second, to_third = second - first, third - first
    area = to_second[:, 0] * to_third[:, 1] - to_second[:, 1] * to_third[:, 0]
    front = faces[area < 0]
    edges = np.concatenate([front[:, [0, 1]], front[:, [1, 2]], front[:, [2, 0]]])
    unique: NDArray[np.int32] = np.unique(np.sort(edges, axis=1), axis=0).astype(np.int32)
    return unique
