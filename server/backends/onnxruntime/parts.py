"""The texture graph in parts: what a CPU does faster without ONNX Runtime is done by SciPy and OpenCV in between.

`export/models/texture_split.py` cuts the graph by the names of tensors inside it (`TextureNet.INNER`) and writes the
parts beside it:

    shapes -> attributes of vertices              attributes.onnx
           -> field: attributes of table texels   a sparse matrix, table.npz
    parts  -> shares of skin and hair             OpenCV
           -> visible                             visible.onnx
           -> sampled colours, and in cells       OpenCV, bytes
           -> seen; what fills the rest, small    fill.onnx, the network
           -> texture, visibility and places      OpenCV

The whole graph stays what other runtimes load, and what is run where there are no parts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

ATTRIBUTES, VISIBLE, FILL, TABLE = "attributes.onnx", "visible.onnx", "fill.onnx", "table.npz"
GRAPHS = (ATTRIBUTES, VISIBLE, FILL)
# Rows of a texture that are mixed at a time: what is computed on the way stays in the cache, and in the heap.
STRIP = 64
# Texels of the table around one that is seen whose colours are read: two for black beside it, one for enlarging.
REACH = 3
# What a gain of 1 is in bytes: the largest gain is 2.
GAIN_STEPS = 127
CROP = 224  # pixels a side of the small crop, in which the field's places are
# Entry of the graphs' metadata: the digest of the whole graph's file.
WHOLE = "face3d.whole"

Array = NDArray[Any]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Table:
    """From vertices to table texels.

    Attributes:
        corners: int32 [3, t * t], rows of attributes: of the vertices around each texel of the table.
        weights: float32 [3, t * t], theirs; all 0 for a texel of no triangle.
        size: texels a side of the texture.
        whole: digest of the whole graph's file.
    """

    corners: NDArray[np.int32]
    weights: F32
    size: int
    whole: str = ""

    @property
    def side(self) -> int:
        """Texels a side of the table, t."""
        return math.isqrt(self.corners.shape[1])

    def matrix(self, vertices: int) -> csr_matrix:
        """[t * t, vertices]: attributes of vertices to attributes of texels."""
        texels = self.corners.shape[1]
        starts = np.arange(0, 3 * texels + 1, 3)
        return csr_matrix((self.weights.T.ravel(), self.corners.T.ravel(), starts), (texels, vertices))

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["corners"], file["weights"], int(file["size"]), str(file["whole"]))

    def save(self, path: Path) -> None:
        """Write it as NPZ."""
        np.savez(path, corners=self.corners, weights=self.weights, size=self.size, whole=self.whole)


@dataclass(frozen=True)
class Output:
    """What ONNX Runtime says of an output."""

    name: str
    shape: list[int | str]
    type: str = "tensor(uint8)"


class PartsSession:
    """The parts behind that much of a session's interface as is used here.

    Inputs: crop_hd uint8 (B, 3, H, W); shapes float32 (B, 3, N, 3); context float32 (B, 23), the cameras of both crops
    in its last eight; parts uint8 (B, 3, h, w). Outputs: texture uint8 (B, 3, size, size); visibility uint8
    (B, 1, size, size); places float32 (B, 4, t, t).
    """

    def __init__(self, graphs: Sequence[ort.InferenceSession], table: Table) -> None:
        """``graphs`` are the sessions of `GRAPHS`."""
        cv2.setNumThreads(1)  # pictures run side by side
        self._attributes, self._visible, self._fill = graphs
        self._matrix = table.matrix(int(self._attributes.get_outputs()[0].shape[1]))
        self._side, self._size = table.side, table.size

    def get_inputs(self) -> list[Any]:
        """The whole graph's."""
        return list(self._attributes.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The whole graph's."""
        sides = [self._size, self._size]
        return [
            Output("texture", ["batch", 3, *sides]),
            Output("visibility", ["batch", 1, *sides]),
            Output("places", ["batch", 4, self._side, self._side], "tensor(float)"),
        ]

    def run(
        self, names: Sequence[str] | None, feed: Mapping[str, Array], options: ort.RunOptions | None = None
    ) -> list[Array]:
        """As the session of the whole graph: outputs by name, all of them for None."""
        whole = {value.name: feed[value.name] for value in self.get_inputs()}
        (attributes,) = self._attributes.run(None, whole, options)
        fields = np.stack([self._field(rows) for rows in attributes])
        shares = np.stack([_shares(*pair) for pair in zip(feed["parts"], fields, strict=True)])
        inner = {"attributes": attributes, "field": fields, "shares": shares}
        visible, facing = self._visible.run(["visible", "facing"], inner, options)
        spans = [spans_of(cells[0], self._size) for cells in visible]
        colours = [
            sample(picture, field[:2], context[-8:], self._size, parts)
            for picture, field, context, parts in zip(feed["crop_hd"], fields, feed["context"], spans, strict=True)
        ]
        cells = np.stack([self._cells(colour) for colour in colours])
        seen, guess, gain = self._fill.run(None, {"cells": cells, "visible": visible}, options)
        wanted = [output.name for output in self.get_outputs()] if names is None else names
        makers: dict[str, Callable[[], Array]] = {
            "texture": lambda: self._texture(colours, spans, seen, guess, gain),
            "visibility": lambda: self._visibility(seen),
            "places": lambda: np.concatenate([fields[:, :2], facing, seen], 1),
        }
        return [makers[name]() for name in wanted]

    def _field(self, attributes: F32) -> F32:
        """Of the vertices (N, 4), of the table's texels (4, t, t)."""
        field = np.empty((attributes.shape[1], self._side, self._side), np.float32)
        cv2.split((self._matrix @ attributes).reshape(self._side, self._side, -1), list(field))
        return field

    def _cells(self, colour: U8) -> F32:
        """Sampled colours (size, size, 3) as means over the table's texels (3, t, t)."""
        cells = np.empty((3, self._side, self._side), np.float32)
        small = cv2.resize(colour, (self._side, self._side), interpolation=cv2.INTER_AREA)
        cv2.split(small.astype(np.float32), list(cells))
        return cells

    def _texture(self, colours: Sequence[U8], spans: Sequence[list[Span]], seen: F32, guess: F32, gain: F32) -> U8:
        texture = np.empty((len(colours), 3, self._size, self._size), np.uint8)
        for row, result in enumerate(texture):
            mix(colours[row], spans[row], seen[row, 0], guess[row], gain[row], result)
        return texture

    def _visibility(self, seen: F32) -> U8:
        return np.stack([cv2.convertScaleAbs(_resized(cells[0], self._size), alpha=255)[None] for cells in seen])


Span = tuple[slice, slice]
"""Rows and columns of the texture; the columns are as far from the left border as from the right one."""


def spans_of(visible: F32, size: int) -> list[Span]:
    """The parts of a texture of ``size`` texels a side, `STRIP` rows each, that hold what is visible (t, t) in it.

    And its mirror image, and what is read around a texel of the table.
    """
    scale = size // len(visible)
    grown = cv2.dilate(visible, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    columns = (grown + grown[:, ::-1]).reshape(-1, STRIP // scale, len(visible)).any(1)
    spans = []
    for index, line in enumerate(columns):
        if line.any():
            left = int(line.argmax()) * scale
            spans.append((slice(index * STRIP, (index + 1) * STRIP), slice(left, size - left)))
    return spans


def sample(picture: U8, places: F32, camera: F32, size: int, spans: Sequence[Span]) -> U8:
    """The picture at the places, bilinear to 1/32 of a pixel, black beyond it and outside of the spans.

    Args:
        picture: (3, H, W).
        places: (2, t, t), column and row in the small crop.
        camera: (8,), scale x, y and origin x, y of the small crop, then of the picture, in source pixels.
        size: of the result; places between the table's are interpolated.
        spans: of `spans_of`.

    Returns:
        (size, size, 3).
    """
    small, small_at, large, large_at = camera.reshape(4, 2)
    scale, shift = small / large, (small_at - large_at) / large
    columns, rows = (_resized(plane * k + d, size) for plane, k, d in zip(places, scale, shift, strict=True))
    # Interleaved, three numbers of a pixel cost one look-up.
    pixels = cv2.merge(list(picture))
    colour = np.zeros((size, size, 3), np.uint8)
    for span in spans:
        colour[span] = cv2.remap(pixels, columns[span], rows[span], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return colour


def _shares(parts: U8, field: F32) -> F32:
    """Skin and hair of the parts (3, h, w) at the places of a field (4, t, t): (2, t, t) 0..1, 0 beyond the crop."""
    ratio = parts.shape[1] / CROP
    columns, rows = ((plane + 0.5) * ratio - 0.5 for plane in field[:2])
    pixels = cv2.merge([parts[0].astype(np.float32), parts[1].astype(np.float32)])
    sampled = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(sampled.transpose(2, 0, 1)) * np.float32(1 / 255)


def mix(colour: U8, spans: Sequence[Span], seen: F32, guess: F32, gain: F32, result: U8) -> None:
    """Sampled colours where they were seen; elsewhere those of the other side under this side's light, or the guess.

    Args:
        colour: (size, size, 3).
        spans: of `spans_of`; outside of them nothing was seen on either side.
        seen: (t, t), 0..1.
        guess: (3, s, s), colours for where the other side was not seen either.
        gain: (3, s, s), 0.5..2, by what colours of the other side are multiplied.
        result: (3, size, size), contiguous, takes the texture.
    """
    size = len(colour)
    share = _u8(cv2.convertScaleAbs(_resized(seen, size), alpha=255))
    texture, gains = (_u8(cv2.resize(_bytes(planes), (size, size))) for planes in (guess, gain * GAIN_STEPS))
    for span in spans:
        own = cv2.merge([share[span]] * 3)
        mirrored = cv2.multiply(cv2.flip(colour[span], 1), gains[span], scale=1 / GAIN_STEPS)
        rest = _blended(mirrored, texture[span], cv2.flip(own, 1))
        texture[span] = _blended(colour[span], rest, own)
    cv2.split(texture, list(result))


def _blended(first: Array, second: Array, share: Array) -> Array:
    """``first`` where ``share`` is 255, ``second`` where it is 0; bytes throughout, which are faster than floats."""
    return cv2.add(
        cv2.multiply(first, share, scale=1 / 255), cv2.multiply(second, cv2.bitwise_not(share), scale=1 / 255)
    )


def _bytes(planes: F32) -> U8:
    """Planes (C, h, w) as bytes (h, w, C)."""
    return _u8(cv2.merge([cv2.convertScaleAbs(plane.clip(0, 255)) for plane in planes]))


def _resized(array: Array, size: int) -> F32:
    return np.asarray(cv2.resize(array, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _u8(array: object) -> U8:
    """OpenCV's types say less than is known here: uint8 in, uint8 out."""
    return np.asarray(array, np.uint8)


def open_parts(
    path: Path, options: ort.SessionOptions, open_graph: Callable[[Path, ort.SessionOptions], ort.InferenceSession]
) -> PartsSession | None:
    """The parts beside a graph's file, if they are all there and were cut from it; ``open_graph`` opens each."""
    files = [path.with_name(name) for name in (*GRAPHS, TABLE)]
    if not all(file.is_file() for file in files):
        return None
    graphs = [open_graph(file, options) for file in files[:-1]]
    table = Table.load(files[-1])
    cut_from = {table.whole, *(graph.get_modelmeta().custom_metadata_map.get(WHOLE) for graph in graphs)}
    return PartsSession(graphs, table) if cut_from == {hashlib.sha256(path.read_bytes()).hexdigest()} else None
