"""The texture graph in parts: what a CPU does faster without ONNX Runtime is done by SciPy and OpenCV in between.

`export/models/texture_split.py` cuts the graph by the names of tensors inside it (`TextureNet.INNER`) and writes the
parts beside it:

    shapes -> attributes of vertices              NumPy and a sparse matrix, tables.npz
           -> field: attributes of table texels   a sparse matrix, tables.npz
    parts  -> visible                             NumPy and OpenCV
           -> sampled colours, and small          OpenCV, bytes
           -> what is like skin; the filling      fill.onnx, the network
           -> texture, visibility and places      OpenCV

The whole graph stays what other runtimes load, and what is run where there are no parts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

FILL, TABLE = "fill.onnx", "tables.npz"
# Rows of the table that are sampled, and that are mixed at a time: fewer fit closer, and cost more calls.
SAMPLED_ROWS, MIXED_ROWS = 16, 32
# Texels of the table between two spans up to which one call is cheaper than two.
GAP = 16
# Texels of the table around one that is seen whose colours are read: two for black beside it, one for enlarging.
REACH = 3
# What a gain of 1 is in bytes: the largest gain is 2.
GAIN_STEPS = 127
CROP = 224  # pixels a side of the small crop, in which the field's places are
FOCAL, DISTANCE = 1015.0, 10.0  # of the camera: pixels of the small crop, decimetres
# Pixels of the source for one of the large crop up to which the texture has half its size: a texel of that has 1.15
# pixels of the crop, fewer than one of the source (median; 50 dB from what full size gives).
COARSE = 0.75
# The same up to which such a texture is sampled and mixed at the table's size, and then enlarged.
COARSEST = 0.375
# As networks/texture.py has them, which says what they are for: the export compares both.
DEPTH_GRID = 112
FARTHEST = -10.0  # decimetres, what an empty cell has
UNSEEN_COSINE, SEEN_COSINE = 0.2, 0.6
SEEN_DEPTH, HIDDEN_DEPTH = 0.07, 0.14
SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE = 0.0, 0.02
NOT_SKIN, SURE_SKIN = 0.55, 0.9
BORDER = 5
ISLAND, ISLAND_SKIN = 15, (0.4, 0.6)
NO_BEARD, BEARD = 0.2, 0.5
# Entry of the graphs' metadata: the digest of the whole graph's file.
WHOLE = "face3d.whole"

Array = NDArray[Any]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Table:
    """From vertices to table texels.

    Attributes:
        rows: int32 [s + c], the vertices that attributes are computed of: the skin's, then those of what covers it.
        triangles: int32 [3, f], of the skin, as rows of attributes below s.
        skin: s.
        corners: int32 [3, t * t], rows of attributes: of the vertices around each texel of the table.
        weights: float32 [3, t * t], theirs; all 0 for a texel of no triangle.
        size: texels a side of the texture.
        maps: uint8 [3, t, t], 0..255, of `Maps`.
        whole: digest of the whole graph's file.
    """

    rows: NDArray[np.int32]
    triangles: NDArray[np.int32]
    skin: int
    corners: NDArray[np.int32]
    weights: F32
    size: int
    maps: U8
    whole: str = ""

    @property
    def side(self) -> int:
        """Texels a side of the table, t."""
        return math.isqrt(self.corners.shape[1])

    def matrix(self) -> csr_matrix:
        """[t * t, s + c]: attributes of vertices to attributes of texels."""
        texels = self.corners.shape[1]
        starts = np.arange(0, 3 * texels + 1, 3)
        return csr_matrix((self.weights.T.ravel(), self.corners.T.ravel(), starts), (texels, len(self.rows)))

    def sums(self) -> csr_matrix:
        """[s, f]: values of triangles to their sums around vertices."""
        faces = np.arange(self.triangles.shape[1])
        ones = np.ones(self.triangles.size, np.float32)
        return csr_matrix((ones, (self.triangles.ravel(), np.tile(faces, 3))), (self.skin, len(faces)))

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("rows", "triangles", "corners", "weights", "maps")}
            return cls(skin=int(file["skin"]), size=int(file["size"]), whole=str(file["whole"]), **arrays)

    def save(self, path: Path) -> None:
        """Write it as NPZ."""
        np.savez(path, **{part.name: getattr(self, part.name) for part in fields(self)})


@dataclass(frozen=True)
class Maps:
    """Maps of the chart, float32 (t, t), 0..1, and what a photograph shows by them.

    Attributes:
        outside: what is not inside of mouth and sockets.
        beard, chin: where a beard may be; the chin.
    """

    outside: F32
    beard: F32
    chin: F32

    def facing(self, field: F32, covers: F32) -> F32:
        """How much of each texel the camera sees, whatever lies there: float32 [t, t], 0..1.

        Args:
            field: float32 [4, t, t], of texels: column and row in the small crop, depth, cosine.
            covers: float32 [c, 4], the same of what covers the skin.
        """
        depth, cells = field[2], _cells(field[0], field[1])
        seen = _smoothstep(field[3], UNSEEN_COSINE, SEEN_COSINE)
        seen *= _in_front(_nearest(cells, depth), cells, depth, SEEN_DEPTH, HIDDEN_DEPTH)
        if len(covers):
            nearest = _nearest(_cells(covers[:, 0], covers[:, 1]), covers[:, 2])
            seen *= _in_front(nearest, cells, depth, SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE)
        seen *= self.outside
        return seen

    def skin(self, parts: U8, field: F32, facing: F32) -> F32:
        """How much of each texel is this person's skin, beard included: float32 [t, t], 0..1.

        Args:
            parts: uint8 [3, h, w], of the small crop: skin, hair, other.
            field, facing: of `facing`.
        """
        ratio = np.float32(parts.shape[1] / CROP)
        columns, rows = (plane * ratio + (ratio - 1) / 2 for plane in field[:2])
        pixels = cv2.merge([parts[0].astype(np.float32), parts[1].astype(np.float32)])
        pixels *= np.float32(1 / 255)
        skin, hair = cv2.split(cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
        shown = self.chin * facing
        bearded = float(np.vdot(hair, shown)) / (float(shown.sum()) + 1)
        share = min(max((bearded - NO_BEARD) / (BEARD - NO_BEARD), 0.0), 1.0)
        hair *= np.maximum(self.chin, self.beard * np.float32(share * share * (3 - 2 * share)))
        hair += skin
        least = cv2.erode(hair, np.ones((BORDER, BORDER), np.uint8))
        mean = cv2.blur(hair, (ISLAND, ISLAND), borderType=cv2.BORDER_CONSTANT)
        sure = _smoothstep(least, NOT_SKIN, SURE_SKIN)
        sure *= _smoothstep(mean, *ISLAND_SKIN)
        return sure


def _cells(column: F32, row: F32) -> NDArray[np.intp]:
    """Cells of the depth buffer for places in the small crop."""
    column, row = (np.clip(np.floor(at * np.float32(DEPTH_GRID / CROP)), 0, DEPTH_GRID - 1) for at in (column, row))
    return np.asarray(row * np.float32(DEPTH_GRID) + column, np.intp)


def _nearest(cells: NDArray[np.intp], depth: F32) -> F32:
    """Depth buffer float32 [cells] of points in cells at a depth."""
    buffer = np.full(DEPTH_GRID * DEPTH_GRID, FARTHEST, np.float32)
    np.maximum.at(buffer, cells.ravel(), depth.ravel())
    return buffer


def _in_front(nearest: F32, cells: NDArray[np.intp], depth: F32, seen: float, hidden: float) -> F32:
    """1 up to ``seen`` decimetres behind the nearest point of a cell, 0 from ``hidden`` on."""
    return _smoothstep(depth - nearest.take(cells), -hidden, -seen)


def _smoothstep(x: Any, low: float, high: float) -> F32:
    t = np.asarray(x * np.float32(1 / (high - low)), np.float32)
    t -= np.float32(low / (high - low))
    # Several times as fast as NumPy's clip.
    cv2.threshold(t, 0, 0, cv2.THRESH_TOZERO, t)
    cv2.threshold(t, 1, 0, cv2.THRESH_TRUNC, t)
    steep = t * np.float32(-2)
    steep += np.float32(3)
    steep *= t
    steep *= t
    return steep


@dataclass(frozen=True)
class Value:
    """What ONNX Runtime says of an input or output."""

    name: str
    shape: list[int | str]
    type: str = "tensor(uint8)"


@dataclass(frozen=True)
class _Row:
    """Of one picture.

    Attributes:
        colours: uint8 (n, n, 3), sampled.
        facing, seen: float32 (t, t), 0..1: what the camera sees of a texel, and what of that is skin in the picture.
        small, small_seen: float32 (3, t / 2, t / 2) and (t / 2, t / 2), colours times ``seen``, and that.
    """

    colours: U8
    facing: F32
    seen: F32
    small: F32
    small_seen: F32


class PartsSession:
    """The parts behind that much of a session's interface as is used here.

    Inputs: crop_hd uint8 (B, 3, H, W); shapes float32 (B, 3, N, 3); context float32 (B, 23), the cameras of both crops
    in its last eight; parts uint8 (B, 3, h, w). Outputs: texture uint8 (B, 3, n, n), n the table's size, or half of it
    where no row's photograph has pixels for more (`COARSE`); visibility uint8 (B, 1, size, size); places float32
    (B, 4, t, t).
    """

    def __init__(self, fill: ort.InferenceSession, table: Table) -> None:
        """``fill`` is the session of `FILL`."""
        cv2.setNumThreads(1)  # pictures run side by side
        self._fill, self._maps = fill, Maps(*table.maps.astype(np.float32) / np.float32(255))
        self._table, self._matrix, self._sums = table, table.matrix(), table.sums()
        self._least_vertices = int(table.rows.max()) + 1
        self._side, self._size = table.side, table.size

    def get_inputs(self) -> list[Any]:
        """The whole graph's."""
        return [
            Value("crop_hd", ["batch", 3, 512, 512]),
            Value("shapes", ["batch", 3, "vertices", 3], "tensor(float)"),
            Value("context", ["batch", 23], "tensor(float)"),
            Value("parts", ["batch", 3, 128, 128]),
        ]

    def get_outputs(self) -> list[Any]:
        """The whole graph's."""
        sides = [self._size, self._size]
        return [
            Value("texture", ["batch", 3, "side", "side"]),
            Value("visibility", ["batch", 1, *sides]),
            Value("places", ["batch", 4, self._side, self._side], "tensor(float)"),
        ]

    def run(
        self, names: Sequence[str] | None, feed: Mapping[str, Array], options: ort.RunOptions | None = None
    ) -> list[Array]:
        """As the session of the whole graph: outputs by name, all of them for None."""
        attributes = [self._attributes(shapes[0]) for shapes in feed["shapes"]]
        fields = [self._field(rows) for rows in attributes]
        rows = [
            self._row(*row)
            for row in zip(feed["crop_hd"], feed["parts"], attributes, fields, feed["context"][:, -8:], strict=True)
        ]
        small = {"small": _batch([row.small for row in rows])}
        small["small_seen"] = _batch([row.small_seen[None] for row in rows])
        like, guess, gain = self._fill.run(None, small, options)
        colours = [row.colours for row in rows]
        seen = _batch([(row.seen * _resized(part[0], self._side))[None] for row, part in zip(rows, like, strict=True)])
        wanted = [output.name for output in self.get_outputs()] if names is None else names
        makers: dict[str, Callable[[], Array]] = {
            "texture": lambda: self._texture(colours, seen, guess, gain),
            "visibility": lambda: self._visibility(seen),
            "places": lambda: _batch(
                [
                    np.concatenate([field[:2], row.facing[None], share])
                    for field, row, share in zip(fields, rows, seen, strict=True)
                ]
            ),
        }
        return [makers[name]() for name in wanted]

    @staticmethod
    def concatenate(pieces: Sequence[Array]) -> Array:
        """Join an output of several runs along its first axis, smaller textures enlarged to the largest."""
        side = max(piece.shape[-1] for piece in pieces)
        return np.concatenate([enlarged(piece, side) for piece in pieces])

    def _attributes(self, posed: F32) -> F32:
        """Of the posed vertices (N, 3) those of the table's rows (s + c, 4): as `UVSampler.attributes`.

        Raises:
            ValueError: there are too few vertices, or one lies in the camera's plane, where nothing is projected.
        """
        if len(posed) < self._least_vertices:
            raise ValueError(f"{len(posed)} vertices, where the texture has {self._least_vertices}")
        # One coordinate at a time: everything is slow where the innermost axis is short.
        x, y, z = (column.take(self._table.rows) for column in posed.T)
        skin = slice(0, self._table.skin)
        corners = ([column.take(corner) for corner in self._table.triangles] for column in (x, y, z))
        (bx, cx), (by, cy), (bz, cz) = ((b - a, c - a) for a, b, c in corners)
        areas = np.stack([by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx], 1)
        nx, ny, nz = np.ascontiguousarray((self._sums @ areas).T)
        away = DISTANCE - z
        if not away.all():
            raise ValueError("a vertex lies in the plane of the camera")
        found = np.ones((len(x), 4), np.float32)
        found[:, 0], found[:, 1], found[:, 2] = FOCAL * x / away + CROP / 2, CROP / 2 - 1 - FOCAL * y / away, z
        x, y, away = x[skin], y[skin], away[skin]
        lengths = (nx * nx + ny * ny + nz * nz + np.float32(1e-20)) * (x * x + y * y + away * away)
        found[skin, 3] = (nz * away - nx * x - ny * y) / np.sqrt(lengths)
        return found

    def _row(self, picture: U8, parts: U8, attributes: F32, field: F32, camera: F32) -> _Row:
        """What is computed of one picture before the filling."""
        facing = self._maps.facing(field, attributes[self._table.skin :])
        visible = self._maps.skin(parts, field, facing)
        visible *= facing
        colours = self._colours(picture, field, camera, visible)
        cells = self._cells(colours)
        # Beyond the picture and the crop pixels are exactly black, which skin never is. At that border interpolation
        # mixes colours with black, so the cells beside it count as unseen as well.
        dark = cv2.inRange(cells, np.zeros(3), np.zeros(3))
        seen = visible * (cv2.dilate(dark, np.ones((3, 3), np.uint8)) == 0)
        small = [_halved(cv2.multiply(plane, seen, dtype=cv2.CV_32F)) for plane in cv2.split(cells)]
        return _Row(colours, facing, seen, np.stack(small), _halved(seen))

    def _colours(self, picture: U8, field: F32, camera: F32, visible: F32) -> U8:
        """The picture's colours (n, n, 3) where texels are visible, n the table's size, or a half or quarter of it."""
        pixels = camera[4:6].max()
        size = self._size // (4 if pixels <= COARSEST else 2 if pixels <= COARSE else 1)
        spans = spans_of(_around(visible, REACH) > 0, size, SAMPLED_ROWS)
        return sample(picture, field[:2], camera, size, spans)

    def _field(self, attributes: F32) -> F32:
        """Of the vertices (N, 4), of the table's texels (4, t, t)."""
        field = np.empty((attributes.shape[1], self._side, self._side), np.float32)
        cv2.split((self._matrix @ attributes).reshape(self._side, self._side, -1), list(field))
        return field

    def _cells(self, colour: U8) -> U8:
        """Sampled colours (n, n, 3) as means over the table's texels (t, t, 3)."""
        small = colour
        while len(small) % (2 * self._side) == 0:  # halves take a third of the time of a larger step
            small = _u8(cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        if len(small) != self._side:
            small = _u8(cv2.resize(small, (self._side, self._side), interpolation=cv2.INTER_AREA))
        return small

    def _texture(self, colours: Sequence[U8], seen: F32, guess: F32, gain: F32) -> U8:
        side = max(self._size // 2, *map(len, colours))
        texture = np.empty((len(colours), 3, side, side), np.uint8)
        for row, result in enumerate(texture):
            mix(colours[row], seen[row, 0], guess[row], gain[row], result)
        return texture

    def _visibility(self, seen: F32) -> U8:
        return np.stack([cv2.convertScaleAbs(_resized(cells[0], self._size), alpha=255)[None] for cells in seen])


Span = tuple[slice, slice]
"""Rows and columns of a texture."""


def spans_of(used: NDArray[np.bool_], size: int, strip: int) -> list[Span]:
    """The parts of a texture of ``size`` texels a side that hold what is used (t, t), ``strip`` of its rows each."""
    scale = size // len(used)
    strip = strip if scale > 1 else len(used)  # of so few texels one call is cheaper than several
    lines = used.reshape(-1, strip, len(used)).any(1).view(np.uint8)
    joined = cv2.morphologyEx(lines, cv2.MORPH_CLOSE, np.ones((1, GAP + 1), np.uint8))
    bounds = np.diff(joined.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    firsts, lasts = (np.argwhere(bounds == sign).tolist() for sign in (1, -1))
    return [
        (slice(row * strip * scale, (row + 1) * strip * scale), slice(first * scale, last * scale))
        for (row, first), (_, last) in zip(firsts, lasts, strict=True)
    ]


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
    planes = [plane * k + d for plane, k, d in zip(places, scale, shift, strict=True)]
    # Interleaved, three numbers of a pixel cost one look-up.
    pixels = cv2.merge(list(picture))
    colour = np.zeros((size, size, 3), np.uint8)
    for span in spans:
        columns, rows = (_enlarged(plane, span, size) for plane in planes)
        colour[span] = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return colour


def mix(colour: U8, seen: F32, guess: F32, gain: F32, result: U8) -> None:
    """Sampled colours where they were seen; elsewhere those of the other side under this side's light, or the guess.

    Args:
        colour: (n, n, 3).
        seen: (t, t), 0..1.
        guess: (3, s, s), colours for where the other side was not seen either.
        gain: (3, s, s), 0.5..2, by what colours of the other side are multiplied.
        result: (3, size, size), contiguous, takes the texture, size a multiple of n.
    """
    size, used = len(colour), _around(seen, 1) > 0
    share = _u8(cv2.resize(cv2.convertScaleAbs(seen, alpha=255), (size, size)))
    texture, gains = _u8(cv2.resize(_bytes(guess), (size, size))), _bytes(gain * GAIN_STEPS)
    lacking = _around(-seen, 1) > -1
    for span in spans_of(lacking & used[:, ::-1], size, MIXED_ROWS):
        rows, columns = span
        other = rows, slice(size - columns.stop, size - columns.start)
        mirrored = cv2.multiply(cv2.flip(colour[other], 1), _enlarged(gains, span, size), scale=1 / GAIN_STEPS)
        texture[span] = _blended(mirrored, texture[span], cv2.flip(cv2.merge([share[other]] * 3), 1))
    for span in spans_of(lacking & used, size, MIXED_ROWS):
        texture[span] = _blended(colour[span], texture[span], cv2.merge([share[span]] * 3))
    cv2.copyTo(colour, np.equal(share, 255).view(np.uint8), texture)
    if size != result.shape[1]:
        texture = _u8(cv2.resize(texture, result.shape[:0:-1], interpolation=cv2.INTER_CUBIC))
    cv2.split(texture, list(result))


def _blended(first: Array, second: Array, share: Array) -> Array:
    """``first`` where ``share`` is 255, ``second`` where it is 0; bytes throughout, which are faster than floats."""
    return cv2.add(
        cv2.multiply(first, share, scale=1 / 255), cv2.multiply(second, cv2.bitwise_not(share), scale=1 / 255)
    )


def _batch(rows: Sequence[Array]) -> Array:
    """Rows as one array; one row is not copied."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def _bytes(planes: F32) -> U8:
    """Planes (C, h, w) as bytes (h, w, C)."""
    return _u8(cv2.merge([cv2.convertScaleAbs(cv2.threshold(plane, 0, 0, cv2.THRESH_TOZERO)[1]) for plane in planes]))


def _around(values: F32, reach: int) -> F32:
    """The largest of the values (t, t) at most ``reach`` away."""
    return np.asarray(cv2.dilate(values, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)), np.float32)


def _enlarged(small: Array, span: Span, size: int) -> Array:
    """A part of what (s, s) or (s, s, C) is when it is enlarged to ``size`` a side by bilinear interpolation."""
    scale = size // len(small)
    read, kept = [], []
    for part in span:
        first, last, _ = part.indices(size)
        low, high = max(0, first // scale - 1), min(len(small), -(-last // scale) + 1)
        read.append(slice(low, high))
        kept.append(slice(first - low * scale, last - low * scale))
    near = small[tuple(read)]
    large = cv2.resize(near, (near.shape[1] * scale, near.shape[0] * scale), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large[tuple(kept)])


def enlarged(pictures: Array, side: int) -> Array:
    """Pictures (B, C, n, n) as (B, C, side, side)."""
    if pictures.shape[-1] == side:
        return pictures
    planes = pictures.reshape(-1, *pictures.shape[-2:])
    wide = np.stack([cv2.resize(plane, (side, side), interpolation=cv2.INTER_LINEAR) for plane in planes])
    return np.asarray(wide.reshape(*pictures.shape[:2], side, side))


def _halved(plane: Any) -> F32:
    """A plane (t, t) as means of two by two."""
    return np.asarray(cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)


def _resized(array: Array, size: int) -> F32:
    return np.asarray(cv2.resize(array, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _u8(array: object) -> U8:
    """OpenCV's types say less than is known here: uint8 in, uint8 out."""
    return np.asarray(array, np.uint8)


def open_parts(
    path: Path, options: ort.SessionOptions, open_graph: Callable[[Path, ort.SessionOptions], ort.InferenceSession]
) -> PartsSession | None:
    """The parts beside a graph's file, if they are all there and were cut from it; ``open_graph`` opens each."""
    files = [path.with_name(name) for name in (FILL, TABLE)]
    if not all(file.is_file() for file in files):
        return None
    fill, table = open_graph(files[0], options), Table.load(files[1])
    cut_from = {table.whole, fill.get_modelmeta().custom_metadata_map.get(WHOLE)}
    return PartsSession(fill, table) if cut_from == {hashlib.sha256(path.read_bytes()).hexdigest()} else None
