"""The texture network: from the 512 px crop and the posed shape to a complete UV texture, in one graph.

Sampling needs no rasteriser: which triangle lies under a texel never changes, so positions and normals are gathered
through a table. What the picture does not show (turned away, or hidden behind the nose) is filled from the other side
of the face, then by diffusion, then corrected by a light U-Net; what it shows well is left as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP_HD, DISTANCE, project_coordinates
from networks.face_model import FaceModel
from networks.uv_table import adjacency, texels

SIZE = 512  # texels a side
TABLE = 256  # positions are gathered at this size and interpolated: a mesh edge is about 6 texels of 512 long
ATTRIBUTES = 4  # of a vertex: column and row in the 224 px crop, depth, cosine between normal and view
DEPTH_GRID = 112  # cells of two crop pixels; finer ones would leave holes between the splatted texels
# Cosine between normal and view: below the first a texel is unseen, above the second fully seen.
GRAZING, FACING = 0.12, 0.42
# Decimetres behind the nearest surface of its cell: up to the first a texel is seen, from the second on hidden.
# A cell is 2 mm wide, so a surface at 75 degrees varies by 7 mm inside one.
TOUCHING, BEHIND = 0.07, 0.14
# Triangles around a vertex: hardly one has more, and the few that do are not worth twice as many look-ups for all.
USUAL = 6
# Sum of a cell's three colours, 0..255, up to which it lies beyond the picture.
DARK = 0.2
# What is not seen is guessed and corrected at a quarter of the size: skin that nobody saw has no detail to show. What
# comes from the other side of the face stays at full size.
COARSE = 4


def _summed(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rows (B, n, 3) added up as each line of ``table`` (k, m) names them: (B, m, 3)."""
    total = rows.index_select(1, table[0])
    for line in table[1:]:
        total = total + rows.index_select(1, line)
    return total


