"""Step 5, refinement: a small network learns to correct the regressor's answers (`training.refinement_net`).

The regressor answers once for every picture and render, under random warps and colours; these answers are kept beside
the renders (``SHARD.first.npz``). Training then needs the small network alone: some 60 samples a second on one core.
Resumes from its checkpoint and picks up render shards that appear while it runs. For a CPU: OpenCV cuts the pictures.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from networks.camera import project, rotation
from networks.face_model import COEFFICIENTS, FaceModel
from networks.regressor import ReconstructionNet, Regressor
from training.fold import fold
from training.refinement_net import BOTTOM, CELL, COARSE, COLUMNS, DISPLACEMENT, LEFT, ROWS, Grid, RefinementNet
from training.regressor import (
    EYES,
    KNOWN,
    PAUSE_SECONDS,
    PictureTruth,
    RenderTruth,
    Task,
    Warp,
    colours,
    mirrored,
    photometric,
    write_weights,
)
from training.render import MARGIN

RENDERS_A_BATCH, PICTURES_A_BATCH = 11, 5
RENDER_VARIANTS, PICTURE_VARIANTS = 2, 8  # first answers for each
WEIGHTS = {"render2d": 4.0, "real2d": 6.0, "moved": 8.0}  # of the regressor's loss terms; 1 where nothing is said
Picture = npt.NDArray[np.uint8]
NOISE_SHARE = (
    0.8  # of the batch whose first answers are disturbed: a large error teaches to align, a small one to be exact
)
NOISE = {"identity": 0.6, "expression": 0.1, "angle": 0.06, "translation": 0.08}


@dataclass
class Answers:
    """First answers for n pictures, V each, and what was done to the picture before.

    Attributes:
        coefficients: (n, V, 257).
        flip: (n, V) bool, mirrored.
        warp: (n, V, 4): angle, scale, shift right, shift down; see `Warp`.
    """

    coefficients: npt.NDArray[np.float32]
    flip: npt.NDArray[np.bool_]
    warp: npt.NDArray[np.float32]

    @classmethod
    @torch.no_grad()
    def ask(cls, regressor: Regressor, crops: torch.Tensor, variants: int, seed: int) -> Answers:
        """Let the regressor answer.

        Args:
            regressor: its network may be folded.
            crops: (n, 3, 288, 288) uint8 with a margin.
            variants: V.
            seed: of warps and colours.
        """
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        n, resolution = len(crops), 224 // regressor.downscale
        out = np.zeros((n, variants, 257), np.float32)
        flips, warps = np.zeros((n, variants), bool), np.zeros((n, variants, 4), np.float32)
        for v in range(variants):
            for first in range(0, n, 32):
                part = crops[first : first + 32]
                flip, warp = torch.rand(len(part)) < 0.5, Warp.random(len(part), True)
                seen = photometric(warp.picture(mirrored(part, flip), resolution), rng)
                here = slice(first, first + len(part))
                out[here, v] = regressor.net(seen.contiguous(memory_format=torch.channels_last)).numpy()
                flips[here, v] = flip.numpy()
                warps[here, v] = torch.cat([warp.angle[:, None], warp.scale[:, None], warp.shift], 1).numpy()
        return cls(out, flips, warps)

    @classmethod
    def kept(cls, path: Path, regressor: Regressor, crops: torch.Tensor, variants: int, seed: int) -> Answers:
        """Load first answers from a file, which is written where there is none."""
        if not path.exists():
            found = cls.ask(regressor, crops, variants, seed)
            np.savez(path, coefficients=found.coefficients, flip=found.flip, warp=found.warp)
        with np.load(path, allow_pickle=False) as data:
            return cls(data["coefficients"], data["flip"], data["warp"])

    def pick(
        self, rows: npt.NDArray[np.intp], variants: npt.NDArray[np.intp]
    ) -> tuple[torch.Tensor, torch.Tensor, Warp]:
        """Pick coefficients (B, 257), flip (B,) and warps of some pictures."""
        warp = torch.from_numpy(self.warp[rows, variants])
        return (
            torch.from_numpy(self.coefficients[rows, variants]),
            torch.from_numpy(self.flip[rows, variants]),
            Warp(warp[:, 0], warp[:, 1], warp[:, 2:]),
        )


def join_warps(warps: list[Warp]) -> Warp:
    """Join several batches into one."""
    return Warp(*(torch.cat([getattr(warp, name) for warp in warps]) for name in ("angle", "scale", "shift")))


def sample_flat(
    pictures: Sequence[Picture], places: torch.Tensor, warp: Warp, flip: torch.Tensor | None = None
) -> torch.Tensor:
    """Sample what warped pictures show at some places, taken from the pictures before they were mirrored and warped.

    Args:
        pictures: B of (288, 288, 3) uint8 with the margin.
        places: (B, G, 2) pixels of the warped 224 px crop.
        warp: B warps.
        flip: (B,) bool, mirrored before they were warped; None: none of them.

    Returns:
        (B, 3, ROWS, COLUMNS) 0..1.
    """
    back = (places - 111.5 - warp.shift[:, None]) @ torch.linalg.inv(warp.matrix).transpose(1, 2) + 111.5
    if flip is not None:
        back = torch.where(flip[:, None, None], back * torch.tensor([-1.0, 1.0]) + torch.tensor([223.0, 0.0]), back)
    at = (back + MARGIN).numpy().astype(np.float32).reshape(-1, ROWS, COLUMNS, 2)
    seen = [
        cv2.remap(picture, place, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
        for picture, place in zip(pictures, at, strict=True)
    ]
    return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float() / 255


def disturb(first: torch.Tensor) -> torch.Tensor:
    """Disturb coefficients (B, 257) by noise of the size of the regressor's own errors in a share of the rows."""
    noise = torch.zeros_like(first)
    for name, size in NOISE.items():
        noise[:, COEFFICIENTS[name]] = torch.randn_like(first[:, COEFFICIENTS[name]]) * size
    return first + noise * (torch.rand(len(first), 1) < NOISE_SHARE) * torch.rand(len(first), 1)


