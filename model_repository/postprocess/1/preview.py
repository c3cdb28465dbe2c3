"""A picture of the result: the photograph, the textured face from three sides, and below them the bare shape.

    photograph          | front | three-quarter | profile     with the texture
    the shape laid over | front | three-quarter | profile     without

Every pixel is a ray that Embree follows to the mesh; texture and normals are interpolated where it lands, so that the
picture is as sharp as the texture. Lengths are decimetres; x right, y up, z to the viewer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
# Columns and rows of a panel (of its rays) to origins and directions.
Rays = Callable[[F32, F32], tuple[F32, F32]]

PANEL = 320
GUTTER = 12
# Rays per pixel and side: smooths outlines.
OVERSAMPLING = 2
# A larger texture would only flicker.
TEXTURE_SIDE = PANEL * OVERSAMPLING
# The camera of the face model's family: 10 dm before the origin, focal length 1015 and centre 112 in pixels of 224.
DISTANCE, FOCAL, CENTRE, CROP = 10.0, 1015.0, 112.0, 224
# How much of a panel the face fills.
FILL = 0.86
THREE_QUARTER, PROFILE = 38.0, 85.0
# sRGB greys: the page, and the wall behind a face from top to bottom.
PAGE, WALL_TOP, WALL_BOTTOM = 0.985, 0.955, 0.855

# Lights of the bare shape: direction to the light (view frame) and strength; a soft key from the upper left.
_LIGHTS = (((-0.45, 0.60, 0.66), 0.74), ((0.80, 0.10, 0.59), 0.24), ((0.0, -0.85, 0.52), 0.08))
_AMBIENT, _CLAY = 0.13, (0.80, 0.775, 0.75)
_SHINE, _GLOSS = 0.10, 24.0
# The texture carries the light of the photograph already; a little shade keeps the form readable from the side.
_TEXTURE_AMBIENT, _TEXTURE_KEY = 0.80, 0.24


@dataclass(frozen=True)
class Seen:
    """What the rays of a panel met, in the order of ``pixels``.

    Attributes:
        side: rays along each side of the panel.
        pixels: int [n], flat index of each ray that met the surface.
        normals: float32 [n, 3] unit, in the frame of the view.
        uv: float32 [n, 2].
        light: float32 [n].
        part: int [n], which of the mesh's pictures the ray landed on.
    """

    side: int
    pixels: NDArray[np.intp]
    normals: F32
    uv: F32
    light: F32
    part: NDArray[np.intp]


@dataclass(frozen=True)
class Painted:
    """A mesh of M places and F triangles with pictures on it.

    Attributes:
        vertices: float32 [M, 3], decimetres.
        normals: float32 [M, 3], unit.
        uv: float32 [M, 2] in 0..1, v up.
        light: float32 [M] 0..1, linear light that reaches a place.
        triangles: int32 [F, 3].
        part: int [F], which picture a triangle shows.
        pictures: uint8 [rows, cols, 3] each, sRGB; row 0 is v = 1.
    """

    vertices: F32
    normals: F32
    uv: F32
    light: F32
    triangles: NDArray[np.int32]
    part: NDArray[np.intp]
    pictures: tuple[U8, ...]


class Scene:
    """A face that can be looked at."""

    def __init__(self, painted: Painted) -> None:
        """Build the tree that rays follow."""
        self._painted = painted
        vertices = painted.vertices
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(vertices, np.float32), painted.triangles)
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        self._middle = (low + high) / 2
        self._extent = float(max(high - low)) or 1.0

    def from_side(self, degrees: float, panel: int) -> Seen:
        """Look from the front at the head turned by ``degrees`` about its vertical; positive turns the nose right."""
        side = panel * OVERSAMPLING
        a = np.radians(degrees)
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]], np.float32)
        step = self._extent / FILL / side

        def rays(cols: F32, rows: F32) -> tuple[F32, F32]:
            x, y = (cols + 0.5 - side / 2) * step, (side / 2 - rows - 0.5) * step
            eye = np.array([0, 0, DISTANCE], np.float32)
            towards = np.column_stack([x, y, np.full_like(x, -DISTANCE)])
            return np.tile(eye @ turn + self._middle, (len(x), 1)), towards @ turn

        return self._look(rays, side, turn)

    def from_camera(self, panel: int, placement: tuple[float, float, float, float]) -> Seen:
        """Look as the photograph did.

        ``placement`` is (sx, sy, ox, oy): a pixel of the panel is at
        col * sx + ox, row * sy + oy in the 224 crop.
        """
        side = panel * OVERSAMPLING
        sx, sy, ox, oy = placement

        def rays(cols: F32, rows: F32) -> tuple[F32, F32]:
            u = ((cols + 0.5) / OVERSAMPLING - 0.5) * sx + ox
            v = CROP - 1 - (((rows + 0.5) / OVERSAMPLING - 0.5) * sy + oy)
            towards = np.column_stack([(u - CENTRE) / FOCAL, (v - CENTRE) / FOCAL, np.full_like(u, -1)])
            return np.tile(np.array([0, 0, DISTANCE], np.float32), (len(u), 1)), towards

        return self._look(rays, side, np.eye(3, dtype=np.float32))

    def _look(self, rays: Rays, side: int, turn: F32) -> Seen:
        """Follow one ray in every fourth row and column, then all of them where those met something."""
        coarse = np.arange(1.5, side, 4, dtype=np.float32)
        met = self._run(rays, *(grid.ravel() for grid in np.meshgrid(coarse, coarse)))["primID"] >= 0
        near = cv2.dilate(met.reshape(len(coarse), -1).astype(np.uint8), np.ones((3, 3), np.uint8))
        inside = np.repeat(np.repeat(near, 4, axis=0), 4, axis=1)[:side, :side]
        pixels = np.flatnonzero(inside)
        hit = self._run(rays, (pixels % side).astype(np.float32), (pixels // side).astype(np.float32))
        kept = hit["primID"] >= 0
        painted, triangle = self._painted, hit["primID"][kept]
        corners = painted.triangles[triangle]
        u, v = hit["u"][kept], hit["v"][kept]
        weights = np.stack([1 - u - v, u, v], axis=1)
        normals = np.einsum("nk,nkc->nc", weights, painted.normals[corners]) @ turn.T
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        uv = np.einsum("nk,nkc->nc", weights, painted.uv[corners])
        light = np.einsum("nk,nk->n", weights, painted.light[corners])
        return Seen(side, pixels[kept], normals, uv, light, painted.part[triangle])

    def _run(self, rays: Rays, cols: F32, rows: F32) -> dict[str, NDArray[Any]]:
        origins, towards = rays(cols, rows)
        found: dict[str, NDArray[Any]] = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(towards, np.float32), output=1
        )
        return found


def page(posed: Painted, upright: Painted, turn: F32, context: F32, crop: U8) -> U8:
    """Draw the whole page.

    Args:
        posed: the mesh as in the picture.
        upright: the mesh that is shown from the sides.
        turn: float32 [3, 3], from the head's frame to the camera's: ``there = here @ turn``.
        context: float32 [23], the face and the cameras of both crops, as `align` gives them.
        crop: uint8 [3, 512, 512], the larger crop.

    Returns:
        uint8 [rows, cols, 3] RGB: two rows of four panels of PANEL pixels.
    """
    photograph = cv2.resize(crop.transpose(1, 2, 0), (PANEL, PANEL), interpolation=cv2.INTER_AREA)
    laid_over = Scene(posed).from_camera(PANEL, _placement(context, crop.shape[1]))
    top = [_u8(photograph)]
    bottom = [draw(laid_over, clay(laid_over), photograph)]
    scene = Scene(upright)
    side = 1.0 if turn[2, 0] >= 0 else -1.0  # the half that the camera saw
    for degrees in (0.0, side * THREE_QUARTER, side * PROFILE):
        seen = scene.from_side(degrees, PANEL)
        top.append(draw(seen, coloured(seen, upright.pictures), _wall()))
        bottom.append(draw(seen, clay(seen), _wall()))
    rows, cols = 2 * PANEL + 3 * GUTTER, 4 * PANEL + 5 * GUTTER
    sheet = np.full((rows, cols, 3), round(PAGE * 255), np.uint8)
    for i, panels in enumerate((top, bottom)):
        for k, panel in enumerate(panels):
            y, x = GUTTER + i * (PANEL + GUTTER), GUTTER + k * (PANEL + GUTTER)
            sheet[y : y + PANEL, x : x + PANEL] = panel
    return sheet


def draw(seen: Seen, colours: F32, background: NDArray[Any]) -> U8:
    """Draw float32 [n, 3] sRGB 0..1 over a background, uint8 [panel, panel, 3], averaged to pixels."""
    rays = cv2.resize(background, (seen.side, seen.side), interpolation=cv2.INTER_LINEAR).reshape(-1, 3)
    rays[seen.pixels] = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
    panel = (seen.side // OVERSAMPLING,) * 2
    return _u8(cv2.resize(rays.reshape(seen.side, seen.side, 3), panel, interpolation=cv2.INTER_AREA))


def clay(seen: Seen) -> F32:
    """Shade the bare shape as matt clay under three lights with a faint shine; float32 [n, 3] sRGB."""
    light = np.full(len(seen.normals), _AMBIENT, np.float32)
    for direction, strength in _LIGHTS:
        light += strength * np.maximum(seen.normals @ np.array(direction, np.float32), 0)
    key = np.array(_LIGHTS[0][0], np.float32)
    halfway = key / np.linalg.norm(key) + np.array([0, 0, 1], np.float32)
    shine = _SHINE * np.maximum(seen.normals @ (halfway / np.linalg.norm(halfway)), 0) ** _GLOSS
    linear = light[:, None] * np.array(_CLAY, np.float32) ** 2.2 + shine[:, None]
    return np.asarray(np.clip(linear, 0, 1) ** (1 / 2.2), np.float32)


def coloured(seen: Seen, pictures: tuple[U8, ...]) -> F32:
    """Sample the pictures where the rays met them, slightly shaded; float32 [n, 3] sRGB."""
    key = np.array(_LIGHTS[0][0], np.float32)
    shade = _TEXTURE_AMBIENT + _TEXTURE_KEY * np.maximum(seen.normals @ key, 0)
    shade *= seen.light ** np.float32(1 / 2.2)
    colours = np.zeros((len(seen.uv), 3), np.float32)
    for k, picture in enumerate(pictures):
        met = seen.part == k
        colours[met] = _sample(picture, seen.uv[met])
    return np.asarray(colours / np.float32(255) * shade[:, None], np.float32)


def _sample(picture: U8, uv: F32) -> U8:
    """Sample a picture at texture coordinates [n, 2], bilinear: uint8 [n, 3]."""
    rows, cols = picture.shape[:2]
    # remap wants coordinates in two dimensions, both below 32768.
    count, width = len(uv), 1024
    where = np.zeros((2, (count // width + 1) * width), np.float32)
    where[0, :count] = uv[:, 0] * cols - 0.5
    where[1, :count] = (1 - uv[:, 1]) * rows - 0.5
    x, y = where.reshape(2, -1, width)
    sampled = _u8(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return sampled.reshape(-1, 3)[:count]


def _wall() -> U8:
    ramp = np.linspace(WALL_TOP * 255, WALL_BOTTOM * 255, PANEL).round().astype(np.uint8)
    return np.broadcast_to(ramp[:, None, None], (PANEL, PANEL, 3)).copy()


def _placement(context: F32, size: int) -> tuple[float, float, float, float]:
    """Map a pixel of a panel that shows the large crop, by way of source pixels, to the 224 crop."""
    small, large = context[15:19].astype(float), context[19:23].astype(float)
    step = size / PANEL
    scale = step * large[:2] / small[:2]
    offset = ((0.5 * step - 0.5) * large[:2] + large[2:] - small[2:]) / small[:2]
    return float(scale[0]), float(scale[1]), float(offset[0]), float(offset[1])


def _u8(array: object) -> U8:
    """Cast: OpenCV's types say less than is known here, uint8 in, uint8 out."""
    return np.asarray(array, dtype=np.uint8)
