"""Renderer of a textured, lit face in NumPy; it needs no GPU and no window.

Every step is one operation on all triangles or all pixels, fast enough for a slider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._mesh.surface import Surface

__all__ = ["Light", "render"]

_OVERSAMPLING: Final = 1.25
_DISTANCE: Final = 900.0  # mm between camera and face: a portrait's perspective
_FILL: Final = 0.9  # how much of the picture's side the head's longest extent takes
_BACKGROUND: Final = ((0.95, 0.95, 0.96), (0.82, 0.83, 0.85))  # behind the face, top and bottom, sRGB
_AMBIENT: Final = 0.45
_GAMMA: Final = 2.2


@dataclass(frozen=True)
class Light:
    """A lamp far away.

    Attributes:
        side: degrees from the front, positive from the right of the picture, -90..90.
        height: degrees above the eyes, -90..90.
        strength: 0 leaves the ambient light alone, 1 is a usual lamp.
    """

    side: float = 20.0
    height: float = 30.0
    strength: float = 1.0

    def toward(self) -> NDArray[np.float64]:
        """Return the unit vector float64 (3,) from the face to the lamp."""
        side, height = np.radians([self.side, self.height])
        return np.array([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])


def render(surface: Surface, *, yaw: float = 0.0, light: Light | None = None, side: int = 420) -> Image.Image:
    """Render the face turned by `yaw` and lit.

    Args:
        surface: vertices in the head frame: mm, y up, facing +z.
        yaw: degrees about the vertical axis; positive turns the face to the picture's right.
        light: stays where it is when the face turns. None: `Light()`.
        side: of the square picture in pixels.
    """
    lamp = light or Light()
    fine = round(side * _OVERSAMPLING)
    turn = np.radians(yaw)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    placed = (surface.vertices - (low + high) / 2) @ rotation.T
    depth = _DISTANCE - placed[:, 2]
    focal = fine * _FILL * _DISTANCE / float(max(high - low))
    pixels = np.stack([fine / 2 + focal * placed[:, 0] / depth, fine / 2 - focal * placed[:, 1] / depth], 1) - 0.5
    seen, triangles, corners = _rasterise(pixels, depth, surface.faces, fine)

    top, bottom = (np.array(colour) for colour in _BACKGROUND)
    wall = np.linspace(top, bottom, fine)[:, np.newaxis].repeat(fine, 1).reshape(-1, 3)
    faces = surface.faces[triangles]
    normals = np.einsum("nc,nck->nk", corners, (surface.normals @ rotation.T)[faces])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    shade = _AMBIENT + (1 - _AMBIENT) * lamp.strength * np.maximum(normals @ lamp.toward(), 0)
    skin = _sample(np.asarray(surface.texture_image()), np.einsum("nc,nck->nk", corners, surface.uv[faces]))
    # Light adds up in linear numbers; the texture's are sRGB.
    wall[seen] = np.clip(skin**_GAMMA * shade[:, np.newaxis], 0, 1) ** (1 / _GAMMA)
    picture = Image.fromarray((wall.reshape(fine, fine, 3) * 255 + 0.5).astype(np.uint8))
    return picture.resize((side, side), Image.Resampling.BOX)


def _rasterise(
    pixels: NDArray[np.float64], depth: NDArray[np.float64], faces: NDArray[np.int32], side: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Find the nearest triangle at each pixel.

    Args:
        pixels: (N, 2) column and row of the vertices, pixel centres at integers.
        depth: (N,) distance from the camera.
        faces: (F, 3), clockwise where y points down.
        side: of the picture.

    Returns:
        flat numbers of the M pixels that show something, the triangle (M,) and the barycentric weights (M, 3) there.
    """
    first, second, third = (pixels[faces[:, corner]] for corner in range(3))
    area = _cross(second - first, third - first)
    corners = np.stack([first, second, third])
    low = np.clip(np.ceil(corners.min(0)), 0, side).astype(np.intp)
    high = np.clip(np.floor(corners.max(0)) + 1, 0, side).astype(np.intp)
    width, height = np.maximum(high - low, 0).T
    counts = np.where(area < 0, width * height, 0)
    # Every pixel of every triangle's bounding box at once, instead of a loop over triangles.
    triangle = np.repeat(np.arange(len(faces)), counts)
    place = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = low[triangle, 0] + place % np.maximum(width, 1)[triangle]
    row = low[triangle, 1] + place // np.maximum(width, 1)[triangle]
    point = np.stack([column, row], 1).astype(np.float64)
    weight_2 = _cross(point - first[triangle], (third - first)[triangle]) / area[triangle]
    weight_3 = _cross((second - first)[triangle], point - first[triangle]) / area[triangle]
    weights = np.stack([1 - weight_2 - weight_3, weight_2, weight_3], 1)
    inside = (weights >= -1e-9).all(1)
    triangle, weights, flat = triangle[inside], weights[inside], (row * side + column)[inside]
    far = np.einsum("nc,nc->n", weights, depth[faces[triangle]])
    # The nearest one is written last.
    order = np.argsort(-far, kind="stable")
    shown = np.full(side * side, -1, np.intp)
    shown[flat[order]] = order
    seen = np.flatnonzero(shown >= 0)
    return seen, triangle[shown[seen]], weights[shown[seen]]


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product


def _sample(texture: NDArray[np.uint8], uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample colours 0..1 (M, 3) of a texture whose row 0 is at v = 1, bilinearly."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, np.newaxis], (y - top)[:, np.newaxis]
    upper = texture[top, left] * (1 - across) + texture[top, right] * across
    lower = texture[bottom, left] * (1 - across) + texture[bottom, right] * across
    colours: NDArray[np.float64] = (upper * (1 - down) + lower * down) / 255.0
    return colours
