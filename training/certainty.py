"""Train what the regressor says of its own errors: a small network on its frozen features, by likelihood.

Renders of exact heads and labelled pictures are shown as the regressor's training shows them (turned, blurred, covered,
noisy). Of each face four errors are known, root mean squares: the neutral shape (mm, size and place aside), what the
expression changes (mm), the rotation (degrees), the landmarks (pixels of the 224 px crop; on pictures the teacher's
points). The network answers their standard deviations such that the errors are likely under normal
distributions of these: an error of twice the usual size costs less where it was announced.

    python -m training.certainty features --out features.npz (and what training.regressor takes)
    python -m training.certainty train features.npz --regressor weights/regressor.safetensors
    python -m training.certainty judge features-of-others.npz --regressor weights/regressor.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from networks.camera import project, rotation
from networks.certainty import FILE, GROUPS, Certainty, digest
from networks.face_model import COEFFICIENTS
from networks.regressor import ReconstructionNet, window_of
from training.regressor import SOURCES, RenderTruth, Task, Warp, mirrored, photometric

F32 = npt.NDArray[np.float32]
BATCH = 24
DM_IN_MM = 100.0
HELD_OUT = 10  # one of so many rows only monitors


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute the angles in degrees (B,) between rotations (B, 3, 3)."""
    cosine = ((a * b).sum((1, 2)) - 1) / 2
    return torch.rad2deg(torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7)))


def _size(residual: torch.Tensor) -> torch.Tensor:
    """Root mean square length (B,) of residuals (B, P, D)."""
    return residual.square().sum(2).mean(1).sqrt()


def errors_of_renders(task: Task, out: torch.Tensor, truth: RenderTruth) -> torch.Tensor:
    """Compute the errors (B, 4), in the order of `GROUPS`, of coefficients (B, 257)."""
    k = task.probes.shape_probes
    neutral, head, posed = task.decode(out)
    scale, centre, mean_centre = task.probes.observable(neutral)
    change = (head - neutral)[:, k] - (truth.head - truth.neutral)[:, k]
    neutral = (neutral - centre) * scale + mean_centre
    turned = angle_between(rotation(out[:, COEFFICIENTS["angle"]]), rotation(truth.angle))
    placed = _size(project(posed)[:, k] - truth.seen[:, k])
    return torch.stack(
        [_size(neutral[:, k] - truth.neutral[:, k]) * DM_IN_MM, _size(change) * DM_IN_MM, turned, placed], 1
    )


