"""The refinement: a second look at the face, laid flat by the regressor's first answer, that corrects its coefficients.

The crop is sampled at the places where the first answer puts a grid of surface points of the face model, at the full
224 px. Were the answer exact, every feature would lie at its own place of the grid; what a small network sees there is
the error that is left, nearly free of pose, identity and expression (cascaded regression: Dollar et al. 2010; Zhu et
al., 3DDFA, 2016).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP, project
from networks.face_model import COEFFICIENTS, FaceModel
from networks.uv_table import locate

ROWS, COLUMNS = 128, 96
"""Of the grid. A cell is 1.7 mm in the median on the inner face: about 1.7 pixels of the crop."""
LEFT, BOTTOM, CELL = 0.14, 0.02, 0.0075
"""The part of the UV plane that the grid covers, from the chin to the brow and from ear to ear."""
COARSE = 8
"""Cells of the grid across one cell of the coarse grid, whose displacements are learned from true places."""
DISPLACEMENT = 10.0
"""Pixels that one unit of the network's displacements stands for."""
CHANNELS = (24, 48, 96, 128)
HIDDEN = 256
CORRECTED = ("identity", "expression", "angle", "translation")
SCALES = {"identity": 0.5, "expression": 0.1, "angle": 0.05, "translation": 0.05}
"""Size of a correction of each kind: about what the first answer is wrong by."""