def _smoothstep(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


class UVSampler(nn.Module):
    """Picture -> UV space: colour (B, 3, 512, 512) in 0..255 and visibility (B, 1, 512, 512) in 0..1."""

    vertices: torch.Tensor
    weights: torch.Tensor
    around: torch.Tensor
    crowd: torch.Tensor
    crowded: torch.Tensor
    place: torch.Tensor
    triangles: torch.Tensor

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        triangles = model.triangles.astype(np.int64)
        corners, weights = texels(TABLE, model.uv.astype(np.float64), triangles)
        # One row for each corner (or neighbour): summing over rows runs along memory, summing inside them does not.
        self.register_buffer("vertices", torch.from_numpy(corners.reshape(-1, 3).T.copy()))
        # As wide as the attributes they weigh: one factor for four neighbours is several times slower than four.
        weights = np.repeat(weights.reshape(-1, 3).T[..., None], ATTRIBUTES, axis=2)
        self.register_buffer("weights", torch.from_numpy(np.ascontiguousarray(weights)))
        around = adjacency(triangles, len(model.mean))
        crowded = np.flatnonzero((around[:, USUAL:] < len(triangles)).any(1))
        self.register_buffer("around", torch.from_numpy(around[:, :USUAL].T.copy()))
        self.register_buffer("crowd", torch.from_numpy(around[crowded, USUAL:].T.copy()))
        # Row of each vertex's sum: its own, or for a crowded one behind all of them.
        place = np.arange(len(model.mean))
        place[crowded] = len(model.mean) + np.arange(len(crowded))
        self.register_buffer("crowded", torch.from_numpy(crowded))
        self.register_buffer("place", torch.from_numpy(place))
        self.register_buffer("triangles", torch.from_numpy(triangles.T.copy()))
        self.count = len(model.mean)

    def normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Unit vertex normals (B, N, 3), area-weighted."""
        total = self.area_normals(posed)
        return total / (total.square().sum(-1, keepdim=True) + 1e-20).sqrt()

    def area_normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Vertex normals (B, N, 3), sums over the triangles around, each as long as twice its area."""
        corner_a, corner_b, corner_c = (posed.index_select(1, corner) for corner in self.triangles)
        edge_a, edge_b = corner_b - corner_a, corner_c - corner_a
        (ax, ay, az), (bx, by, bz) = edge_a.unbind(-1), edge_b.unbind(-1)
        faces = torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)
        faces = F.pad(faces, (0, 0, 0, 1))  # the row that pads the table of neighbours
        total = _summed(faces, self.around)
        if not len(self.crowded):
            return total
        more = total.index_select(1, self.crowded) + _summed(faces, self.crowd)
        return torch.cat([total, more], 1).index_select(1, self.place)

    def visibility(self, field: torch.Tensor) -> torch.Tensor:
        """Seen share of every table texel (B, 1, T, T) from normals and a depth buffer of splatted texels.

        Args:
            field: (B, 4, T, T) of `field`.
        """
        place, depth, cosine = field[:, 0:2], field[:, 2].flatten(1), field[:, 3].flatten(1)
        cell = (place * (DEPTH_GRID / 224)).floor().clamp(0, DEPTH_GRID - 1)
        index = (cell[:, 1] * DEPTH_GRID + cell[:, 0]).long().flatten(1)
        empty = depth.new_full((1, DEPTH_GRID * DEPTH_GRID), -10.0).expand(depth.shape[0], -1)
        nearest = empty.scatter_reduce(1, index, depth, "amax")
        behind = nearest.gather(1, index) - depth
        seen = _smoothstep(cosine, GRAZING, FACING) * (1 - _smoothstep(behind, TOUCHING, BEHIND))
        return seen.view(-1, 1, TABLE, TABLE)

    def attributes(self, posed: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) dm -> (B, N, 4) per vertex: column and row in the 224 px crop, depth, cosine to the view.

        Depth is the camera frame's z, larger nearer; the cosine is that between normal and the line to the camera.
        """
        # Coordinate by coordinate: runtimes are slow where the innermost axis is short.
        (x, y, z), (nx, ny, nz) = (
            [part.flatten(1) for part in rows.split(1, 2)] for rows in (posed, self.area_normals(posed))
        )
        away = DISTANCE - z
        lengths = (nx * nx + ny * ny + nz * nz + 1e-20) * (x * x + y * y + away * away)
        facing = (nz * away - nx * x - ny * y) / lengths.sqrt()
        return torch.stack([*project_coordinates(x, y, z), z, facing], 2)

    def field(self, attributes: torch.Tensor) -> torch.Tensor:
        """Attributes of vertices (B, N, 4) -> of table texels (B, 4, T, T)."""
        corners = zip(self.vertices, self.weights, strict=True)
        a, b, c = (attributes.index_select(1, vertex) * weight for vertex, weight in corners)
        total: torch.Tensor = a + b + c
        return total.transpose(1, 2).reshape(-1, ATTRIBUTES, TABLE, TABLE)

    def forward(
        self, crop_hd: torch.Tensor, posed: torch.Tensor, camera: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample the picture -> colour (B, 3, 512, 512) 0..255 and seen share (B, 1, 512, 512) 0..1.

        Args:
            crop_hd: (B, 3, 512, 512) float, 0..255.
            posed: (B, N, 3) decimetres, camera frame.
            camera: (B, 8): scale x, y and origin x, y of the 224 px crop, then of the 512 px crop, in source pixels.
        """
        field = self.field(self.attributes(posed))
        return self.sample(crop_hd, field, self.visibility(field), camera)

    def sample(
        self, crop_hd: torch.Tensor, field: torch.Tensor, visible: torch.Tensor, camera: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `forward`, from what is known of the shape: ``field`` and, of that, ``visible``."""
        # Pixel of the small crop -> source -> pixel of the large one -> -1..1 across it.
        small, small_at, large, large_at = (part[..., None, None] for part in camera.split(2, 1))
        across = 2 / CROP_HD
        grid = field[:, 0:2] * (small / large * across) + (((small_at - large_at) / large + 0.5) * across - 1)
        grid = F.interpolate(grid, scale_factor=SIZE // TABLE, mode="bilinear")
        colour = F.grid_sample(crop_hd, grid.permute(0, 2, 3, 1), align_corners=False, padding_mode="zeros")
        # Beyond the picture, and beyond the crop, all is exactly black, which no photographed skin is. Where that ends
        # colours are mixed with black: the last seen cells before it do not count either.
        red, green, blue = F.avg_pool2d(colour, SIZE // TABLE).split(1, 1)
        dark = (red + green + blue <= DARK).float()
        seen = visible * (1 - F.max_pool2d(dark, 3, 1, 1))
        return colour, F.interpolate(seen, scale_factor=SIZE // TABLE, mode="bilinear")


def complete(colour: torch.Tensor, seen: torch.Tensor, unet: UNet | None = None) -> torch.Tensor:
    """Complete a texture: unseen texels from the mirrored side where that is seen, the rest by pull and push.

    Args:
        colour: (B, 3, S, S) 0..255. seen: (B, 1, S, S) 0..1.
        unet: corrects what is not seen; without one it stays as it was filled.

    Returns:
        (B, 3, S, S): ``colour`` where seen is 1, elsewhere a smooth continuation; with ``unet``, it may leave 0..255.
    """
    own = colour * seen
    filling = fill(F.avg_pool2d(own, COARSE), F.avg_pool2d(seen, COARSE), unet)
    return mix(colour, own, seen, filling)


def fill(small: torch.Tensor, small_seen: torch.Tensor, unet: UNet | None) -> tuple[torch.Tensor, ...]:
    """What to put where nothing was seen, at a quarter of the size.

    Args:
        small: (B, 3, s, s) 0..255, the colours times the share that was seen. small_seen: (B, 1, s, s), that share.
        unet: see `complete`.

    Returns:
        (B, 3, s, s): colours for where the other side was not seen either, and, with ``unet``, what to add everywhere.
    """
    # The mirror side is trusted less than the picture itself: it wins only where nothing else is known.
    known = small_seen + small_seen.flip(3) * (1 - small_seen)
    weighted = small + small.flip(3) * (1 - small_seen)
    guess = _pull_push(known, weighted)
    return (guess,) if unet is None else (guess, unet(weighted + guess * (1 - known), small_seen))


def mix(colour: torch.Tensor, own: torch.Tensor, seen: torch.Tensor, filling: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Seen colours ``own`` (``colour`` times ``seen``), and for the rest the other side and the `fill` at full size."""
    guess, *corrections = (F.interpolate(part, scale_factor=COARSE, mode="bilinear") for part in filling)
    mirrored_seen = seen.flip(3)
    rest = colour.flip(3) * mirrored_seen + guess * (1 - mirrored_seen)
    for correction in corrections:
        rest = rest + correction
    return own + rest * (1 - seen)


def _pull_push(weight: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Colours (B, 3, s, s) where the weight (B, 1, s, s) is not 0, and a smooth continuation of them elsewhere.

    Args:
        weight: 0..1, how much is known.
        total: the colours times it.
    """
    levels = [(weight, total)]
    while levels[-1][0].shape[-1] > 1:
        weight, total = levels[-1]
        levels.append((F.avg_pool2d(weight, 2), F.avg_pool2d(total, 2)))
    weight, total = levels[-1]
    guess = total / weight.clamp(min=1e-4)
    for weight, total in reversed(levels[:-1]):
        guess = F.interpolate(guess, scale_factor=2, mode="bilinear")
        trust = (weight * 4).clamp(0, 1)  # a cell a quarter known speaks for itself
        guess = total / weight.clamp(min=1e-4) * trust + guess * (1 - trust)
    return guess


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Filled colours and visibility at 128 -> correction at 128, computed at 64: about 0.4 GMAC."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(4, w, 4, 2, 1), nn.ReLU(inplace=True), _block(w, w))
        self.down1 = nn.Sequential(_block(w, 2 * w, 2), _block(2 * w, 2 * w))
        self.down2 = nn.Sequential(_block(2 * w, 3 * w, 2), _block(3 * w, 3 * w))
        self.down3 = nn.Sequential(_block(3 * w, 4 * w, 2), _block(4 * w, 4 * w))
        self.up2 = _block(4 * w + 3 * w, 3 * w)
        self.up1 = _block(3 * w + 2 * w, 2 * w)
        self.up0 = _block(2 * w + w, w)
        self.head = nn.Conv2d(w, 12, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, filled: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(B, 3, 128, 128) 0..255 and (B, 1, 128, 128) 0..1 -> what to add to the former, in its unit."""
        a = self.stem(torch.cat([filled / 255 - 0.5, seen], 1))
        b = self.down1(a)
        c = self.down2(b)
        d = self.down3(c)
        c = self.up2(torch.cat([F.interpolate(d, scale_factor=2, mode="bilinear"), c], 1))
        b = self.up1(torch.cat([F.interpolate(c, scale_factor=2, mode="bilinear"), b], 1))
        a = self.up0(torch.cat([F.interpolate(b, scale_factor=2, mode="bilinear"), a], 1))
        return F.pixel_shuffle(self.head(a), 2) * 255


class TextureNet(nn.Module):
    """What is exported: crop, shapes and camera in, texture and visibility out.

    Inputs:
        crop_hd: (B, 3, 512, 512) uint8 RGB; shapes: (B, 3, N, 3) float32 dm, the first one posed;
        context: (B, 23) float32, camera in the last eight.

    Outputs, in the order of ``OUTPUTS``:
        texture (B, 3, 512, 512) uint8 RGB, row 0 at v = 1; visibility (B, 1, 512, 512) uint8, 255 = seen.
    """

    OUTPUTS = ("texture", "visibility")
    # Tensors inside, by which the graph is cut for CPUs (`export/models/texture_split.py`); the last only with a U-Net.
    INNER = ("attributes", "field", "visible", "small", "small_seen", "guess", "correction")

    def __init__(self, model: FaceModel, unet: UNet | None) -> None:
        super().__init__()
        self.sampler = UVSampler(model)
        self.unet = unet

    @classmethod
    def load(cls, weights: Path | None, model: FaceModel) -> TextureNet:
        """Read the U-Net (safetensors); ``None`` leaves it out: sampling and filling only, for other UV layouts."""
        if weights is None:
            return cls(model, None).eval()
        unet = UNet()
        unet.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        return cls(model, unet).eval()

    def forward(
        self, crop_hd: torch.Tensor, shapes: torch.Tensor, context: torch.Tensor, inner: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """The outputs and, with ``inner``, the tensors of ``INNER`` behind them."""
        attributes = self.sampler.attributes(shapes[:, 0])
        field = self.sampler.field(attributes)
        visible = self.sampler.visibility(field)
        colour, seen = self.sampler.sample(crop_hd.float(), field, visible, context[:, 15:23])
        own = colour * seen
        small, small_seen = F.avg_pool2d(own, COARSE), F.avg_pool2d(seen, COARSE)
        filling = fill(small, small_seen, self.unet)
        texture = (mix(colour, own, seen, filling) + 0.5).clamp(0, 255).to(torch.uint8)
        outputs = texture, (seen * 255 + 0.5).to(torch.uint8)
        return (*outputs, attributes, field, visible, small, small_seen, *filling) if inner else outputs


def example_inputs(vertices: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs of the right shapes and types for tracing."""
    context = torch.zeros(batch, 23)
    context[:, 15:17], context[:, 19:21] = 1.0, 224 / 512
    crop = torch.zeros(batch, 3, CROP_HD, CROP_HD, dtype=torch.uint8)
    return crop, torch.zeros(batch, 3, vertices, 3), context