def degrade(flat: torch.Tensor) -> torch.Tensor:
    """Add light from a side, colours, blur, occlusion and noise to flat faces (B, 3, ROWS, COLUMNS)."""
    n = len(flat)
    down, right = torch.linspace(-1, 1, ROWS).view(1, 1, -1, 1), torch.linspace(-1, 1, COLUMNS).view(1, 1, 1, -1)
    slope = torch.randn(n, 2, 1, 1, 1) * 0.25
    flat = colours(flat * (1 + slope[:, 0] * down + slope[:, 1] * right).clamp(0.3, 1.7))
    chance = torch.rand(n)
    for j in range(n):
        if chance[j] < 0.25:
            k = 2 if chance[j] < 0.18 else 4
            flat[j] = F.interpolate(F.avg_pool2d(flat[j : j + 1], k), size=(ROWS, COLUMNS), mode="bilinear")[0]
        if 0.15 < chance[j] < 0.4:
            h, w = int(torch.randint(16, 48, ())), int(torch.randint(12, 40, ()))
            top, left = int(torch.randint(0, ROWS - h, ())), int(torch.randint(0, COLUMNS - w, ()))
            flat[j, :, top : top + h, left : left + w] = torch.rand(3, 1, 1)
    return flat + torch.randn_like(flat) * 0.02 * torch.rand(n, 1, 1, 1)


