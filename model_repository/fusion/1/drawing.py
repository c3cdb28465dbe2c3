"""Draws the fused shape into the target's picture: not its colours, but where each pixel lies in either photograph.

The shape is rasterized over a grid, no finer than needed: what its cells show varies smoothly between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from beside import beside
from channels import mean_of, unit
from numpy.typing import NDArray
from photographs import DISTANCE, Photograph
from rasterizer import rasterized
from region import EYE, MOUTH, SKIN, Region
from scipy import ndimage

F32 = NDArray[np.float32]

# Share of the face's size that is drawn around it: blending and light need some of what is left.
MARGIN = 0.12
# What is interpolated over a triangle: places in source and target, texture, normals in the drawing and in the
# source's photograph, belonging to the face.
_COLUMNS = {"source": 2, "target": 2, "uv": 2, "normals": 3, "source_normals": 3, "from_mouth": 1, "inside": 1}


@dataclass(frozen=True)
class Window:
    """A part of a picture: whole cells of ``step`` pixels.

    Attributes:
        left, top: its first pixel; it may begin before the picture.
        step: pixels for a cell of the grid.
        columns, rows: cells.
    """

    left: int
    top: int
    step: int
    columns: int
    rows: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.columns * self.step, self.rows * self.step

    def centres(self) -> F32:
        """Where the cells' centres lie in the picture, float32 [rows * columns, 2]."""
        column = self.left + (np.arange(self.columns, dtype=np.float32) + 0.5) * self.step - 0.5
        row = self.top + (np.arange(self.rows, dtype=np.float32) + 0.5) * self.step - 0.5
        return np.stack([grid.ravel() for grid in np.meshgrid(column, row)], axis=1)

    def cells(self, points: F32) -> F32:
        """Column and row of the grid, float32 [n, 2], of places [n, 2] of the picture; the first centre is (0, 0)."""
        origin = np.array([self.left, self.top], np.float32)
        return np.asarray((points - origin + 0.5) / self.step - 0.5, np.float32)

    def enlarged(self, grid: F32) -> F32:
        """A map of the grid, float32 [rows, columns, ...], at the picture's resolution: [height, width, ...]."""
        if self.step == 1:
            return grid
        return np.asarray(cv2.resize(grid, self.size, interpolation=cv2.INTER_LINEAR), np.float32)

    def reduced(self, pixels: F32) -> F32:
        """A map at the picture's resolution, brought to the grid by means over cells."""
        if self.step == 1:
            return pixels
        return np.asarray(cv2.resize(pixels, (self.columns, self.rows), interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True)
class Drawing:
    """What the cells show, maps of the window's grid [rows, columns, ...], continued beyond the shape.

    Attributes:
        window: where the grid lies in the target's picture.
        source, target: float32 [..., 2], column and row in either photograph's picture. Where the shape is the
            target's, ``target`` is the pixel itself.
        uv: float32 [..., 2], v up.
        normals, source_normals: float32 [..., 3], camera frame, as drawn and as in the source's photograph.
        inside: float32 [...] 0..1, belonging to the face.
        from_mouth: float32 [...], distance to the opening between the lips, in units of the texture.
        facing: float32 [...], cosine between normal and view.
        skin, eyes, mouth: float32 [...] 0 or 1, what is seen.
    """

    window: Window
    source: F32
    target: F32
    uv: F32
    normals: F32
    source_normals: F32
    inside: F32
    from_mouth: F32
    facing: F32
    skin: F32
    eyes: F32
    mouth: F32


def draw(region: Region, posed: F32, source: Photograph, target: Photograph, cells: int) -> Drawing:
    """Draw a shape of M places, float32 [M, 3] decimetres in the target's camera frame.

    Args:
        region: its triangles.
        posed: the shape.
        source, target: the photographs.
        cells: of the grid along the window's longer side, at most.
    """
    places = target.project(posed)
    window = _window(places[region.inside > 0], cells)
    shape = (window.rows, window.columns)
    (triangle, weights), attributes = beside(
        lambda: rasterized(window.cells(places), DISTANCE - posed[:, 2], region.triangles, *shape),
        lambda: _attributes(region, posed, source, target),
    )
    met = triangle >= 0
    corners = region.triangles[triangle].T
    first, second, third = (
        attributes[corner] * weight[:, None] for corner, weight in zip(corners, weights, strict=True)
    )
    values = first + second + third
    values[~met, -1] = 0
    values = _continued(values.reshape(*shape, -1), met.reshape(shape))
    parts = dict(zip(_COLUMNS, np.split(values, np.cumsum(list(_COLUMNS.values()))[:-1], axis=2), strict=True))
    normals = unit(np.ascontiguousarray(parts["normals"]))
    kind = np.where(met, region.kind[triangle], 255).reshape(shape)
    centres = window.centres()
    towards = target.rays(centres)
    view = unit(-towards.reshape(*shape, 3))
    # Where the face ends, nothing has moved; beyond the shape, neither.
    face = met.reshape(*shape, 1) & (parts["inside"] > 0)
    parts["target"] = np.where(face, parts["target"], centres.reshape(*shape, 2))
    return Drawing(
        window=window,
        source=np.ascontiguousarray(parts["source"]),
        target=np.ascontiguousarray(parts["target"]),
        uv=np.ascontiguousarray(parts["uv"]),
        normals=normals,
        source_normals=parts["source_normals"],
        inside=np.ascontiguousarray(parts["inside"][..., 0]) * met.reshape(shape),
        from_mouth=np.ascontiguousarray(parts["from_mouth"][..., 0]),
        facing=3 * mean_of(normals * view),
        skin=(kind == SKIN).astype(np.float32),
        eyes=(kind == EYE).astype(np.float32),
        mouth=(kind == MOUTH).astype(np.float32),
    )


def _attributes(region: Region, posed: F32, source: Photograph, target: Photograph) -> F32:
    """What is known of each of M places, float32 [M, 14], in the order of `_COLUMNS`."""
    of_source, of_target = source.shapes[0][region.vertex], target.shapes[0][region.vertex]
    columns = [source.project(of_source), target.project(of_target), region.uv, region.normals(posed)]
    columns += [region.normals(of_source), region.from_mouth[:, None], region.inside[:, None]]
    return np.concatenate(columns, axis=1)


def _window(points: F32, cells: int) -> Window:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * float((high - low).max())
    low, high = np.floor(low - margin), np.ceil(high + margin)
    step = max(1, int(np.ceil((high - low).max() / cells)))
    columns, rows = (int(np.ceil(side / step)) for side in high - low)
    return Window(int(low[0]), int(low[1]), step, columns, rows)


def _continued(values: F32, met: NDArray[np.bool_]) -> F32:
    """Give cells that show nothing the values of the nearest one that does."""
    if met.all() or not met.any():
        return values
    nearest = ndimage.distance_transform_edt(~met, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)], np.float32)
