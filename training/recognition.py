"""Train an embedder: `people` with a margin between people, or `distil` from another embedder on nameless pictures.

    python -m training.recognition distil PICTURES --out net.pt
    python -m training.recognition people FOLDER --loss arcface --out net.pt

PICTURES is searched for pictures; FOLDER has a folder for each person. Faces are found and turned upright as the
service does it. The network is MobileFaceNet; the teacher is the service's embedder. Nothing that was trained so is
part of this repository: see the model card.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.errors import ExportError
from export.pictures import load_picture, pictures_in
from export.samples import sample_of
from networks.embedder.embedder import Embedder, default_weights
from networks.embedder.mobilefacenet import DIMENSIONS, MobileFaceNet
from training.crops import Finder
from training.recognition_losses import MarginClassifier, distillation

Crops = NDArray[np.uint8]
WARM_UP = 0.05
"""Part of the steps in which the learning rate rises."""


def rate_at(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine down to 0."""
    rise = max(1, int(WARM_UP * steps))
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def class_aware(people: NDArray[np.int64], batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield batches of places for ever, in which each person is as likely as each other one."""
    places = [np.flatnonzero(people == person) for person in np.unique(people)]
    while True:
        chosen = rng.permutation(len(places)) if len(places) >= batch else rng.integers(0, len(places), batch)
        yield np.array([rng.choice(places[person]) for person in chosen[:batch]])


def augmented(crops: Crops, rng: np.random.Generator) -> torch.Tensor:
    """Return uint8 crops [n,3,112,112] as float32, mirrored, shifted by up to 4 px, lit and blurred at random."""
    x = torch.from_numpy(crops).float()
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)
    x[mirrored] = x[mirrored].flip(3)
    down, right = (int(shift) for shift in rng.integers(-4, 5, 2))
    x = x.roll((down, right), (2, 3))
    each = (len(x), 1, 1, 1)
    gain, offset = torch.from_numpy(rng.uniform(0.7, 1.3, each)), torch.from_numpy(rng.uniform(-25, 25, each))
    if rng.random() < 0.3:
        x = nn.functional.interpolate(
            nn.functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False
        )
    grey = torch.from_numpy(rng.random(len(x)) < 0.3)
    x[grey] = x[grey].mean(1, keepdim=True)
    return (x * gain + offset).clamp(0, 255).float()


def crops_of(files: Sequence[Path]) -> tuple[Crops, list[int]]:
    """Cut the best face of each file out upright; returns uint8 [n,3,112,112] and which files have one."""
    find, crops, kept = Finder(), [], []
    for number, file in enumerate(files):
        sample = sample_of(file.name, load_picture(file), find)
        if sample is not None:
            crops.append(sample.aligned[0])
            kept.append(number)
    if not crops:
        raise ExportError("There is no face in these pictures.")
    return np.stack(crops), kept


@torch.no_grad()
def embedded(network: nn.Module, crops: Crops) -> torch.Tensor:
    """Embed uint8 crops [n,3,112,112]; float32 (n, D) of length 1."""
    network.eval()
    parts = [network(torch.from_numpy(crops[i : i + 32]).float()) for i in range(0, len(crops), 32)]
    return nn.functional.normalize(torch.cat(parts))


def distil(network: nn.Module, teacher: nn.Module, crops: Crops, options: argparse.Namespace) -> list[float]:
    """Train a network on nameless crops; returns at each report the mean cosine with the teacher on a tenth of them."""
    rng = np.random.default_rng(options.seed)
    held = rng.permutation(len(crops))
    held, rest = held[: len(crops) // 10], held[len(crops) // 10 :]
    target = embedded(teacher, crops[held])

    def loss() -> torch.Tensor:
        x = augmented(crops[rng.choice(rest, min(options.batch, len(rest)), replace=False)], rng)
        with torch.no_grad():
            taught = teacher(x)
        return distillation(network(x), taught)

    def report() -> float:
        return float((embedded(network, crops[held]) * target).sum(1).mean())

    return _train(network, network.parameters(), loss, report, options)


def people(network: nn.Module, crops: Crops, person: NDArray[np.int64], options: argparse.Namespace) -> list[float]:
    """Train a network on people; returns the loss at each report."""
    rng = np.random.default_rng(options.seed)
    classifier = MarginClassifier(DIMENSIONS, int(person.max()) + 1, options.loss)
    batches, seen = class_aware(person, options.batch, rng), [math.nan]

    def loss() -> torch.Tensor:
        places = next(batches)
        value: torch.Tensor = classifier(network(augmented(crops[places], rng)), torch.from_numpy(person[places]))
        seen[0] = float(value.detach())
        return value

    return _train(network, [*network.parameters(), *classifier.parameters()], loss, lambda: seen[0], options)


def _train(
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], torch.Tensor],
    report: Callable[[], float],
    options: argparse.Namespace,
) -> list[float]:
    """Take the steps, or as many as fit into the minutes; returns what was reported."""
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=5e-4)
    began, curve = time.monotonic(), []
    for step in range(options.steps):
        # Against the clock the schedule follows the time that has passed, so that it ends at 0 all the same.
        passed = (time.monotonic() - began) / max(60 * options.minutes, 1e-9)
        if passed >= 1:
            break
        place = max(step, int(passed * options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate_at(place, options.steps, options.rate)
        network.train()
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        if (step + 1) % options.every == 0:
            curve.append(report())
            print(f"step {step + 1}: {curve[-1]:.4f}", flush=True)
    network.eval()
    return curve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: trained, 2: it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m training.recognition", description=__doc__)
    parser.add_argument("how", choices=("distil", "people"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--loss", choices=("arcface", "cosface"), default="arcface", help="margin of `people` (arcface)"
    )
    parser.add_argument("--steps", type=int, default=20_000, metavar="N")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="end earlier, after so many")
    parser.add_argument("--batch", type=int, default=32, metavar="N")
    parser.add_argument("--rate", type=float, default=1e-3, metavar="R", help="highest learning rate (0.001)")
    parser.add_argument("--every", type=int, default=100, metavar="N", help="steps between two reports")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="weights, as torch.save writes them")
    options = parser.parse_args(arguments)
    try:
        files = pictures_in(options.folder, 1_000_000)
        crops, kept = crops_of(files)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(crops)} faces in {len(files)} pictures", flush=True)
    torch.manual_seed(options.seed)
    network = MobileFaceNet()
    if options.how == "distil":
        distil(network, Embedder.load(default_weights()).network, crops, options)
    else:
        names = [files[number].parent.name for number in kept]
        people(network, crops, np.unique(names, return_inverse=True)[1].astype(np.int64), options)
    torch.save(network.state_dict(), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
