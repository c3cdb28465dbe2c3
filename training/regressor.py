"""Step 4, regressor: ResNet50 from scratch on renders of exact heads (3D losses) and real pictures (2D points only).

The same code runs on CPU and GPU, resumes from its checkpoint, and picks up render shards that appear while it runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import trimesh
from safetensors.torch import save_file
from scipy.spatial import cKDTree
from torch import nn

from networks.alignment import crop_transform
from networks.camera import project, rotation
from networks.face_model import COEFFICIENTS, FaceModel
from networks.identity_correction import nearest_translation
from networks.regressor import ReconstructionNet, window_of
from training.corrected import FixedCorrection, assign
from training.fold import fold, unfold
from training.muon import ConvolutionMuon
from training.precision import autocast
from training.registration import MAX_SCATTER_MM
from training.render import MARGIN, SIZE, five_points, five_points_of_teacher

# Pixels between the eyes of an aligned 224 px crop: errors are measured in this unit.
EYES = 65.0
RENDERS_A_BATCH, PICTURES_A_BATCH = 16, 8
MIRROR_DM = 0.03  # a teacher's point without a counterpart this near is left out of mirrored pictures
HEAD_RATE = 1 / 16  # of the learning rate, for heads that read a whole map: sixteen times the inputs move together
PAUSE_SECONDS = 20.0  # a step that takes longer was stopped from outside: the rest does not count as training
HELD_OUT = 96  # real pictures that only monitor, or a tenth where there are few
KNOWN = ("identity", "expression", "angle", "camera")  # of a render, in its file of labels
# What the shipped weights have seen; written into their metadata.
SOURCES = (
    "SFHQ-dataset (MIT, SelfishGene), official US portraits (public domain), us18f (CC0); points by MediaPipe Face Mesh"
    " (Apache-2.0); geometry of ICT-FaceKit light (MIT, (c) 2020 USC ICT)"
)


class Probes(nn.Module):
    """A few hundred vertices of the face model, enough to hold a shape, decoded cheaply.

    P probes: 450 random ones of the inner face and the 68 landmarks (``shape_probes``), then the vertices under the
    teacher's steady points (``teacher_probes``; ``teacher`` holds the numbers of those points among the 478), then
    vertices that the caller wants beside them (``more_probes``).
    """

    mean: torch.Tensor
    normals: torch.Tensor
    identity: torch.Tensor
    expression: torch.Tensor
    teacher_mirror: torch.Tensor
    has_mirror: torch.Tensor

    def __init__(
        self,
        model: FaceModel,
        teacher_map: Path,
        seed: int = 0,
        mirrored: bool = False,
        more: npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        super().__init__()
        found = np.load(teacher_map)
        self.teacher = np.flatnonzero(found["scatter_mm"] < MAX_SCATTER_MM)
        rng = np.random.default_rng(seed)
        # inner face only: ears and throat are guesses in most pictures
        inner = np.flatnonzero(np.linalg.norm(model.mean - model.mean[model.landmarks[30]], axis=1) < 1.05)
        vertices = np.concatenate(
            [
                rng.choice(inner, 450, replace=False),
                model.landmarks,
                found["vertex"][self.teacher],
                np.zeros(0, int) if more is None else more,
            ]
        )
        self.shape_probes = slice(0, 450 + 68)
        self.landmark_probes = slice(450, 450 + 68)
        self.teacher_probes = slice(450 + 68, 450 + 68 + len(self.teacher))
        self.more_probes = slice(450 + 68 + len(self.teacher), len(vertices))
        # The mean face's: what comes off the surface is told from what slides along it.
        normals = trimesh.Trimesh(model.mean, model.triangles, process=False).vertex_normals[vertices]
        self.register_buffer("normals", torch.from_numpy(normals.astype(np.float32)))
        across = cKDTree(model.mean).query(model.mean[vertices] * [-1, 1, 1])[1]
        if mirrored:
            # A face in the looking-glass: each probe takes what the vertex on the other side does, x turned round.
            vertices, sign = across, np.array([-1, 1, 1], np.float32)
        else:
            sign = np.ones(3, np.float32)
        for name, array in (
            ("mean", model.mean[vertices] * sign),
            ("identity", (model.identity[:, vertices] * sign).reshape(80, -1)),
            ("expression", (model.expression[:, vertices] * sign).reshape(64, -1)),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))
        # The teacher's point on the other side of the face, for each of its points.
        steady = found["vertex"][self.teacher]
        gap, other = cKDTree(model.mean[steady]).query(model.mean[steady] * [-1, 1, 1])
        self.register_buffer("teacher_mirror", torch.from_numpy(other))
        self.register_buffer("has_mirror", torch.from_numpy(gap < MIRROR_DM))

    def neutral(self, identity: torch.Tensor) -> torch.Tensor:
        """Decode identities (B, 80) to neutral probes (B, P, 3) dm."""
        return self.mean + (identity @ self.identity).view(len(identity), -1, 3)

    def expressed(self, neutral: torch.Tensor, expression: torch.Tensor) -> torch.Tensor:
        """Add expressions (B, 64) to neutral probes: (B, P, 3) dm."""
        return neutral + (expression @ self.expression).view(len(expression), -1, 3)

    def observable(self, neutral: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Remove what no picture shows of an exact head: its size and where its origin lies.

        More than half of the energy of the identity modes is size and place of the origin; a loss on raw positions
        drowns the shape in it.

        Args:
            neutral: (B, P, 3) dm.

        Returns:
            scale (B, 1, 1), centre (B, 1, 3) and the mean face's centre (1, 3), such that
            ``(points - centre) * scale + mean_centre`` has the size and the place of the mean face.
        """
        inner, mean = neutral[:, self.shape_probes], self.mean[self.shape_probes]
        centre, mean_centre = inner.mean(1, keepdim=True), mean.mean(0, keepdim=True)
        scale = (mean - mean_centre).norm() / (inner - centre).flatten(1).norm(dim=1)
        return scale.view(-1, 1, 1), centre, mean_centre


