"""The texture network: from the 512 px crop and the posed shape to a complete UV texture, in one graph.

Sampling needs no rasteriser: the triangle under a texel never changes, so positions and normals are gathered through a
table. Texels that the picture does not show (turned away, or hidden behind the nose) are filled from the other side of
the face, then by diffusion, then corrected by a small U-Net; visible texels are left as they are.
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

SIZE = 512  # texels along a side of the texture
TABLE = 256  # size at which positions are gathered, then interpolated: a mesh edge is about 6 texels of 512 long
ATTRIBUTES = 4  # of a vertex: column and row in the 224 px crop, depth, cosine between normal and view
DEPTH_GRID = 112  # cells of two crop pixels; finer ones would leave holes between the splatted texels
# Cosine between normal and view: below the first a texel is unseen, above the second fully seen.
UNSEEN_COSINE, SEEN_COSINE = 0.12, 0.42
# Decimetres behind the nearest surface of its cell: up to the first a texel is seen, from the second on hidden.
# A cell is 2 mm wide, so a surface at 75 degrees varies by 7 mm inside one.
SEEN_DEPTH, HIDDEN_DEPTH = 0.07, 0.14
# Triangles around a vertex for which all vertices are looked up; the few vertices that have more get them in addition.
USUAL_NEIGHBOURS = 6
# Sum of a cell's three colours, 0..255, up to which it lies beyond the picture.
BLACK_SUM = 0.2
# Unseen texels are filled and corrected at a quarter of the size, as their detail is unknown. What is mirrored from the
# other side of the face stays at full size.
FILL_DOWNSCALE = 4


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
    """Sample a picture in UV space: colour (B, 3, 512, 512) in 0..255 and visibility (B, 1, 512, 512) in 0..1.

    Buffers: ``crowded`` lists the vertices with more than USUAL_NEIGHBOURS triangles around them, ``place`` the row of
    each vertex's sum in `area_normals`.
    """

    vertices: torch.Tensor
    weights: torch.Tensor
    neighbours: torch.Tensor
    extra_neighbours: torch.Tensor
    crowded: torch.Tensor
    place: torch.Tensor
    triangles: torch.Tensor

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        triangles = model.triangles.astype(np.int64)
        corners, weights = texels(TABLE, model.uv.astype(np.float64), triangles)
        # One row for each corner (or neighbour): summing over rows runs along memory, summing inside them does not.
        self.register_buffer("vertices", torch.from_numpy(corners.reshape(-1, 3).T.copy()))
        # Repeated for each attribute: broadcasting one factor to four values is several times slower.
        weights = np.repeat(weights.reshape(-1, 3).T[..., None], ATTRIBUTES, axis=2)
        self.register_buffer("weights", torch.from_numpy(np.ascontiguousarray(weights)))
        neighbours = adjacency(triangles, len(model.mean))
        crowded = np.flatnonzero((neighbours[:, USUAL_NEIGHBOURS:] < len(triangles)).any(1))
        self.register_buffer("neighbours", torch.from_numpy(neighbours[:, :USUAL_NEIGHBOURS].T.copy()))
        self.register_buffer("extra_neighbours", torch.from_numpy(neighbours[crowded, USUAL_NEIGHBOURS:].T.copy()))
        # Row of each vertex's sum: its own index, or for a crowded one a row behind those of all vertices.
        place = np.arange(len(model.mean))
        place[crowded] = len(model.mean) + np.arange(len(crowded))
        self.register_buffer("crowded", torch.from_numpy(crowded))
        self.register_buffer("place", torch.from_numpy(place))
        self.register_buffer("triangles", torch.from_numpy(triangles.T.copy()))
        self.count = len(model.mean)

    def normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Compute unit vertex normals (B, N, 3), weighted by the triangles' areas, of shapes (B, N, 3)."""
        total = self.area_normals(posed)
        return total / (total.square().sum(-1, keepdim=True) + 1e-20).sqrt()

    def area_normals(self, posed: torch.Tensor) -> torch.Tensor:
        """Sum the normals of the triangles around each vertex, as long as twice their area: (B, N, 3) -> (B, N, 3)."""
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

    def visibility(self, field: torch.Tensor) -> torch.Tensor:
        """Compute the visibility of every table texel from its normal and a depth buffer of splatted texels.

        Args:
            field: (B, 4, T, T) of `field`.

        Returns:
            (B, 1, T, T), 0 hidden to 1 seen.
        """
        place, depth, cosine = field[:, 0:2], field[:, 2].flatten(1), field[:, 3].flatten(1)
        cell = (place * (DEPTH_GRID / 224)).floor().clamp(0, DEPTH_GRID - 1)
        index = (cell[:, 1] * DEPTH_GRID + cell[:, 0]).long().flatten(1)
        empty = depth.new_full((1, DEPTH_GRID * DEPTH_GRID), -10.0).expand(depth.shape[0], -1)
        nearest = empty.scatter_reduce(1, index, depth, "amax")
        depth_behind = nearest.gather(1, index) - depth
        seen = _smoothstep(cosine, UNSEEN_COSINE, SEEN_COSINE) * (
            1 - _smoothstep(depth_behind, SEEN_DEPTH, HIDDEN_DEPTH)
        )
        return seen.view(-1, 1, TABLE, TABLE)

    def attributes(self, posed: torch.Tensor) -> torch.Tensor:
        """Compute what sampling needs of each vertex: posed shapes (B, N, 3) in dm, camera frame -> (B, N, 4).

        Column and row in the 224 px crop; depth, the camera frame's z, larger nearer; the cosine between the normal and
        the line to the camera.
        """
        # One coordinate at a time: runtimes are slow where the innermost axis is short.
        (x, y, z), (nx, ny, nz) = (
            [part.flatten(1) for part in rows.split(1, 2)] for rows in (posed, self.area_normals(posed))
        )
        away = DISTANCE - z
        lengths = (nx * nx + ny * ny + nz * nz + 1e-20) * (x * x + y * y + away * away)
        facing = (nz * away - nx * x - ny * y) / lengths.sqrt()
        return torch.stack([*project_coordinates(x, y, z), z, facing], 2)

    def field(self, attributes: torch.Tensor) -> torch.Tensor:
        """Interpolate the vertices' attributes (B, N, 4) at the table's texels: (B, 4, T, T)."""
        corners = zip(self.vertices, self.weights, strict=True)
        a, b, c = (attributes.index_select(1, vertex) * weight for vertex, weight in corners)
        total: torch.Tensor = a + b + c
        return total.transpose(1, 2).reshape(-1, ATTRIBUTES, TABLE, TABLE)

    def forward(
        self, crop_hd: torch.Tensor, posed: torch.Tensor, camera: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample the picture: colour (B, 3, 512, 512) 0..255 and visibility (B, 1, 512, 512) 0..1.

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
        """Sample the picture as `forward` does, given `field` (B, 4, T, T) and its `visibility` (B, 1, T, T)."""
        # Pixels of the 224 px crop -> of the source -> of the 512 px crop -> -1..1 across it.
        small, small_at, large, large_at = (part[..., None, None] for part in camera.split(2, 1))
        across = 2 / CROP_HD
        grid = field[:, 0:2] * (small / large * across) + (((small_at - large_at) / large + 0.5) * across - 1)
        grid = F.interpolate(grid, scale_factor=SIZE // TABLE, mode="bilinear")
        colour = F.grid_sample(crop_hd, grid.permute(0, 2, 3, 1), align_corners=False, padding_mode="zeros")
        # Beyond the picture and the crop pixels are exactly black, which skin never is. At that border interpolation
        # mixes colours with black, so the cells beside it count as unseen as well.
        red, green, blue = F.avg_pool2d(colour, SIZE // TABLE).split(1, 1)
        dark = (red + green + blue <= BLACK_SUM).float()
        seen = visible * (1 - F.max_pool2d(dark, 3, 1, 1))
        return colour, F.interpolate(seen, scale_factor=SIZE // TABLE, mode="bilinear")


def complete(colour: torch.Tensor, seen: torch.Tensor, unet: UNet | None = None) -> torch.Tensor:
    """Complete a texture: unseen texels from the mirrored side where that is seen, the rest by pull-push.

    Args:
        colour: (B, 3, S, S) 0..255.
        seen: visibility (B, 1, S, S) 0..1.
        unet: corrects the unseen texels; None leaves them as they are filled.

    Returns:
        (B, 3, S, S): ``colour`` where seen is 1, elsewhere a smooth continuation; with ``unet``, it may leave 0..255.
    """
    visible_colour = colour * seen
    filling = fill(F.avg_pool2d(visible_colour, FILL_DOWNSCALE), F.avg_pool2d(seen, FILL_DOWNSCALE), unet)
    return mix(colour, visible_colour, seen, filling)


def fill(small: torch.Tensor, small_seen: torch.Tensor, unet: UNet | None) -> tuple[torch.Tensor, ...]:
    """Compute the filling of unseen texels, at a quarter of the size.

    Args:
        small: (B, 3, s, s) 0..255, colours times visibility.
        small_seen: (B, 1, s, s) 0..1, visibility.
        unet: see `complete`.

    Returns:
        (B, 3, s, s): colours for texels whose mirrored one is unseen as well, and, with ``unet``, a correction to add.
    """
    # The mirrored side counts only as far as the texel itself is unseen.
    known_weight = small_seen + small_seen.flip(3) * (1 - small_seen)
    weighted = small + small.flip(3) * (1 - small_seen)
    guess = _pull_push(known_weight, weighted)
    return (guess,) if unet is None else (guess, unet(weighted + guess * (1 - known_weight), small_seen))


def mix(
    colour: torch.Tensor, visible_colour: torch.Tensor, seen: torch.Tensor, filling: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Combine visible colours, mirrored ones and the filling, at full size.

    Args:
        colour: (B, 3, S, S) 0..255.
        visible_colour: ``colour`` times ``seen``.
        seen: visibility (B, 1, S, S) 0..1.
        filling: of `fill`.

    Returns:
        (B, 3, S, S).
    """
    guess, *corrections = (F.interpolate(part, scale_factor=FILL_DOWNSCALE, mode="bilinear") for part in filling)
    mirrored_seen = seen.flip(3)
    rest = colour.flip(3) * mirrored_seen + guess * (1 - mirrored_seen)
    for correction in corrections:
        rest = rest + correction
    return visible_colour + rest * (1 - seen)


def _pull_push(weight: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Interpolate scattered colours by pull-push (Gortler et al. 1996): average down the pyramid, fill on the way up.

    Args:
        weight: (B, 1, s, s) 0..1, how much of a cell is known.
        total: (B, 3, s, s), colours times the weight.

    Returns:
        (B, 3, s, s): the colours where they are known, a smooth continuation elsewhere.
    """
    levels = [(weight, total)]
    while levels[-1][0].shape[-1] > 1:
        weight, total = levels[-1]
        levels.append((F.avg_pool2d(weight, 2), F.avg_pool2d(total, 2)))
    weight, total = levels[-1]
    guess = total / weight.clamp(min=1e-4)
    for weight, total in reversed(levels[:-1]):
        guess = F.interpolate(guess, scale_factor=2, mode="bilinear")
        trust = (weight * 4).clamp(0, 1)  # from a quarter known on, a cell keeps its own colour
        guess = total / weight.clamp(min=1e-4) * trust + guess * (1 - trust)
    return guess


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Correct filled colours, at 128 x 128 texels and mostly computed at 64 x 64: about 0.4 GMAC."""

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
        """Compute what to add to filled colours (B, 3, 128, 128) 0..255, given visibility (B, 1, 128, 128) 0..1."""
        a = self.stem(torch.cat([filled / 255 - 0.5, seen], 1))
        b = self.down1(a)
        c = self.down2(b)
        d = self.down3(c)
        c = self.up2(torch.cat([F.interpolate(d, scale_factor=2, mode="bilinear"), c], 1))
        b = self.up1(torch.cat([F.interpolate(c, scale_factor=2, mode="bilinear"), b], 1))
        a = self.up0(torch.cat([F.interpolate(b, scale_factor=2, mode="bilinear"), a], 1))
        return F.pixel_shuffle(self.head(a), 2) * 255


class TextureNet(nn.Module):
    """The exported module: crop, shapes and camera -> texture and visibility.

    Inputs:
        crop_hd: (B, 3, 512, 512) uint8 RGB; shapes: (B, 3, N, 3) float32 dm, the first one posed;
        context: (B, 23) float32, camera in the last eight.

    Outputs, in the order of ``OUTPUTS``:
        texture (B, 3, 512, 512) uint8 RGB, row 0 at v = 1; visibility (B, 1, 512, 512) uint8, 255 = seen.
    """

    OUTPUTS = ("texture", "visibility")
    # Inner tensors at which the graph is split for CPUs (`export/models/texture_split.py`); the last only with a U-Net.
    INNER = ("attributes", "field", "visible", "small", "small_seen", "guess", "correction")

    def __init__(self, model: FaceModel, unet: UNet | None) -> None:
        super().__init__()
        self.sampler = UVSampler(model)
        self.unet = unet

    @classmethod
    def load(cls, weights: Path | None, model: FaceModel) -> TextureNet:
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
        self, crop_hd: torch.Tensor, shapes: torch.Tensor, context: torch.Tensor, inner: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """Compute the outputs; with ``inner`` the tensors of ``INNER`` follow them."""
        attributes = self.sampler.attributes(shapes[:, 0])
        field = self.sampler.field(attributes)
        visible = self.sampler.visibility(field)
        colour, seen = self.sampler.sample(crop_hd.float(), field, visible, context[:, 15:23])
        visible_colour = colour * seen
        small, small_seen = F.avg_pool2d(visible_colour, FILL_DOWNSCALE), F.avg_pool2d(seen, FILL_DOWNSCALE)
        filling = fill(small, small_seen, self.unet)
        texture = (mix(colour, visible_colour, seen, filling) + 0.5).clamp(0, 255).to(torch.uint8)
        outputs = texture, (seen * 255 + 0.5).to(torch.uint8)
        return (*outputs, attributes, field, visible, small, small_seen, *filling) if inner else outputs


def example_inputs(vertices: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs of the class's shapes and types to trace with: black crop, shapes at the origin, unit cameras."""
    context = torch.zeros(batch, 23)
    context[:, 15:17], context[:, 19:21] = 1.0, 224 / 512
    crop = torch.zeros(batch, 3, CROP_HD, CROP_HD, dtype=torch.uint8)
    return crop, torch.zeros(batch, 3, vertices, 3), context
