"""Drawing of mesh, landmarks and box over the photograph."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from face3d_client._mesh.renderer import visible
from face3d_client._mesh.surface import Surface

__all__ = ["draw_overlay", "mesh_edges"]

_WIRE: Final = (80, 220, 255)
_POINT: Final = (255, 80, 60, 255)
_BOX: Final = (255, 200, 0, 255)


def draw_overlay(
    photograph: Image.Image,
    *,
    mesh: tuple[NDArray[np.floating[Any]], NDArray[np.int32]] | None = None,
    landmarks: NDArray[np.floating[Any]] | None = None,
    box: NDArray[np.floating[Any]] | None = None,
    scale: float = 1.0,
) -> Image.Image:
    """Draw on a copy of an upright photograph, RGB. Coordinates are in source pixels.

    Args:
        photograph: the source, or a scaled copy of it.
        mesh: projected places (M, 2) and the edges (E, 2) to draw, see `mesh_edges`.
        landmarks: (68, 2): a dot for each.
        box: x1, y1, x2, y2 (4,).
        scale: pixels of `photograph` per source pixel.
    """
    layer = Image.new("RGBA", photograph.size)
    pen = ImageDraw.Draw(layer)
    if mesh is not None:
        pixels, edges = mesh[0] * scale, mesh[1]
        wire = (*_WIRE, _opacity(pixels, edges))
        for start, end in edges:
            pen.line([tuple(pixels[start]), tuple(pixels[end])], fill=wire, width=1)
    # The marks' size follows the photograph's, so that they show on a small screen too.
    width = max(1, round(max(photograph.size) / 600))
    if landmarks is not None:
        for x, y in np.rint(landmarks * scale).astype(int).tolist():
            pen.ellipse([x - width, y - width, x + width, y + width], fill=_POINT)
    if box is not None:
        pen.rectangle([float(value) * scale for value in box], outline=_BOX, width=width)
    return Image.alpha_composite(photograph.convert("RGBA"), layer).convert("RGB")


def _opacity(pixels: NDArray[np.floating[Any]], edges: NDArray[np.int32]) -> int:
    """Choose the opacity of the lines, 0..255: lower on a small face, so that it shows between dense lines."""
    if len(edges) == 0:
        return 0
    length = float(np.median(np.linalg.norm(pixels[edges[:, 0]] - pixels[edges[:, 1]], axis=1)))
    return int(np.clip(25 * length, 30, 140))


def mesh_edges(
    surface: Surface, pixels: NDArray[np.floating[Any]], depth: NDArray[np.floating[Any]]
) -> NDArray[np.int32]:
    """Find the edges, each once, of the triangles and quads that the camera sees.

    Args:
        surface: the mesh.
        pixels: (M, 2) its projected places, y down.
        depth: (M,) their distances from the camera, mm.

    Returns:
        int32 (E, 2): place numbers.
    """
    faces = surface.faces
    # Corners 2 and 0 of the first half of a quad, and 0 and 1 of the second one, are its diagonal.
    diagonal = np.zeros((len(faces), 3), bool)
    begin = 0
    for part in surface.parts:
        diagonal[begin : begin + 2 * part.quads : 2, 2] = True
        diagonal[begin + 1 : begin + 2 * part.quads : 2, 0] = True
        begin += len(part.faces)
    seen = visible(pixels, depth, faces)
    edges = np.stack([faces[seen][:, [0, 1]], faces[seen][:, [1, 2]], faces[seen][:, [2, 0]]], 1)[~diagonal[seen]]
    unique: NDArray[np.int32] = np.unique(np.sort(edges, axis=1), axis=0).astype(np.int32)
    return unique