class Renders:
    """Shards of `training.render`, memory-mapped; new ones are found while training runs."""

    def __init__(self, stem: Path) -> None:
        self.stem = stem
        self.crops: list[npt.NDArray[np.uint8]] = []
        self.labels: list[dict[str, npt.NDArray[np.float32]]] = []
        self.seen: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Map the shards that have appeared since the last call."""
        for path in sorted(self.stem.parent.glob(f"{self.stem.name}-*.labels.npz")):
            if path not in self.seen:
                self.seen.add(path)
                self.crops.append(np.load(path.with_name(path.name.replace(".labels.npz", ".npy")), mmap_mode="r"))
                with np.load(path, allow_pickle=False) as data:
                    self.labels.append({key: data[key] for key in KNOWN})

    def __len__(self) -> int:
        return sum(map(len, self.crops))

    def sample(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Draw ``n`` random renders: crops (n, 3, 288, 288) uint8 RGB, and what `training.render.LABELS` lists."""
        picks = [(s, int(rng.integers(len(self.crops[s])))) for s in rng.integers(len(self.crops), size=n)]
        crops = torch.from_numpy(np.stack([self.crops[s][k] for s, k in picks])).permute(0, 3, 1, 2)
        labels = {key: torch.from_numpy(np.stack([self.labels[s][key][k] for s, k in picks])) for key in self.labels[0]}
        return crops, labels


