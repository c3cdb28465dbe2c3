"""Renderer of a textured, lit mesh in NumPy; it needs no GPU and no window.

Every step is one operation on all triangles or all pixels, fast enough for a slider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._mesh.surface import Surface

__all__ = ["Light", "View", "render", "visible"]

_DISTANCE: Final = 900.0  # mm between camera and face: a portrait's perspective
_FILL: Final = 0.9  # how much of the picture's side the head's longest extent takes
_BACKGROUND: Final = ((0.95, 0.95, 0.96), (0.82, 0.83, 0.85))  # behind the face, top and bottom, sRGB
_AMBIENT: Final = 0.45
_GAMMA: Final = 2.2
_CLAY: Final = (0.60, 0.57, 0.54)  # linear
_SHARPNESS: Final = 60  # exponent of a highlight: that of a wet eyeball is a few degrees wide
_LOOK: Final = 512  # pixels of the side at which `visible` looks
_TOLERANCE: Final = 3.0  # mm by which a triangle may lie behind another: less than a lip


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


@dataclass(frozen=True)
class View:
    """Where a mesh is looked at from, and how it is drawn.

    Attributes:
        yaw: degrees about the vertical axis; positive turns the face to the picture's right.
        pitch: degrees about the horizontal axis; positive turns the face up.
        clay: grey, without texture: for the shape.
        side: of the square picture in pixels.
        oversampling: rays per pixel and side; more make smoother outlines.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    clay: bool = False
    side: int = 420
    oversampling: float = 1.25

    def rotation(self) -> NDArray[np.float64]:
        """Return float64 (3, 3), from the head frame to the view's."""
        yaw, pitch = np.radians([self.yaw, -self.pitch])
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        rotation: NDArray[np.float64] = nod @ turn
        return rotation


def render(surface: Surface, view: View | None = None, light: Light | None = None) -> Image.Image:
    """Render a mesh, turned and lit.

    Args:
        surface: vertices in the head frame: mm, y up, facing +z.
        view: None: `View()`.
        light: stays where it is when the face turns. None: `Light()`.
    """
    look, lamp = view or View(), light or Light()
    rotation = look.rotation()
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    placed = (surface.vertices - (low + high) / 2) @ rotation.T
    depth = _DISTANCE - placed[:, 2]
    fine = round(look.side * look.oversampling)
    focal = fine * _FILL * _DISTANCE / float(max(high - low))
    pixels = np.stack([fine / 2 + focal * placed[:, 0] / depth, fine / 2 - focal * placed[:, 1] / depth], 1) - 0.5
    top, bottom = (np.array(colour) ** _GAMMA for colour in _BACKGROUND)
    wall = np.linspace(top, bottom, fine)[:, np.newaxis].repeat(fine, 1).reshape(-1, 3)
    nearest = np.full(fine * fine, np.inf)
    # What is seen through comes second, over what is behind it; of bare shape it is left out.
    blended = np.array([part.material.blended for part in surface.parts])[surface.part_of_face]
    for layer in (~blended,) if look.clay else (~blended, blended):
        chosen = np.flatnonzero(layer)
        both = np.array([part.material.double_sided for part in surface.parts])[surface.part_of_face[chosen]]
        seen, triangles, corners = _rasterise(pixels, depth, surface.faces[chosen], fine, both)
        far = np.einsum("nc,nc->n", corners, depth[surface.faces[chosen][triangles]])
        near = far < nearest[seen]
        seen, triangles, corners = seen[near], chosen[triangles[near]], corners[near]
        nearest[seen] = far[near]
        colours, alpha = _shaded(surface, triangles, corners, look, lamp)
        wall[seen] += alpha[:, np.newaxis] * (colours - wall[seen])
    # Light adds up in linear numbers; the picture's are sRGB.
    shown = np.clip(wall, 0, 1).reshape(fine, fine, 3) ** (1 / _GAMMA)
    picture = Image.fromarray((shown * 255 + 0.5).astype(np.uint8))
    return picture.resize((look.side, look.side), Image.Resampling.BOX)