class Grid(nn.Module):
    """ROWS x COLUMNS points of the face model's surface.

    Attributes:
        corners: (G, 3) vertices around each point, G = ROWS * COLUMNS, row by row from the brow down.
        weights: (G, 3) barycentric coordinates.
        normals: (G, 3) of the mean face.
    """

    corners: torch.Tensor
    weights: torch.Tensor
    normals: torch.Tensor

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        u = LEFT + (np.arange(COLUMNS) + 0.5) * CELL
        v = BOTTOM + (np.arange(ROWS)[::-1] + 0.5) * CELL
        places = np.stack(np.meshgrid(u, v), -1).reshape(-1, 2)
        index, weights = locate(places, model.uv.astype(np.float64), model.triangles.astype(np.int64))
        corners = model.triangles[index].astype(np.int64)
        normals = trimesh.Trimesh(model.mean, model.triangles, process=False).vertex_normals
        at = (normals[corners] * weights[..., None]).sum(1)
        at /= np.linalg.norm(at, axis=1, keepdims=True)
        self.register_buffer("corners", torch.from_numpy(corners), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)
        self.register_buffer("normals", torch.from_numpy(at.astype(np.float32)), persistent=False)

    def coarse_vertices(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Find the heaviest corner of each point in the middle of a cell of the coarse grid, row by row."""
        at = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE].ravel()
        heaviest = self.weights[at].argmax(1, keepdim=True)
        return self.corners[at].gather(1, heaviest)[:, 0].numpy()

    def on(self, vertices: torch.Tensor) -> torch.Tensor:
        """Place the points of the grid (B, G, 3) on shapes (B, N, 3)."""
        corners = vertices[:, self.corners.flatten()].unflatten(1, (-1, 3))
        points: torch.Tensor = (corners * self.weights[..., None]).sum(2)
        return points


def to_grid_sample(places: torch.Tensor, size: int = CROP) -> torch.Tensor:
    """Convert places in pixels (B, G, 2) to those of `grid_sample`, (B, ROWS, COLUMNS, 2)."""
    return ((places + 0.5) * (2 / size) - 1).view(-1, ROWS, COLUMNS, 2)


def _block(channels: int, out: int, stride: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _block(channels, channels, 1)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class RefinementNet(nn.Module):
    """The face laid flat and the first coefficients -> corrected coefficients (B, 257).

    The convolutions take 0.15 G multiplications a face, a seventh of the ResNet50 at 112 px.
    """

    scales: torch.Tensor
    template: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = CHANNELS
        self.features = nn.Sequential(
            _block(9, a, 2, 5), _block(a, b, 2), Residual(b), _block(b, c, 2), Residual(c), Residual(c)
        )
        self.displacements = nn.Conv2d(c, 2, 3, 1, 1)
        self.deep = nn.Sequential(_block(c, d, 2), Residual(d))
        kept = [COEFFICIENTS[name] for name in CORRECTED]
        count = sum(part.stop - part.start for part in kept)
        cells = (ROWS // COARSE) * (COLUMNS // COARSE)
        self.look = nn.Linear(d * cells // 4 + 2 * cells, HIDDEN)
        self.mix = nn.Linear(HIDDEN + count, HIDDEN)
        self.correction = nn.Linear(HIDDEN, count)
        for layer in (self.displacements, self.correction):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        # What the mean face looks like at each place, and where that is: set by `show`, kept with the weights.
        self.register_buffer("template", torch.zeros(1, 5, ROWS, COLUMNS))
        scales = [
            torch.full((part.stop - part.start,), SCALES[name]) for name, part in zip(CORRECTED, kept, strict=True)
        ]
        self.register_buffer("scales", torch.cat(scales), persistent=False)

    @classmethod
    def load(cls, weights: Path) -> RefinementNet:
        """Read ``refinement.safetensors`` strictly."""
        net = cls()
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()})
        return net.eval()

    def show(self, grid: Grid, model: FaceModel) -> None:
        """Set the template: colours of the mean face, of mean 0 and deviation 1, and coordinates -1..1."""
        colours = grid.on(torch.from_numpy(model.albedo_mean)[None])[0].T.view(3, ROWS, COLUMNS)
        colours = (colours - colours.mean()) / (colours.std() + 1e-6)
        down, right = torch.linspace(-1, 1, ROWS), torch.linspace(-1, 1, COLUMNS)
        places = torch.stack(torch.meshgrid(down, right, indexing="ij"))
        self.template.copy_(torch.cat([colours, places])[None])

    def forward(self, flat: torch.Tensor, facing: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Correct the coefficients; see `look_at`."""
        return self.look_at(flat, facing, first)[0]

    def look_at(
        self, flat: torch.Tensor, facing: torch.Tensor, first: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Correct the coefficients and tell the displacements behind it.

        Args:
            flat: (B, 3, ROWS, COLUMNS) RGB 0..1, the crop at the grid's points.
            facing: (B, 1, ROWS, COLUMNS) cosine between normal and view, -1..1.
            first: (B, 257).

        Returns:
            Coefficients (B, 257), and how far the surface really is from where ``first`` puts it (B, 2, ROWS / COARSE,
            COLUMNS / COARSE): right and down, in units of DISPLACEMENT pixels.
        """
        mean = flat.mean((1, 2, 3), keepdim=True)
        deviation = ((flat - mean) ** 2).mean((1, 2, 3), keepdim=True).sqrt()
        template = self.template.expand(len(flat), -1, -1, -1)
        features = self.features(torch.cat([(flat - mean) / (deviation + 0.05), facing, template], 1))
        displacements = self.displacements(features)
        seen = torch.cat([self.deep(features).flatten(1), displacements.flatten(1)], 1)
        parts = [first[:, COEFFICIENTS[name]] for name in CORRECTED]
        mixed = torch.relu(self.mix(torch.cat([torch.relu(self.look(seen)), *parts], 1)))
        sizes = [part.shape[1] for part in parts]
        step = dict(zip(CORRECTED, (self.correction(mixed) * self.scales).split(sizes, 1), strict=True))
        corrected = [
            first[:, part] + step[name] if name in step else first[:, part]
            for name, part in sorted(COEFFICIENTS.items(), key=lambda item: item[1].start)
        ]
        return torch.cat(corrected, 1), displacements


class Refinement(nn.Module):
    """`RefinementNet` with the grid that it looks through: what is exported."""

    def __init__(self, model: FaceModel, net: RefinementNet) -> None:
        super().__init__()
        self.grid = Grid(model)
        self.net = net

    def forward(
        self, picture: torch.Tensor, first: torch.Tensor, posed: torch.Tensor, turn: torch.Tensor
    ) -> torch.Tensor:
        """Correct the coefficients of a crop.

        Args:
            picture: (B, 3, 224, 224) 0..1.
            first: (B, 257).
            posed: (B, N, 3) dm, the shape that ``first`` stands for, in the camera frame.
            turn: (B, 3, 3) its rotation, for row vectors.
        """
        places = project(self.grid.on(posed))
        flat = F.grid_sample(picture, to_grid_sample(places), align_corners=False, padding_mode="zeros")
        facing = (self.grid.normals @ turn)[..., 2].view(-1, 1, ROWS, COLUMNS)
        corrected: torch.Tensor = self.net(flat, facing, first)
        return corrected