def cut_pictures(folder: Path, labels: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut real pictures, aligned like the service's crops; those without a label are left out.

    Returns:
        crops (n, 3, 288, 288) uint8 RGB with a margin; points (n, 478, 2) and outer-eye distances (n,) in pixels of
        the 224 px crop, float32.
    """
    with np.load(labels, allow_pickle=False) as data:
        good = np.flatnonzero(np.isfinite(data["points"][:, 0, 0]))
        files, points = data["files"][good], data["points"][good][:, :, :2].astype(np.float64)
    crops, places = [], []
    for file, point in zip(files, points, strict=True):
        picture = cv2.imread(str(folder / str(file)))
        scale, dx, dy = crop_transform(five_points_of_teacher(point), picture.shape[0])
        matrix = np.array([[scale, 0, dx + MARGIN], [0, scale, dy + MARGIN]])
        if scale < 0.7:
            picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
        crops.append(cv2.warpAffine(picture, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)[..., ::-1])
        places.append(point * scale + [dx, dy])
    stacked = np.stack(places)
    eyes = np.linalg.norm(stacked[:, 33] - stacked[:, 263], axis=1)
    return (
        torch.from_numpy(np.ascontiguousarray(np.stack(crops))).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(stacked.astype(np.float32)),
        torch.from_numpy(eyes.astype(np.float32)),
    )


@dataclass
class Warp:
    """A random similarity of B crops: rotation about the centre, scale, shift; points and angles follow it.

    Attributes:
        angle: (B,) radians, added to the roll.
        scale: (B,).
        shift: (B, 2) pixels, right and down.
    """

    angle: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def random(cls, n: int, train: bool) -> Warp:
        """Draw ``n`` random warps; without ``train`` none of them moves anything."""
        if not train:
            return cls(torch.zeros(n), torch.ones(n), torch.zeros(n, 2))
        return cls(torch.randn(n) * 0.2, torch.exp(torch.randn(n) * 0.05), torch.randn(n, 2) * 5)

    @property
    def matrix(self) -> torch.Tensor:
        """(B, 2, 2), for (column, row) about the centre."""
        c, s = self.angle.cos() * self.scale, self.angle.sin() * self.scale
        # y runs down: a positive roll (counter-clockwise) is [c s; -s c] on (column, row)
        return torch.stack([c, s, -s, c], 1).view(-1, 2, 2)

    def points(self, points: torch.Tensor) -> torch.Tensor:
        """Warp points (B, P, 2) in crop pixels."""
        centre = 111.5
        return (points - centre) @ self.matrix.transpose(1, 2) + centre + self.shift[:, None]

    def picture(self, crops: torch.Tensor, resolution: int) -> torch.Tensor:
        """Warp pictures (B, 3, 288, 288) uint8 to (B, 3, resolution, resolution) 0..1."""
        n, step = len(crops), 224 / resolution
        source = crops.float() / 255
        if step >= 2:  # half the picture first, or every second pixel would alias
            source = F.avg_pool2d(source, 2)
        axis = (torch.arange(resolution) + 0.5) * step - 0.5
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2).expand(n, -1, -1)
        back = (grid - 111.5 - self.shift[:, None]) @ torch.linalg.inv(self.matrix).transpose(1, 2) + 111.5 + MARGIN
        place = (back + 0.5) / SIZE * 2 - 1
        return F.grid_sample(
            source, place.view(n, resolution, resolution, 2), align_corners=False, padding_mode="zeros"
        )


def backdrop(x: torch.Tensor, share: float = 0.2) -> torch.Tensor:
    """Put a smooth coloured wall behind the face in a share of the pictures (B, 3, S, S).

    Portraits have walls of one bright colour, which the training pictures hardly show: a network that has not seen them
    answers with coefficients far outside of all faces.
    """
    n, resolution = len(x), x.shape[-1]
    axis = torch.linspace(-1, 1, resolution)
    radius = torch.rand(n, 2, 1, 1) * 0.35 + torch.tensor([0.75, 0.9]).view(1, 2, 1, 1)  # half axes: across, down
    away = ((axis[None, None, :] / radius[:, 0]) ** 2 + (axis[None, :, None] / radius[:, 1]) ** 2).sqrt()
    wall = torch.sigmoid((away - 1) / (0.01 + 0.06 * torch.rand(n, 1, 1)))
    wall = (wall * (torch.rand(n, 1, 1) < share))[:, None]
    across = torch.randn(n, 2, 1, 1)
    slope = (across[:, 0] * axis[None, None, :] + across[:, 1] * axis[None, :, None])[:, None]
    colour = torch.rand(n, 3, 1, 1) + 0.3 * torch.randn(n, 3, 1, 1) * slope
    return x * (1 - wall) + colour.clamp(0, 1) * wall


def photometric(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Vary light, colour, grey, blur, noise and occlusion of pictures (B, 3, S, S) 0..1; noise may exceed 0..1."""
    x = colours(backdrop(x))
    n, resolution = len(x), x.shape[-1]
    for j in range(n):
        if rng.random() < 0.3:
            k = int(rng.choice([2, 3, 4]))
            x[j] = F.interpolate(F.avg_pool2d(x[j : j + 1], k), size=(resolution, resolution), mode="bilinear")[0]
        if rng.random() < 0.25:
            h, w = rng.integers(resolution // 8, resolution // 3, 2)
            top, left = rng.integers(0, resolution - h), rng.integers(0, resolution - w)
            x[j, :, top : top + h, left : left + w] = torch.rand(3, 1, 1)
    return x + torch.randn_like(x) * 0.02 * torch.rand(n, 1, 1, 1)


def colours(x: torch.Tensor) -> torch.Tensor:
    """Vary light, colour, grey and gamma of pictures (B, 3, H, W) 0..1."""
    n = len(x)
    mean = x.mean(1, keepdim=True)
    x = mean + (x - mean) * torch.exp(torch.randn(n, 1, 1, 1) * 0.4)  # saturation
    x = x * (1 + torch.randn(n, 1, 1, 1) * 0.25) * torch.exp(torch.randn(n, 3, 1, 1) * 0.12)
    x = x + torch.randn(n, 3, 1, 1) * 0.05
    grey = torch.rand(n) < 0.15
    x = torch.where(grey[:, None, None, None], x.mean(1, keepdim=True).expand_as(x), x)
    return x.clamp(0, 1) ** torch.exp(torch.randn(n, 1, 1, 1) * 0.25)


def mirrored(crops: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Mirror those pictures of (B, 3, S, S) that ``flip`` (B,) bool names, left to right."""
    return torch.where(flip.view(-1, 1, 1, 1), crops.flip(3), crops)


def mirror(flip: torch.Tensor, angle: torch.Tensor, camera: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror the angles and cameras of the chosen renders, left to right (see `mirrored`).

    Args:
        flip: (B,) bool, which ones.
        angle: (B, 3) radians: pitch stays, yaw and roll change their sign.
        camera: (B, 4) as `training.render.LABELS` says: the origin's column moves to the other side.
    """
    turned = angle * torch.tensor([1.0, -1.0, -1.0])
    moved = camera * torch.tensor([1.0, 1.0, -1.0, 1.0]) + torch.tensor([0.0, 0.0, 223.0, 0.0])
    return torch.where(flip[:, None], turned, angle), torch.where(flip[:, None], moved, camera)


def seen_by_render_camera(posed: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """Project points (B, P, 3) dm before translation by the render's camera (B, 4): (B, P, 2) px of the 224 px crop."""
    distance, pixels = camera[:, None, 0:1], camera[:, None, 1:2]
    flat = posed[..., :2] / (distance - posed[..., 2:]) * distance * pixels
    return flat * torch.tensor([1.0, -1.0]) + camera[:, None, 2:4]


class RenderTruth(NamedTuple):
    """What is known of B renders.

    Attributes:
        neutral: (B, P, 3) probes without expression, of the mean face's size and place (`Probes.observable`), dm.
        head: (B, P, 3) with expression, moved alike.
        angle: (B, 3) radians.
        seen: (B, P, 2) where the probes are in the 224 px crop, pixels.
    """

    neutral: torch.Tensor
    head: torch.Tensor
    angle: torch.Tensor
    seen: torch.Tensor


class PictureTruth(NamedTuple):
    """What the teacher says of B pictures.

    Attributes:
        points: (B, T, 2) its steady points in the 224 px crop, pixels.
        trusted: (B, T) 1, or 0 where a mirrored picture has no such point.
        eyes: (B,) outer-eye distance, pixels.
    """

    points: torch.Tensor
    trusted: torch.Tensor
    eyes: torch.Tensor


class Task:
    """What is learned: renders and real pictures, and the loss on coefficients that a network gives for them."""

    def __init__(self, arguments: argparse.Namespace, more: npt.NDArray[np.integer[Any]] | None = None) -> None:
        self.arguments = arguments
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            torch.set_default_device(self.device)  # warps and colours are drawn where the pictures are
        torch.manual_seed(arguments.seed)
        self.rng = np.random.default_rng(arguments.seed)
        model = FaceModel.load(arguments.face_model)
        self.probes = Probes(model, arguments.teacher_map, more=more).to(self.device)
        self.mirrored = Probes(model, arguments.teacher_map, mirrored=True, more=more).to(self.device)
        self.renders = Renders(arguments.renders)
        cut = cut_pictures(arguments.pictures, arguments.labels)
        self.crops, self.points, self.eyes = (part.to(self.device) for part in cut)
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(self.crops)))
        held = max(1, min(HELD_OUT, len(order) // 10))
        self.held, self.real = order[:held], order[held:]
        file = arguments.correction
        self.correction = None if file is None else FixedCorrection(file, MARGIN, self.device)
        self.features = torch.zeros(len(self.crops), 2, 0)
        if self.correction is not None:
            self.features = self.correction.features(self.crops, self.points_of_pictures())
        self.find_renders()

    def points_of_pictures(self) -> torch.Tensor:
        """Return the five points (n, 5, 2) of the pictures by the teacher, pixels of the 224 px crop."""
        five = np.stack([five_points_of_teacher(point) for point in self.points.cpu().double().numpy()])
        return torch.from_numpy(five.astype(np.float32))

    def find_renders(self) -> None:
        """Find new shards of renders, and what the correction needs of them."""
        self.renders.refresh()
        for crops, labels in zip(self.renders.crops, self.renders.labels, strict=True):
            if "features" not in labels:
                n = len(crops)
                if self.correction is None:
                    labels["features"] = np.zeros((n, 2, 0), np.float32)
                    continue
                known = {name: torch.from_numpy(value) for name, value in labels.items()}
                truth = self.render_truth(known, torch.zeros(n, dtype=torch.bool), Warp.random(n, False))
                landmarks = truth.seen[:, self.probes.landmark_probes].cpu().numpy()
                five = torch.from_numpy(np.stack([five_points(one) for one in landmarks]).astype(np.float32))
                pictures = torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2)
                labels["features"] = self.correction.features(pictures, five).cpu().numpy()

    def corrected(self, out: torch.Tensor, features: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """Correct coefficients (B, 257), as `networks.regressor.Regressor.corrected` does.

        Args:
            out: of the network.
            features: (B, 2, 256) of the pictures as they are and mirrored; nothing is corrected without a correction.
            flip: (B,) bool, which pictures are mirrored.
        """
        if self.correction is None:
            return out
        features = features[torch.arange(len(out)), flip.long()]
        parts = list(out.split([80, 174, 3], 1))
        identity = self.correction.change(parts[0], features)
        k = self.probes.landmark_probes
        moved = torch.cat([identity, *parts[1:]], 1)
        back = nearest_translation(self.decode(moved)[2][:, k], self.decode(out)[2][:, k])
        return torch.cat([identity, parts[1], parts[2] + back], 1)

    def decode(self, coefficients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode coefficients (B, 257) to neutral, expressive and posed probes (B, P, 3) dm."""
        neutral = self.probes.neutral(coefficients[:, COEFFICIENTS["identity"]])
        head = self.probes.expressed(neutral, coefficients[:, COEFFICIENTS["expression"]])
        turn = rotation(coefficients[:, COEFFICIENTS["angle"]])
        posed = head @ turn + coefficients[:, None, COEFFICIENTS["translation"]]
        return neutral, head, posed

    def render_truth(self, labels: Mapping[str, torch.Tensor], flip: torch.Tensor, warp: Warp) -> RenderTruth:
        """Collect what is known of renders that were mirrored where ``flip`` says so, then warped."""
        truth = {key: value.to(self.device) for key, value in labels.items()}
        angle, camera = mirror(flip, truth["angle"], truth["camera"])
        sides = flip.view(-1, 1, 1)
        neutral = torch.where(sides, self.mirrored.neutral(truth["identity"]), self.probes.neutral(truth["identity"]))
        change = torch.where(
            sides,
            self.mirrored.expressed(torch.zeros_like(neutral), truth["expression"]),
            self.probes.expressed(torch.zeros_like(neutral), truth["expression"]),
        )
        head = neutral + change
        seen = seen_by_render_camera(head @ rotation(angle), camera)
        scale, centre, mean_centre = self.probes.observable(neutral)
        neutral, head = ((x - centre) * scale + mean_centre for x in (neutral, head))
        angle = angle + torch.stack([torch.zeros(len(flip)), torch.zeros(len(flip)), warp.angle], 1)
        return RenderTruth(neutral, head, angle, warp.points(seen))

    def picture_truth(self, chosen: torch.Tensor, flip: torch.Tensor, warp: Warp) -> PictureTruth:
        """Collect what the teacher says of the pictures ``chosen``, mirrored where ``flip`` says so, then warped."""
        points = self.points[chosen][:, self.probes.teacher]
        across = points[:, self.probes.teacher_mirror] * torch.tensor([-1.0, 1.0]) + torch.tensor([223.0, 0])
        points = warp.points(torch.where(flip.view(-1, 1, 1), across, points))
        trusted = (~flip[:, None] | self.probes.has_mirror).float()
        return PictureTruth(points, trusted, self.eyes[chosen].clamp(min=30))

    def terms(self, out: torch.Tensor, renders: RenderTruth, pictures: PictureTruth) -> dict[str, torch.Tensor]:
        """Compute the terms of the loss on coefficients (B, 257) of renders, then pictures."""
        n = len(renders.angle)
        neutral, head, posed = self.decode(out)
        placed = project(posed)
        k = self.probes.shape_probes
        true_turned = renders.head[:, k] @ rotation(renders.angle)
        turned = posed[:n, k] - out[:n, None, COEFFICIENTS["translation"]]
        distance = (placed[n:, self.probes.teacher_probes] - pictures.points).norm(dim=2)
        expression = out[:, COEFFICIENTS["expression"]]
        trusted = pictures.trusted
        return {
            "render2d": (placed[:n, k] - renders.seen[:, k]).norm(dim=2).mean() / EYES,
            "shape": 8 * (neutral[:n, k] - renders.neutral[:, k]).abs().mean(),  # 8 a decimetre = 0.8 a centimetre
            "head": 15 * (head[:n, k] - renders.head[:, k]).abs().mean(),
            "surface": self.surface(head[:n], renders.head) + 0.5 * self.surface(neutral[:n], renders.neutral),
            "turned": 3 * (turned - true_turned).abs().mean(),
            "angle": 0.3 * (out[:n, COEFFICIENTS["angle"]] - renders.angle).abs().mean(),
            "real2d": (((distance * trusted).sum(1) / trusted.sum(1)) / pictures.eyes).mean(),
            "prior": 3e-4 * (out[n:, COEFFICIENTS["identity"]] ** 2).mean()
            + 2e-3 * (expression**2).mean()
            + 0.02 * torch.relu(-expression - 0.05).mean()
            + 1e-3 * (out[:, 144:224] ** 2).mean()
            + 1e-3 * (out[:, COEFFICIENTS["light"]] ** 2).mean(),
        }

    def surface(self, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Compute how far probes (B, P, 3) lie off the true surface along the mean face's normals, as a scan shows."""
        k = self.probes.shape_probes
        away = ((predicted - truth)[:, k] * self.probes.normals[k]).sum(2)
        return 15 * away.abs().mean()


class Trainer(Task):
    """Networks and state of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.net = ReconstructionNet(window=-(-arguments.resolution // 32))
        for name, parameter in self.net.final_layers.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, 0, 0.001)
        # torch documents this form of `to`; its types lack it
        self.net = self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.samples = 0
        state = None
        if arguments.checkpoint.exists():
            state = torch.load(arguments.checkpoint, weights_only=True, map_location=self.device)
            if arguments.restart:
                self.begin_with(unfold(state["average"]))
        if arguments.freeze:
            fold(self.net)
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        heads, backbone = self.net.final_layers.parameters(), list(self.net.backbone.parameters())
        self.muon = None
        if arguments.muon:
            # The first convolution, of three channels, is hardly a matrix.
            matrices = [weights for weights in backbone if weights.dim() == 4 and weights.shape[1] > 3]
            self.muon = ConvolutionMuon(matrices, arguments.rate)
            chosen = {id(weights) for weights in matrices}
            backbone = [weights for weights in backbone if id(weights) not in chosen]
        self.optimiser = torch.optim.AdamW(
            [{"params": backbone, "scale": 1.0}, {"params": heads, "scale": HEAD_RATE if self.net.window > 1 else 1.0}],
            arguments.rate,
            weight_decay=1e-4,
            fused=True,
        )
        if state is not None:
            self.resume(state)

    def begin_with(self, weights: dict[str, torch.Tensor]) -> None:
        """Load the weights of another run, whose heads may have read a map of another size."""
        window = window_of(weights)
        if window == self.net.window:
            self.net.load_state_dict(weights)
        elif window == 1:
            self.net.load_averaging(weights)
        else:
            self.net.load_resized(weights)

    def resume(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint: all of it, or with ``--restart`` only its count (its weights are loaded before)."""
        self.samples = state["samples"]
        if not self.arguments.restart:
            self.net.load_state_dict(state["net"])
            self.average = state["average"]
            self.optimiser.load_state_dict(state["optimiser"])
            if self.muon is not None:
                self.muon.optimiser.load_state_dict(state["muon"])
        # Not the same random pictures once more.
        torch.manual_seed(self.arguments.seed + self.samples)
        self.rng = np.random.default_rng((self.arguments.seed, self.samples))
        print(f"resumed at {self.samples} samples", flush=True)

    def losses(self, resolution: int) -> dict[str, torch.Tensor]:
        """Compute the terms of the loss on one batch, each already weighted; their sum is minimised."""
        rendered, real = (count * self.arguments.larger for count in (RENDERS_A_BATCH, PICTURES_A_BATCH))
        crops, labels = self.renders.sample(self.rng, rendered)
        crops = crops.to(self.device)
        flip, warp = torch.rand(rendered) < 0.5, Warp.random(rendered, True)
        renders = self.render_truth(labels, flip, warp)
        chosen = self.real[torch.from_numpy(self.rng.integers(len(self.real), size=real))]
        flip_real, warp_real = torch.rand(real) < 0.5, Warp.random(real, True)
        pictures = self.picture_truth(chosen, flip_real, warp_real)
        seen = torch.cat(
            [
                warp.picture(mirrored(crops, flip), resolution),
                warp_real.picture(mirrored(self.crops[chosen], flip_real), resolution),
            ]
        )
        seen = photometric(seen, self.rng).contiguous(memory_format=torch.channels_last)
        with autocast(self.device):
            out = self.net(seen)
        known = torch.cat([labels["features"].to(self.device), self.features[chosen]])
        out = self.corrected(out.float(), known, torch.cat([flip, flip_real]))
        return self.terms(out, renders, pictures)

    @torch.no_grad()
    def monitor(self, resolution: int) -> str:
        """Measure the 2D error of the averaged weights on held-out pictures, over the outer-eye distance."""
        live = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        self.net.eval()
        warp = Warp.random(len(self.held), False)
        pictures = warp.picture(self.crops[self.held], resolution).contiguous(memory_format=torch.channels_last)
        with autocast(self.device):
            out = torch.cat([self.net(part).float() for part in pictures.split(32)])
        out = self.corrected(out, self.features[self.held], torch.zeros(len(out), dtype=torch.bool))
        placed = project(self.decode(out)[2])[:, self.probes.teacher_probes]
        error = (placed - self.points[self.held][:, self.probes.teacher]).norm(dim=2).mean(1) / self.eyes[self.held]
        self.net.load_state_dict(live)
        self.net.train()
        over = (error > 0.1).float().mean()
        return f"held-out 2D median {error.median():.4f} mean {error.mean():.4f} over10% {over:.3f}"

    def save(self) -> None:
        """Write the checkpoint; a run that is killed meanwhile leaves the old one whole."""
        path: Path = self.arguments.checkpoint
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "samples": self.samples,
        }
        if self.muon is not None:
            state["muon"] = self.muon.optimiser.state_dict()
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def run(self) -> None:
        """Train until the asked number of samples (in all; with ``--restart`` from here on), or of minutes from now."""
        a = self.arguments
        self.net.train()
        # What was seen before an interruption counts; what was seen before a new schedule does not.
        began, step, spent, last = self.samples, 0, 0.0, time.monotonic()
        first = began if a.restart else 0
        smooth: dict[str, float] = {}
        batch = (RENDERS_A_BATCH + PICTURES_A_BATCH) * a.larger
        while True:
            now = time.monotonic()
            spent, last = spent + min(now - last, PAUSE_SECONDS), now
            done = max((self.samples - first) / a.samples, spent / (60 * a.minutes))
            if done >= 1:
                break
            rate = a.rate * min(1.0, (step + 1) / 150) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
            for group in self.optimiser.param_groups:
                group["lr"] = group["scale"] * rate
            terms = self.losses(a.resolution)
            self.net.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            if self.muon is not None:
                self.muon.step(rate)
            step, self.samples = step + 1, self.samples + batch
            old = self.samples // batch  # steps since the very first: a resumed average stays as slow as it was
            decay = min(0.998, old / (old + 20))
            for key, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, 1 - decay)
                else:
                    self.average[key].copy_(value)
            for key, term in terms.items():
                smooth[key] = 0.97 * smooth.get(key, term.item()) + 0.03 * term.item()
            if step % 50 == 0:
                self.find_renders()
                speed = (self.samples - began) / max(spent, 1e-9)
                parts = " ".join(f"{k} {v:.4f}" for k, v in smooth.items())
                progress = f"{done:5.1%} {self.samples} samples {speed:.1f}/s, {len(self.renders)} renders"
                print(f"{progress}: {parts}", flush=True)
            if step % 300 == 0:
                print(self.monitor(a.resolution), flush=True)
                self.save()
        self.save()
        print(self.monitor(a.resolution), flush=True)


def write_weights(
    weights: Mapping[str, torch.Tensor], samples: int, output: Path, resolution: int, **more: str
) -> None:
    """Write weights as safetensors, float16, with their origin and the number of samples in the metadata."""
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in weights.items()}
    metadata = {
        "resolution": str(resolution),
        "samples": str(samples),
        "licence": "Apache-2.0",
        "sources": SOURCES,
        **more,
    }
    save_file(half, output, metadata)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--teacher-map", type=Path, required=True)
    parser.add_argument("--renders", type=Path, required=True, help="stem of the shards")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="output, safetensors fp16")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--samples", type=int, default=400_000, help="in all; with --restart, from here on")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (and cool the rate down) by then")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--muon", action="store_true", help="train convolutions by Muon instead of AdamW")
    parser.add_argument("--restart", action="store_true", help="keep the weights, begin a new schedule")
    parser.add_argument(
        "--freeze", action="store_true", help="normalise by the running statistics, as the served network does"
    )
    parser.add_argument(
        "--correction", type=Path, help="identity_correction.safetensors: train beneath it, and write it beside WEIGHTS"
    )
    parser.add_argument("--larger", type=int, default=1, help="batches so many times as large, for a GPU")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trained = Trainer(options)
    trained.run()
    write_weights(unfold(trained.average), trained.samples, options.weights, options.resolution)
    if options.correction is not None:
        assign(options.correction, options.weights)