def _shaded(
    surface: Surface, triangles: NDArray[np.intp], corners: NDArray[np.float64], view: View, light: Light
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light the surface at barycentric weights (M, 3) of triangles (M,): linear colours (M, 3), opacity (M,) 0..1."""
    faces = surface.faces[triangles]
    normals = np.einsum("nc,nck->nk", corners, (surface.normals @ view.rotation().T)[faces])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    normals *= np.where(normals[:, 2:] < 0, -1, 1)  # the back of a sheet that is seen from both sides
    toward = light.toward()
    shade = _AMBIENT + (1 - _AMBIENT) * light.strength * np.maximum(normals @ toward, 0)
    half = toward + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    gloss = np.array([_gloss(part.material.roughness) for part in surface.parts])[surface.part_of_face[triangles]]
    shine = gloss * light.strength * np.maximum(normals @ half, 0) ** _SHARPNESS
    if view.clay:
        colours, alpha = np.broadcast_to(_CLAY, (len(faces), 3)), np.ones(len(faces))
    else:
        atlas = surface.atlas
        texels = _sample(np.asarray(atlas.picture), np.einsum("nc,nck->nk", corners, atlas.uv[faces]))
        colours = texels[:, :3] ** _GAMMA * np.einsum("nc,nck->nk", corners, atlas.tints[faces])
        alpha = texels[:, 3] if texels.shape[1] == 4 else np.ones(len(faces))
    return colours * shade[:, np.newaxis] + shine[:, np.newaxis], alpha


def _gloss(roughness: float) -> float:
    """Choose the strength of the highlight: wet eyes shine, skin and what is rougher does not."""
    return 0.5 * max(0.0, 1 - 2 * roughness)


def visible(
    pixels: NDArray[np.floating[Any]], depth: NDArray[np.floating[Any]], faces: NDArray[np.int32]
) -> NDArray[np.intp]:
    """Find the triangles (V,) that face the camera and lie behind nothing.

    Args:
        pixels: (N, 2) column and row of the vertices.
        depth: (N,) mm from the camera.
        faces: (F, 3), clockwise where y points down.
    """
    low, high = pixels.min(0), pixels.max(0)
    small = (pixels - low) * ((_LOOK - 1) / max(float(max(high - low)), 1e-9))
    first, second, third = (small[faces[:, corner]] for corner in range(3))
    front = np.flatnonzero(_cross(second - first, third - first) < 0)
    seen, triangles, corners = _rasterise(small, depth, faces, _LOOK)
    nearest = np.full(_LOOK * _LOOK, np.inf)
    nearest[seen] = np.einsum("nc,nc->n", corners, depth[faces[triangles]])
    column, row = np.rint(small[faces[front]].mean(1)).astype(np.intp).T
    hidden = depth[faces[front]].mean(1) > nearest[row * _LOOK + column] + _TOLERANCE
    seen_triangles: NDArray[np.intp] = front[~hidden]
    return seen_triangles


def _rasterise(
    pixels: NDArray[np.floating[Any]],
    depth: NDArray[np.floating[Any]],
    faces: NDArray[np.int32],
    side: int,
    both: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Find the nearest triangle at each pixel.

    Args:
        pixels: (N, 2) column and row of the vertices, pixel centres at integers.
        depth: (N,) distance from the camera.
        faces: (F, 3), clockwise where y points down.
        side: of the picture.
        both: (F,) which are seen from behind too. None: none.

    Returns:
        flat numbers of the M pixels that show something, the triangle (M,) and the barycentric weights (M, 3) there.
    """
    first, second, third = (pixels[faces[:, corner]] for corner in range(3))
    area = _cross(second - first, third - first)
    corners = np.stack([first, second, third])
    low = np.clip(np.ceil(corners.min(0)), 0, side).astype(np.intp)
    high = np.clip(np.floor(corners.max(0)) + 1, 0, side).astype(np.intp)
    width, height = np.maximum(high - low, 0).T
    front = area < 0 if both is None else (area < 0) | (both & (area > 0))
    counts = np.where(front, width * height, 0)
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


def _cross(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product


def _sample(texture: NDArray[np.uint8], uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample colours 0..1 (M, 3), or (M, 4) with alpha, of a texture whose row 0 is at v = 1, bilinearly."""
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
