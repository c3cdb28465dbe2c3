"""The texture network: from the 512 px crop, its parts and the posed shape to a complete UV texture, in one graph.

Sampling needs no rasteriser: the triangle under a texel never changes, so positions and normals are gathered through a
table. Texels that the picture does not show (turned away, hidden, beyond the picture) or that show no skin (hair,
clothes, background, a hand) are filled (`networks.texture_fill`); those that show skin are left as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP, CROP_HD, DISTANCE, project_coordinates
from networks.chart import Chart
from networks.head_model import AnyFaceModel
from networks.parser import HAIR, PARTS, PARTS_SIDE, SKIN
from networks.texture_fill import UNet, fill, fit_light, plainer
from networks.uv_table import adjacency

SIZE = 1024  # texels along a side of the texture
TABLE = 256  # size at which positions are gathered, then interpolated: a mesh edge is about 9 texels of 1024 long
FILL = 128  # size at which unseen texels are filled and corrected, as their detail is unknown
ATTRIBUTES = 4  # of a vertex: column and row in the 224 px crop, depth, cosine between normal and view
DEPTH_GRID = 112  # cells of two crop pixels; finer ones would leave holes between the splatted texels
# Cosine between normal and view: below the first a texel is unseen, above the second fully seen. What is seen under a
# flat angle is smeared, and hair begins there.
UNSEEN_COSINE, SEEN_COSINE = 0.2, 0.6
# Decimetres behind the nearest surface of its cell: up to the first a texel is seen, from the second on hidden.
# A cell is 2 mm wide, so a surface at 75 degrees varies by 7 mm inside one.
SEEN_DEPTH, HIDDEN_DEPTH = 0.07, 0.14
# The same behind an eyeball, over which the lids lie: a surface of the ball varies by less than that around the iris.
SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE = 0.0, 0.02
# Triangles around a vertex for which all vertices are looked up; the few vertices that have more get them in addition.
USUAL_NEIGHBOURS = 6
# Sum of a cell's three colours, 0..255, up to which it lies beyond the picture.
BLACK_SUM = 0.2
# Probability of skin: below the first a texel is unseen, above the second fully seen.
NOT_SKIN, SURE_SKIN = 0.55, 0.9
# Texels of the table around each that must be skin as well: the parser's border is 2 mm wide, and hair throws shadows.
BORDER = 5
# Texels of the table around each, and the share of them that must be skin: between strands of hair there is none.
ISLAND, ISLAND_SKIN = 15, (0.4, 0.6)
# Texels of the filling around each, twice, and the share of them that must be seen outside of the middle of the face:
# a patch of skin among hair, or behind glasses, looks like a stain.
PATCH, PATCH_SEEN = 9, (0.35, 0.7)
# Share of the chin that is hair, from which on a person has no beard, or has one.
NO_BEARD, BEARD = 0.2, 0.5
# How far a colour outside of the middle of the face may lie from this person's skin, as logarithms of its ratio to it:
# of a channel against the mean of the three (another hue), and of that mean (much darker, much brighter). Up to the
# first it is skin, from the second on not. Where a beard may be, all is allowed to be dark, and what is as dark as
# stubble twice as far in hue.
HUE, DARKER, BRIGHTER = (0.22, 0.45), (0.5, 0.9), (0.5, 0.8)
STUBBLE = (0.1, 0.3)
# The same at the rim of what is seen, against the skin further inside: there strands of hair mix with the skin and
# throw shadows on it. Texels of the filling that the rim is wide, and that the skin inside is averaged over.
RIM_HUE, RIM_DARKER, RIM_BRIGHTER = (0.09, 0.2), (0.2, 0.45), (0.3, 0.6)
RIM, INSIDE = 9, 8
RIM_MEAN = 0.02  # weight of the mean of all skin inside against that of a neighbourhood

_Range = tuple[float, float]


def _sum_rows(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Sum the rows (B, n, 3) that each column of ``table`` (k, m) lists: (B, m, 3)."""
    total = rows.index_select(1, table[0])
    for line in table[1:]:
        total = total + rows.index_select(1, line)
    return total