class Features:
    """The regressor without a face: features and coefficients of pictures."""

    def __init__(self, regressor: Path, resolution: int) -> None:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(regressor).items()}
        self.net = ReconstructionNet(window_of(state)).eval()
        self.net.load_state_dict(state)
        self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as torch documents
        self.resolution = resolution

    @torch.no_grad()
    def __call__(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, S, S) 0..1 -> features (B, 2048) and coefficients (B, 257)."""
        coefficients, features = self.net(seen.contiguous(memory_format=torch.channels_last), True)
        return features.mean((2, 3)), coefficients


@torch.no_grad()
def features(a: argparse.Namespace) -> None:
    """Write features (n, 2048), errors (n, 4; NaN where not known) and yaw (n,) degrees."""
    task = Task(a)
    look = Features(a.regressor, a.resolution)
    rows: list[tuple[F32, F32, F32]] = []
    for batch in tqdm(range(a.batches), desc="features", mininterval=5):
        calm = batch % 4 == 0  # as it is, as most photographs are
        if batch % 5 == 4 and not a.renders_only:
            chosen = task.real[torch.from_numpy(task.rng.integers(len(task.real), size=BATCH))]
            flip, warp = torch.rand(BATCH) < 0.5, Warp.random(BATCH, not calm)
            pictures = task.picture_truth(chosen, flip, warp)
            seen, known = warp.picture(mirrored(task.crops[chosen], flip), a.resolution), task.features[chosen]
        else:
            crops, labels = task.renders.sample(task.rng, BATCH)
            flip, warp = torch.rand(BATCH) < 0.5, Warp.random(BATCH, not calm)
            truth = task.render_truth(labels, flip, warp)
            pictures = None
            seen, known = warp.picture(mirrored(crops, flip), a.resolution), labels["features"]
        found, out = look(seen if calm else photometric(seen, task.rng))
        out = task.corrected(out, known, flip)
        if pictures is None:
            errors, yaw = errors_of_renders(task, out, truth), truth.angle[:, 1]
        else:
            errors, yaw = torch.full((BATCH, len(GROUPS)), torch.nan), out[:, COEFFICIENTS["angle"]][:, 1]
            away = (project(task.decode(out)[2])[:, task.probes.teacher_probes] - pictures.points).square().sum(2)
            mean = (away * pictures.trusted).sum(1) / pictures.trusted.sum(1)
            errors[:, 3] = mean.sqrt()
        rows.append((found.numpy(), errors.numpy(), np.degrees(yaw.numpy())))
    found_, errors_, yaws = (np.concatenate(column) for column in zip(*rows, strict=True))
    np.savez(a.out, features=found_.astype(np.float32), errors=errors_.astype(np.float32), yaw=yaws.astype(np.float32))


def loss_of(log_deviation: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """Compute the mean negative logarithm of a normal likelihood, up to constants, (B, 4) each; NaN: not known."""
    known = ~errors.isnan()
    square = torch.where(known, errors, torch.ones_like(errors)).square()
    terms = log_deviation + 0.5 * square * (-2 * log_deviation).exp()
    return (terms * known).sum() / known.sum()


def train(a: argparse.Namespace) -> None:
    """Fit the network and write ``certainty.safetensors`` beside the regressor's weights."""
    torch.manual_seed(a.seed)
    with np.load(a.features, allow_pickle=False) as data:
        seen, errors = torch.from_numpy(data["features"]), torch.from_numpy(data["errors"])
    held = torch.arange(len(seen)) % HELD_OUT == 0
    net = Certainty()
    net.begin(seen[~held], errors[~held])
    best, kept = float("inf"), {k: v.clone() for k, v in net.state_dict().items()}
    seen = net.components(seen)
    print(f"usual errors {net.bias.exp().tolist()}, loss {loss_of(net.log_deviation(seen[held]), errors[held]):.4f}")
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
    rows = (~held).nonzero()[:, 0]
    for epoch in range(a.epochs):
        for part in rows[torch.randperm(len(rows))].split(128):
            loss = loss_of(net.log_deviation(seen[part]), errors[part])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            value = float(loss_of(net.log_deviation(seen[held]), errors[held]))
        if value < best:
            best, kept = value, {k: v.clone() for k, v in net.state_dict().items()}
        print(f"epoch {epoch}: held out {value:.4f}", flush=True)
    weights = {name: value.half().contiguous() for name, value in kept.items()}
    metadata = {"regressor": digest(a.regressor), "sources": SOURCES, "licence": "Apache-2.0"}
    save_file(weights, a.regressor.with_name(FILE), metadata)


@torch.no_grad()
def judge(a: argparse.Namespace) -> None:
    """Print announced and true errors, in quarters by what was announced."""
    with np.load(a.features, allow_pickle=False) as data:
        seen, errors = torch.from_numpy(data["features"]), data["errors"]
    net = Certainty.beside(a.regressor)
    if net is None:
        raise SystemExit(f"{a.regressor} does not say how sure it is.")
    said = (1 / net(seen)).numpy()
    for column, name in enumerate(GROUPS):
        known = np.isfinite(errors[:, column])
        announced, true = said[known, column], errors[known, column]
        order = np.argsort(announced)
        print(f"{name}: n {known.sum()}, rank correlation {_ranks(announced, true):.2f}")
        for part in np.array_split(order, 4):
            rms = np.sqrt(np.square(true[part]).mean())
            inside = (true[part] < announced[part]).mean()
            print(f"  announced {announced[part].mean():5.2f}  true {rms:5.2f}  below what was announced {inside:.0%}")


def _ranks(a: F32, b: F32) -> float:
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("features")
    for option in ("--face-model", "--teacher-map", "--renders", "--pictures", "--labels", "--regressor", "--out"):
        looking.add_argument(option, type=Path, required=True)
    looking.add_argument("--resolution", type=int, default=112)
    looking.add_argument("--batches", type=int, default=250, help=f"of {BATCH} faces; every fifth of pictures")
    looking.add_argument(
        "--correction", type=Path, help="identity_correction.safetensors that the regressor was trained beneath"
    )
    looking.add_argument("--renders-only", action="store_true")
    looking.add_argument("--seed", type=int, default=1)
    fitting = commands.add_parser("train")
    fitting.add_argument("features", type=Path)
    fitting.add_argument("--regressor", type=Path, required=True)
    fitting.add_argument("--epochs", type=int, default=30)
    fitting.add_argument("--seed", type=int, default=0)
    judging = commands.add_parser("judge")
    judging.add_argument("features", type=Path)
    judging.add_argument("--regressor", type=Path, required=True)
    options = parser.parse_args()
    {"features": features, "train": train, "judge": judge}[options.command](options)