class GridDecoder(nn.Module):
    """Where the points of a `Grid` are in the crop, straight from coefficients and without a mesh."""

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.grid = Grid(model)
        modes = torch.from_numpy(np.concatenate([model.mean[None], model.identity, model.expression]))
        at = self.grid.on(modes).flatten(1)
        self.register_buffer("mean", at[0])
        self.register_buffer("basis", at[1:].contiguous())

    def forward(self, coefficients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 257) -> places (B, G, 2) in pixels of the crop, and the cosine to the view (B, 1, ROWS, COLUMNS)."""
        turn = rotation(coefficients[:, COEFFICIENTS["angle"]])
        head = (self.mean + coefficients[:, :144] @ self.basis).view(len(coefficients), -1, 3)
        posed = head @ turn + coefficients[:, None, COEFFICIENTS["translation"]]
        facing = (self.grid.normals @ turn)[..., 2].view(-1, 1, ROWS, COLUMNS)
        return project(posed), facing


class Batch(NamedTuple):
    """Renders, then pictures.

    Attributes:
        pictures: B of (288, 288, 3) uint8 with the margin, as they were cut out.
        first: (B, 257) first answers for them, mirrored and warped.
        flip: (B,) bool. warp: B warps.
        renders, truth: what is known of the renders, and of the pictures.
    """

    pictures: list[Picture]
    first: torch.Tensor
    flip: torch.Tensor
    warp: Warp
    renders: RenderTruth
    truth: PictureTruth


class Refiner(Task):
    """Networks and state of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        model = FaceModel.load(arguments.face_model)
        self.decoder = GridDecoder(model)
        super().__init__(arguments, more=self.decoder.grid.coarse_vertices())
        self.gather = self.coarse_cells(model)
        self.regressor = Regressor.load(arguments.regressor, model)
        assert isinstance(self.regressor.net, ReconstructionNet)
        fold(self.regressor.net)
        kept = arguments.checkpoint.with_suffix(".pictures.npz")
        self.picture_answers = Answers.kept(kept, self.regressor, self.crops, PICTURE_VARIANTS, 1)
        self.photographs = self.crops.permute(0, 2, 3, 1).contiguous().numpy()
        self.render_answers: list[Answers] = []
        self.refresh()
        self.net = RefinementNet()
        self.net.show(self.decoder.grid, model)
        self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.net.parameters(), arguments.rate, weight_decay=1e-3, fused=True)
        self.samples = 0
        if arguments.checkpoint.exists():
            state: dict[str, Any] = torch.load(arguments.checkpoint, weights_only=True)
            self.samples = state["samples"]
            self.net.load_state_dict(state["average"] if arguments.restart else state["net"])
            self.average = state["average"]
            if not arguments.restart:
                self.optimiser.load_state_dict(state["optimiser"])
            torch.manual_seed(arguments.seed + self.samples)
            self.rng = np.random.default_rng((arguments.seed, self.samples))
            print(f"resumed at {self.samples} samples", flush=True)

    def refresh(self) -> None:
        """Take in new shards: their first answers are asked for on first sight."""
        self.renders.refresh()
        for crops in self.renders.crops[len(self.render_answers) :]:
            path = Path(str(crops.filename)).with_suffix(".first.npz")  # type: ignore[attr-defined]
            pictures = torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2)
            seed = 1000 + len(self.render_answers)
            self.render_answers.append(Answers.kept(path, self.regressor, pictures, RENDER_VARIANTS, seed))

    def batch(self) -> Batch:
        """Draw random renders, then random pictures."""
        picks = [
            (int(s), int(self.rng.integers(len(self.renders.crops[s]))), int(self.rng.integers(RENDER_VARIANTS)))
            for s in self.rng.integers(len(self.renders.crops), size=RENDERS_A_BATCH)
        ]
        labels = {
            key: torch.from_numpy(np.stack([self.renders.labels[s][key][k] for s, k, _ in picks]))
            for key in self.renders.labels[0]
        }
        found = [self.render_answers[s].pick(np.array([k]), np.array([v])) for s, k, v in picks]
        flip, warp = torch.cat([f for _, f, _ in found]), join_warps([w for _, _, w in found])
        chosen = self.real[torch.from_numpy(self.rng.integers(len(self.real), size=PICTURES_A_BATCH))]
        variants = self.rng.integers(PICTURE_VARIANTS, size=PICTURES_A_BATCH)
        first_real, flip_real, warp_real = self.picture_answers.pick(chosen.numpy(), variants)
        return Batch(
            [*(np.asarray(self.renders.crops[s][k]) for s, k, _ in picks), *(self.photographs[k] for k in chosen)],
            torch.cat([*(c for c, _, _ in found), first_real]),
            torch.cat([flip, flip_real]),
            join_warps([warp, warp_real]),
            self.render_truth(labels, flip, warp),
            self.picture_truth(chosen, flip_real, warp_real),
        )

    def losses(self) -> dict[str, torch.Tensor]:
        """Compute the terms of the loss on one batch, each already weighted; their sum is minimised."""
        batch = self.batch()
        terms: dict[str, torch.Tensor] = {}
        out = disturb(batch.first)
        for _ in range(self.arguments.rounds):
            before = out.detach()
            places, facing = self.decoder(before)
            flat = degrade(sample_flat(batch.pictures, places, batch.warp, batch.flip))
            out, moved = self.net.look_at(flat, facing, before)
            found = self.terms(out, batch.renders, batch.truth)
            found["moved"] = self.displacement_error(moved, before, facing, batch)
            for name, term in found.items():
                terms[name] = terms.get(name, 0) + term * WEIGHTS.get(name, 1.0) / self.arguments.rounds
        return terms

    def coarse_cells(self, model: FaceModel) -> torch.Tensor:
        """Build (cells, T), the mean over the teacher's steady points in each cell of the coarse grid, or zeros."""
        with np.load(self.arguments.teacher_map) as data:
            uv = model.uv[data["vertex"][self.probes.teacher]]
        across, down = COLUMNS // COARSE, ROWS // COARSE
        column = np.floor((uv[:, 0] - LEFT) / (CELL * COARSE)).astype(int)
        row = down - 1 - np.floor((uv[:, 1] - BOTTOM) / (CELL * COARSE)).astype(int)
        inside = (column >= 0) & (column < across) & (row >= 0) & (row < down)
        table = torch.zeros(down * across, len(uv))
        points = np.flatnonzero(inside)
        table[row[points] * across + column[points], points] = 1
        return table / table.sum(1, keepdim=True).clamp(min=1)

    def displacement_error(
        self, moved: torch.Tensor, before: torch.Tensor, facing: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """Compute how far displacements (B, 2, h, w) are from the true ones, where there are any, in 2D errors' unit.

        Args:
            moved: of `RefinementNet.look_at`.
            before: (B, 257) what was looked through.
            facing: (B, 1, ROWS, COLUMNS).
            batch: the truth.
        """
        n = len(batch.renders.angle)
        with torch.no_grad():
            placed = project(self.decode(before)[2])
            wanted = batch.renders.seen[:, self.probes.more_probes] - placed[:n, self.probes.more_probes]
            visible = (facing[:n, 0, COARSE // 2 :: COARSE, COARSE // 2 :: COARSE].flatten(1) > 0.15).float()
            away = batch.truth.points - placed[n:, self.probes.teacher_probes]
            wanted = torch.cat([wanted, self.gather @ (away * batch.truth.trusted[..., None])])
            known = (self.gather.sum(1) > 0).float().expand(len(before) - n, -1)
            weight = torch.cat([visible, known])
        error = (moved.flatten(2).transpose(1, 2) * DISPLACEMENT - wanted).norm(dim=2)
        mean: torch.Tensor = (error * weight).sum() / weight.sum() / EYES
        return mean

    @torch.no_grad()
    def refine(self, pictures: Sequence[Picture], first: torch.Tensor, warp: Warp, rounds: int) -> torch.Tensor:
        """Refine answers (n, 257) by some rounds of the network as it is."""
        parts = []
        for k in range(0, len(pictures), 32):
            rows = slice(k, k + 32)
            out, part = first[rows], Warp(warp.angle[rows], warp.scale[rows], warp.shift[rows])
            for _ in range(rounds):
                places, facing = self.decoder(out)
                out = self.net(sample_flat(pictures[rows], places, part), facing, out)
            parts.append(out)
        return torch.cat(parts)

    @torch.no_grad()
    def monitor(self) -> str:
        """Measure errors of the averaged weights on held-out pictures and renders, after 0, 1 and 2 rounds."""
        live = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        self.net.eval()
        lines = []
        if not hasattr(self, "held_first"):
            self.prepare_held()
        for rounds in range(3):
            out = self.refine(list(self.photographs[self.held.numpy()]), self.held_first, self.held_warp, rounds)
            placed = project(self.decode(out)[2])[:, self.probes.teacher_probes]
            error = (placed - self.points[self.held][:, self.probes.teacher]).norm(dim=2).mean(1) / self.eyes[self.held]
            line = f"rounds {rounds}: pictures {error.median():.4f} over10% {(error > 0.1).float().mean():.3f}"
            for pictures, labels, first, warp in self.held_renders:
                flip = torch.zeros(len(pictures), dtype=torch.bool)
                truth = self.render_truth(labels, flip, warp)
                out = self.refine(pictures, first, warp, rounds)
                neutral, _, posed = self.decode(out)
                k = self.probes.shape_probes
                error = (project(posed)[:, k] - truth.seen[:, k]).norm(dim=2).mean(1) / EYES
                scale, centre, mean_centre = self.probes.observable(neutral)
                apart = ((neutral - centre) * scale + mean_centre - truth.neutral)[:, k].norm(dim=2).mean() * 100
                mean = (self.probes.mean - truth.neutral)[:, k].norm(dim=2).mean() * 100
                yaw = (out[:, 225] - truth.angle[:, 1]).abs().median() * 57.3
                line += f"; renders {error.median():.4f} neutral {apart:.2f} of {mean:.2f} mm yaw {yaw:.2f}"
            lines.append(line)
        self.net.load_state_dict(live)
        self.net.train()
        return "\n".join(lines)

    def prepare_held(self) -> None:
        """Compute first answers for what only monitors."""
        still = Warp.random(len(self.held), False)
        side = 224 // self.regressor.downscale
        self.held_warp = still
        self.held_first = torch.cat(
            [self.regressor.net(part) for part in still.picture(self.crops[self.held], side).split(32)]
        )
        self.held_renders = []
        for path in self.arguments.held:
            pictures = np.load(path.with_suffix(".npy"))
            crops = torch.from_numpy(pictures).permute(0, 3, 1, 2)
            with np.load(path.with_suffix(".labels.npz"), allow_pickle=False) as data:
                labels = {key: torch.from_numpy(data[key]) for key in KNOWN}
            warp = Warp.random(len(crops), False)
            first = torch.cat([self.regressor.net(part) for part in warp.picture(crops, side).split(32)])
            self.held_renders.append((list(pictures), labels, first, warp))

    def save(self) -> None:
        """Write the checkpoint; a run that is killed meanwhile leaves the old one whole."""
        path: Path = self.arguments.checkpoint
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "samples": self.samples,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def run(self) -> None:
        """Train until the asked number of samples (in all; with ``--restart`` from here on), or of minutes from now."""
        a = self.arguments
        self.net.train()
        began, step, spent, last = self.samples, 0, 0.0, time.monotonic()
        first = began if a.restart else 0
        smooth: dict[str, float] = {}
        batch = RENDERS_A_BATCH + PICTURES_A_BATCH
        while True:
            now = time.monotonic()
            spent, last = spent + min(now - last, PAUSE_SECONDS), now
            done = max((self.samples - first) / a.samples, spent / (60 * a.minutes))
            if done >= 1:
                break
            for group in self.optimiser.param_groups:
                group["lr"] = a.rate * min(1.0, (step + 1) / 100) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
            terms = self.losses()
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
            self.optimiser.step()
            step, self.samples = step + 1, self.samples + batch
            old = self.samples // batch
            decay = min(0.998, old / (old + 20))
            for key, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, 1 - decay)
                else:
                    self.average[key].copy_(value)
            for key, term in terms.items():
                smooth[key] = 0.97 * smooth.get(key, term.item()) + 0.03 * term.item()
            if step % 50 == 0:
                self.refresh()
                rate = (self.samples - began) / max(spent, 1e-9)
                parts = " ".join(f"{k} {v:.4f}" for k, v in smooth.items())
                print(
                    f"{done:5.1%} {self.samples} samples {rate:.1f}/s, {len(self.renders)} renders: {parts}", flush=True
                )
            if step % 600 == 0:
                print(self.monitor(), flush=True)
                self.save()
        self.save()
        print(self.monitor(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--teacher-map", type=Path, required=True)
    parser.add_argument("--regressor", type=Path, required=True, help="whose answers are refined")
    parser.add_argument("--renders", type=Path, required=True, help="stem of the shards")
    parser.add_argument("--held", type=Path, nargs="*", default=(), help="shards that only monitor")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="output, safetensors fp16")
    parser.add_argument("--samples", type=int, default=400_000, help="in all; with --restart, from here on")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (and cool the rate down) by then")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=1, help="looks in training, each from where the last one led")
    parser.add_argument("--restart", action="store_true", help="keep the weights, begin a new schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(correction=None)  # the first answers have theirs already
    options = parser.parse_args()
    trained = Refiner(options)
    trained.run()
    write_weights(trained.average, trained.samples, options.weights, 224)