def _smoothstep(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


class UVSampler(nn.Module):
    """Sample a picture in UV space, and say how much of each texel it shows as skin.

    Buffers: ``crowded`` lists the vertices with more than USUAL_NEIGHBOURS triangles around them, ``place`` the row of
    each vertex's sum in `area_normals`. Rows of attributes: the skin's, then the covers'.
    """

    rows: torch.Tensor
    vertices: torch.Tensor
    weights: torch.Tensor
    neighbours: torch.Tensor
    extra_neighbours: torch.Tensor
    crowded: torch.Tensor
    place: torch.Tensor
    triangles: torch.Tensor
    outside: torch.Tensor
    beard: torch.Tensor
    chin: torch.Tensor

    def __init__(self, chart: Chart) -> None:
        super().__init__()
        self.count, self.covers = len(chart.skin), len(chart.covers)
        self.register_buffer("rows", torch.from_numpy(np.concatenate([chart.skin, chart.covers])))
        # One row for each corner (or neighbour): summing over rows runs along memory, summing inside them does not.
        self.register_buffer("vertices", torch.from_numpy(chart.corners.T.copy()))
        # Repeated for each attribute: broadcasting one factor to four values is several times slower.
        weights = np.repeat(chart.weights.T[..., None], ATTRIBUTES, axis=2)
        self.register_buffer("weights", torch.from_numpy(np.ascontiguousarray(weights)))
        neighbours = adjacency(chart.triangles, self.count)
        crowded = np.flatnonzero((neighbours[:, USUAL_NEIGHBOURS:] < len(chart.triangles)).any(1))
        self.register_buffer("neighbours", torch.from_numpy(neighbours[:, :USUAL_NEIGHBOURS].T.copy()))
        self.register_buffer("extra_neighbours", torch.from_numpy(neighbours[crowded, USUAL_NEIGHBOURS:].T.copy()))
        # Row of each vertex's sum: its own index, or for a crowded one a row behind those of all vertices.
        place = np.arange(self.count)
        place[crowded] = self.count + np.arange(len(crowded))
        self.register_buffer("crowded", torch.from_numpy(crowded))
        self.register_buffer("place", torch.from_numpy(place))
        self.register_buffer("triangles", torch.from_numpy(chart.triangles.T.copy()))
        maps = {"outside": ~chart.inside, "beard": chart.beard, "chin": chart.chin}
        for name, values in maps.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)[None, None]))

    def normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Compute unit normals (B, S, 3), weighted by the triangles' areas, of the skin's vertices (B, S, 3)."""
        total = self.area_normals(posed)
        return total / (total.square().sum(-1, keepdim=True) + 1e-20).sqrt()

    def area_normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Sum the normals of the triangles around each vertex, as long as twice their area: (B, S, 3) -> (B, S, 3)."""
        corner_a, corner_b, corner_c = (posed.index_select(1, corner) for corner in self.triangles)
        edge_a, edge_b = corner_b - corner_a, corner_c - corner_a
        (ax, ay, az), (bx, by, bz) = edge_a.unbind(-1), edge_b.unbind(-1)
        faces = torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)
        faces = F.pad(faces, (0, 0, 0, 1))  # the row that pads the table of neighbours
        total = _sum_rows(faces, self.neighbours)
        if not len(self.crowded):
            return total
        more = total.index_select(1, self.crowded) + _sum_rows(faces, self.extra_neighbours)
        return torch.cat([total, more], 1).index_select(1, self.place)

    def attributes(self, posed: torch.Tensor) -> torch.Tensor:
        """Compute what sampling needs of each vertex: posed shapes (B, N, 3) in dm, camera frame -> (B, S + C, 4).

        Column and row in the 224 px crop; depth, the camera frame's z, larger nearer; the cosine between the normal and
        the line to the camera (1 for covers, whose normals nobody needs).
        """
        rows = posed.index_select(1, self.rows)
        skin = rows[:, : self.count]
        # One coordinate at a time: runtimes are slow where the innermost axis is short.
        (x, y, z), (nx, ny, nz) = (
            [part.flatten(1) for part in parts.split(1, 2)] for parts in (skin, self.area_normals(skin))
        )
        away = DISTANCE - z
        lengths = (nx * nx + ny * ny + nz * nz + 1e-20) * (x * x + y * y + away * away)
        facing = (nz * away - nx * x - ny * y) / lengths.sqrt()
        if self.covers:
            x, y, z = (part.flatten(1) for part in rows.split(1, 2))
            facing = F.pad(facing, (0, self.covers), value=1.0)
        return torch.stack([*project_coordinates(x, y, z), z, facing], 2)

    def field(self, attributes: torch.Tensor) -> torch.Tensor:
        """Interpolate the vertices' attributes (B, S + C, 4) at the table's texels: (B, 4, T, T)."""
        corners = zip(self.vertices, self.weights, strict=True)
        a, b, c = (attributes.index_select(1, vertex) * weight for vertex, weight in corners)
        total: torch.Tensor = a + b + c
        return total.transpose(1, 2).reshape(-1, ATTRIBUTES, TABLE, TABLE)

    def visibility(self, field: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Compute what the camera sees of every table texel, from its normal and depth buffers of splatted points.

        Args:
            field: (B, 4, T, T) of `field`.
            attributes: (B, S + C, 4) of `attributes`, for the covers.

        Returns:
            (B, 1, T, T), 0 hidden to 1 seen.
        """
        depth, cosine = field[:, 2].flatten(1), field[:, 3].flatten(1)
        cells = _cells(field[:, 0].flatten(1), field[:, 1].flatten(1))
        behind = _nearest(cells, depth).gather(1, cells) - depth
        seen = _smoothstep(cosine, UNSEEN_COSINE, SEEN_COSINE) * (1 - _smoothstep(behind, SEEN_DEPTH, HIDDEN_DEPTH))
        if self.covers:
            column, row, near, _ = attributes[:, self.count :].unbind(2)
            behind = _nearest(_cells(column, row), near).gather(1, cells) - depth
            seen = seen * (1 - _smoothstep(behind, SEEN_BEHIND_EYE, HIDDEN_BEHIND_EYE))
        return seen.view(-1, 1, TABLE, TABLE) * self.outside

    def shares(self, field: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """Sample skin and hair in UV space: field (B, 4, T, T), parts (B, 3, 128, 128) uint8 -> (B, 2, T, T) 0..1."""
        grid = (field[:, 0:2] + 0.5) * (2 / CROP) - 1
        chosen = parts[:, [SKIN, HAIR]].float() / 255
        shares: torch.Tensor = F.grid_sample(chosen, grid.permute(0, 2, 3, 1), align_corners=False)
        return shares

    def skin(self, shares: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Compute how much of each table texel is this person's skin, beard included.

        Args:
            shares: (B, 2, T, T) of `shares`.
            visible: (B, 1, T, T) of `visibility`.

        Returns:
            (B, 1, T, T), 0 not to 1 surely.
        """
        skin, hair = shares.split(1, 1)
        weight = self.chin * visible
        bearded = (hair * weight).sum((1, 2, 3), keepdim=True) / (weight.sum((1, 2, 3), keepdim=True) + 1)
        own = torch.maximum(self.chin, self.beard * _smoothstep(bearded, NO_BEARD, BEARD))
        likely = skin + hair * own
        least = -F.max_pool2d(-likely, BORDER, 1, BORDER // 2)
        mean = F.avg_pool2d(likely, ISLAND, 1, ISLAND // 2)
        sure: torch.Tensor = _smoothstep(least, NOT_SKIN, SURE_SKIN) * _smoothstep(mean, *ISLAND_SKIN)
        return sure

    def places(self, field: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        """Compute where table texels lie in the 512 px crop: (B, 2, T, T), -1..1 across it.

        Args:
            field: (B, 4, T, T) of `field`.
            camera: (B, 8): scale x, y and origin x, y of the 224 px crop, then of the 512 px crop, in source pixels.
        """
        # Pixels of the 224 px crop -> of the source -> of the 512 px crop -> -1..1 across it.
        small, small_at, large, large_at = (part[..., None, None] for part in camera.split(2, 1))
        across = 2 / CROP_HD
        shift = ((small_at - large_at) / large + 0.5) * across - 1
        places: torch.Tensor = field[:, 0:2] * (small / large * across) + shift
        return places

    def sample(self, crop_hd: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Sample the picture (B, 3, H, W), black beyond it, at `places`: (B, 3, SIZE, SIZE)."""
        grid = F.interpolate(places, scale_factor=SIZE // TABLE, mode="bilinear")
        return F.grid_sample(crop_hd, grid.permute(0, 2, 3, 1), align_corners=False, padding_mode="zeros")


def _cells(column: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Cells (B, n) int64 of the depth buffer for places in the 224 px crop (B, n)."""
    column, row = ((at * (DEPTH_GRID / 224)).floor().clamp(0, DEPTH_GRID - 1) for at in (column, row))
    return (row * DEPTH_GRID + column).long()


def _nearest(cells: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Depth buffer (B, cells) of points in cells (B, n) at a depth (B, n)."""
    empty = depth.new_full((1, DEPTH_GRID * DEPTH_GRID), -10.0).expand(depth.shape[0], -1)
    return empty.scatter_reduce(1, cells, depth, "amax")


class Completion(nn.Module):
    """From colours and visibility at the table's size to what fills the texture."""

    albedo: torch.Tensor
    core: torch.Tensor
    features: torch.Tensor
    beard: torch.Tensor
    back: torch.Tensor
    plain: torch.Tensor
    basis: torch.Tensor

    def __init__(self, chart: Chart, unet: UNet | None) -> None:
        super().__init__()
        maps = {
            "albedo": _painted(chart, chart.albedo).clip(1),
            "core": chart.core,
            "features": chart.features,
            "beard": chart.beard,
            "back": chart.back,
        }
        maps["basis"] = np.concatenate([np.ones((1, TABLE, TABLE)), _painted(chart, chart.normals[:, :2])])
        maps["plain"] = chart.plain
        for name, values in maps.items():
            self.register_buffer(name, _reduced(values))
        self.unet = unet

    def forward(self, cells: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the filling.

        Args:
            cells: (B, 3, T, T) 0..255, sampled colours.
            visible: (B, 1, T, T) 0..1, visibility and skin.

        Returns:
            (B, 1, T, T) what counts as seen; (B, 3, F, F) and (B, 3, F, F), colours and gain of `fill`.
        """
        seen, small, small_seen = self.reduced(cells, visible)
        like, guess, gain = self.filling(small, small_seen)
        return seen * _widened(like), guess, gain

    def reduced(self, cells: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bring the arguments of `forward` to the size of the filling.

        Returns:
            (B, 1, T, T) what is visible in the picture; (B, 3, F, F) colours times that, (B, 1, F, F) that.
        """
        # Beyond the picture and the crop pixels are exactly black, which skin never is. At that border interpolation
        # mixes colours with black, so the cells beside it count as unseen as well.
        red, green, blue = cells.split(1, 1)
        dark = (red + green + blue <= BLACK_SUM).float()
        seen = visible * (1 - F.max_pool2d(dark, 3, 1, 1))
        small, small_seen = (F.avg_pool2d(part, TABLE // FILL) for part in (cells * seen, seen))
        return seen, small, small_seen

    def filling(self, small: torch.Tensor, small_seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute of `reduced` which of it counts as skin, (B, 1, F, F) 0..1, and colours and gain of `fill`."""
        tone = self.tone(small, small_seen)
        reference = self.albedo * tone + 4  # 4 levels: a shadow has no hue
        ratio = ((small / small_seen.clamp(min=1e-3) + 4) / reference).log()
        like = torch.maximum(self.core, self.like_skin(ratio, HUE, DARKER, BRIGHTER))
        like = like * self.like_inside(ratio, small_seen * like)
        around = small_seen * like
        for _ in range(2):
            around = F.avg_pool2d(around, PATCH, 1, PATCH // 2)
        like = like * torch.maximum(self.features, _smoothstep(around, *PATCH_SEEN))
        return like, *self.fill(small * like, small_seen * like, tone, self.unet)

    def tone(self, small: torch.Tensor, small_seen: torch.Tensor) -> torch.Tensor:
        """Compute this person's colour over the albedo's, (B, 3, 1, 1), in the middle of the face."""
        weight = self.core + 1e-6  # so that a face whose middle is hidden has a tone as well
        shown = (self.albedo * weight * small_seen).sum((2, 3), keepdim=True)
        return ((small * weight).sum((2, 3), keepdim=True) + 1e-3) / (shown + 1e-3)

    def fill(
        self, small: torch.Tensor, small_seen: torch.Tensor, tone: torch.Tensor, unet: UNet | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill colours (B, 3, F, F), times what was seen of them (B, 1, F, F): colours and gain of `fill`."""
        light = fit_light(small, small_seen, self.albedo, tone, self.basis)
        return fill(small, small_seen, plainer(self.albedo * light, self.plain), self.back, unet)

    def like_skin(self, ratio: torch.Tensor, hue: _Range, darker: _Range, brighter: _Range) -> torch.Tensor:
        """Say how like skin colours are: logarithms of their ratio to it (B, 3, F, F) -> (B, 1, F, F), 0 to 1."""
        red, green, blue = ratio.split(1, 1)  # runtimes are slow at reducing an axis of three
        shade = (red + green + blue) / 3
        brightest = torch.maximum(torch.maximum(red, green), blue)
        darkest = torch.minimum(torch.minimum(red, green), blue)
        apart = torch.maximum(brightest - shade, shade - darkest)
        bare = 1 - self.beard
        dark = _smoothstep(-shade, *darker) * bare
        stubble = self.beard * _smoothstep(-shade, *STUBBLE)
        return (1 - _smoothstep(apart * (2 - stubble), *hue)) * (1 - dark) * (1 - _smoothstep(shade, *brighter))

    def like_inside(self, ratio: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Say how like the skin further inside what is seen at its rim: 1 inside, and for brows, eyes and mouth.

        Args:
            ratio: (B, 3, F, F), of `like_skin`.
            seen: (B, 1, F, F) 0..1.

        Returns:
            (B, 1, F, F), 0 to 1.
        """
        inside = -F.max_pool2d(-seen, RIM, 1, RIM // 2)
        total = torch.cat([ratio * inside, inside], 1)
        near = F.avg_pool2d(total, INSIDE)
        for _ in range(2):
            near = F.avg_pool2d(near, 3, 1, 1)
        near = near + RIM_MEAN * total.mean((2, 3), keepdim=True)
        smooth = F.interpolate(near[:, :3] / (near[:, 3:] + 1e-6), scale_factor=INSIDE, mode="bilinear")
        alike = self.like_skin(ratio - smooth, RIM_HUE, RIM_DARKER, RIM_BRIGHTER)
        alike = F.avg_pool2d(alike, 3, 1, 1)
        # Of a profile, the wall behind the nose is seen at the rim of the features; few of them are so bright.
        own = self.features * (1 - _smoothstep((ratio - smooth).mean(1, keepdim=True), *BRIGHTER))
        return torch.maximum(torch.maximum(own, inside), alike)


def _widened(small: torch.Tensor) -> torch.Tensor:
    """From the size of the filling to that of the table."""
    return F.interpolate(small, scale_factor=TABLE // FILL, mode="bilinear")


def _painted(chart: Chart, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Interpolate values (S, C) of the skin's vertices at the table's texels: (C, T, T)."""
    texels = (values[chart.corners] * chart.weights[..., None]).sum(1)
    return np.asarray(texels.T.reshape(-1, chart.side, chart.side))


def _reduced(values: NDArray[np.floating[Any]]) -> torch.Tensor:
    """Reduce a map (T, T) or maps (C, T, T) of the table to the size of the filling: (1, C, F, F)."""
    maps = torch.from_numpy(values.astype(np.float32)).reshape(1, -1, TABLE, TABLE)
    return F.avg_pool2d(maps, TABLE // FILL)


def mix(colour: torch.Tensor, seen: torch.Tensor, guess: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Combine seen colours, those of the mirrored side, and the filling, at full size.

    Args:
        colour: (B, 3, S, S) 0..255.
        seen: (B, 1, T, T) 0..1.
        guess, gain: of `fill`.

    Returns:
        (B, 3, S, S): ``colour`` where seen is 1.
    """
    size = colour.shape[-1]
    wide, guess, gain = (F.interpolate(part, size=(size, size), mode="bilinear") for part in (seen, guess, gain))
    mirrored_seen = wide.flip(3)
    rest = colour.flip(3) * gain * mirrored_seen + guess * (1 - mirrored_seen)
    return colour * wide + rest * (1 - wide)


class TextureNet(nn.Module):
    """The exported module: crop, shapes, camera and parts -> texture and visibility.

    Inputs:
        crop_hd: (B, 3, 512, 512) uint8 RGB; shapes: (B, 3, N, 3) float32 dm, the first one posed;
        context: (B, 23) float32, camera in the last eight; parts: (B, 3, 128, 128) uint8 of the parser.

    Outputs, in the order of ``OUTPUTS``:
        texture (B, 3, 1024, 1024) uint8 RGB, row 0 at v = 1; visibility (B, 1, 1024, 1024) uint8, 255 = seen;
        places (B, 4, 256, 256) float32, of the table's texels: column and row in the 224 px crop, how much of it the
        camera sees (0..1, whatever lies there), and how much of it is seen skin (0..1, `visibility` before enlarging).
    """

    INPUTS = ("crop_hd", "shapes", "context", "parts")
    OUTPUTS = ("texture", "visibility", "places")
    # Inner tensors at which the graph is split for CPUs (`export/models/texture_split.py`).
    INNER = ("attributes", "small", "small_seen", "like", "guess", "gain")

    def __init__(self, model: AnyFaceModel, unet: UNet | None) -> None:
        super().__init__()
        chart = Chart.of(model, TABLE)
        self.sampler = UVSampler(chart)
        self.completion = Completion(chart, unet)

    @classmethod
    def load(cls, weights: Path | None, model: AnyFaceModel) -> TextureNet:
        """Read the U-Net (safetensors); None leaves it out: sampling and filling only, for other UV layouts.

        Raises:
            OSError, SafetensorError, RuntimeError: the file is missing, damaged, or of another network.
        """
        if weights is None:
            return cls(model, None).eval()
        unet = UNet()
        unet.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        return cls(model, unet).eval()

    def forward(
        self,
        crop_hd: torch.Tensor,
        shapes: torch.Tensor,
        context: torch.Tensor,
        parts: torch.Tensor,
        inner: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """Compute the outputs; with ``inner`` the tensors of ``INNER`` follow them."""
        attributes = self.sampler.attributes(shapes[:, 0])
        field = self.sampler.field(attributes)
        facing = self.sampler.visibility(field, attributes)
        shares = self.sampler.shares(field, parts)
        visible = facing * self.sampler.skin(shares, facing)
        colour = self.sampler.sample(crop_hd.float(), self.sampler.places(field, context[:, 15:23]))
        cells = F.avg_pool2d(colour, SIZE // TABLE)
        seen, small, small_seen = self.completion.reduced(cells, visible)
        like, guess, gain = self.completion.filling(small, small_seen)
        seen = seen * _widened(like)
        texture = (mix(colour, seen, guess, gain) + 0.5).clamp(0, 255).to(torch.uint8)
        wide = F.interpolate(seen, scale_factor=SIZE // TABLE, mode="bilinear")
        places = torch.cat([field[:, 0:2], facing, seen], 1)
        outputs = texture, (wide * 255 + 0.5).to(torch.uint8), places
        return (*outputs, attributes, small, small_seen, like, guess, gain) if inner else outputs


def example_inputs(vertices: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Return inputs of the class's shapes and types to trace with: black crop, shapes at the origin, unit cameras."""
    context = torch.zeros(batch, 23)
    context[:, 15:17], context[:, 19:21] = 1.0, 224 / 512
    crop = torch.zeros(batch, 3, CROP_HD, CROP_HD, dtype=torch.uint8)
    parts = torch.zeros(batch, len(PARTS), PARTS_SIDE, PARTS_SIDE, dtype=torch.uint8)
    return crop, torch.zeros(batch, 3, vertices, 3), context, parts
