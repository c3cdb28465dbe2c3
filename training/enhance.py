"""Train the enhancement network on faces made worse (`training.enhance_data`), and measure it against Lanczos.

    python -m training.enhance train PICTURES --checkpoint enhance.pt --weights enhance.safetensors --minutes 15
    python -m training.enhance measure PORTRAITS --weights weights/enhance.safetensors

"Lanczos" is what the network is given: a small picture enlarged so, and a blurred or noisy one as it is.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from export.session import Session
from networks.enhance import SIDE, TILE, Enhance, EnhanceNet
from training.checkpoints import save_state, save_weights
from training.crops import faces_of, listed
from training.enhance_data import KINDS, U8, Chance, Faces
from training.perceptual import Perceptual
from training.precision import autocast

Corrects = Callable[[torch.Tensor], torch.Tensor]

BATCH = 16
POOL, FRESH = 1024, 8  # samples at hand, and how many of them a step draws anew
INSIDE = np.s_[3:-5, 5:-3]  # of a harmed picture, is measured
LEAST = 3e-5  # squared error, of levels 0..1, below which a picture is as good as the truth
AVERAGE = 0.999  # of the weights that are kept, a step
SOURCES = "SFHQ-dataset (MIT, SelfishGene), official US portraits (public domain), us18f (CC0)"


def planes(pictures: list[U8]) -> torch.Tensor:
    """Stack pictures (h, w, 3): (B, 3, h, w) 0..1."""
    stacked = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2)).float().div(255)
    return stacked.contiguous(memory_format=torch.channels_last)


def loss_of(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Compute the mean logarithm of each picture's error and of that of its edges.

    The logarithm (Chen et al., HINet, 2021) makes one decibel worth the same on a picture that is nearly good and on
    one that is very bad; with Charbonnier's error nothing was learned for long, as most pixels differ by nothing.
    """
    error = made - truth
    across, down = error.diff(dim=3).square().mean((1, 2, 3)), error.diff(dim=2).square().mean((1, 2, 3))
    whole = (error.square().mean((1, 2, 3)) + LEAST).log()
    return whole.mean() + 0.5 * (across + down + LEAST).log().mean()


def gradient_similarity(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Compute the gradient magnitude similarity deviation of grey pictures 0..255: 0 the same, 0.35 very different.

    Xue, Zhang, Mou, Bovik: Gradient Magnitude Similarity Deviation, IEEE TIP 2014 (half size, Prewitt, c = 170).
    """
    kernel = np.repeat(np.array([[1, 0, -1]], np.float32) / 3, 3, 0)
    magnitudes = []
    for picture in (a, b):
        half = np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)
        magnitudes.append(np.hypot(cv2.filter2D(half, -1, kernel), cv2.filter2D(half, -1, kernel.T)))
    one, two = magnitudes
    return float(((2 * one * two + 170) / (one**2 + two**2 + 170)).std())


def quality(made: U8, truth: U8) -> tuple[float, float, float]:
    """Measure PSNR in dB, SSIM and GMSD of a picture (h, w, 3)."""
    error = float(np.square(made.astype(np.float64) - truth).mean())
    grey = [np.asarray(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), np.float32) for p in (made, truth)]
    psnr = 10 * math.log10(255**2 / max(error, 1e-3))
    same = float(structural_similarity(grey[0], grey[1], data_range=255))  # type: ignore[no-untyped-call]
    return psnr, same, gradient_similarity(grey[0], grey[1])


@torch.no_grad()
def compare(
    enhance: Corrects, pictures: list[U8], deep: Perceptual | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Measure each kind of harm: per picture (n, 2, 4), of what is given and of what is made; without ``deep`` 3."""
    rows: dict[str, list[tuple[tuple[float, ...], ...]]] = defaultdict(list)
    for index, truth in enumerate(pictures):
        true = truth[INSIDE]
        for kind, harm in KINDS.items():
            # No grid begins where the network's own does.
            worse = harm.done(truth, np.random.default_rng(index))[INSIDE]
            given = torch.from_numpy(worse.transpose(2, 0, 1).copy())[None]
            made = enhance(given)[0].permute(1, 2, 0).numpy()
            pair = (worse, np.ascontiguousarray(made))
            rows[kind].append(tuple(quality(p, true) + ((deep(p, true),) if deep else ()) for p in pair))
    return {kind: np.array(values) for kind, values in rows.items()}


def report(found: dict[str, npt.NDArray[np.float64]]) -> str:
    """Lay out what `compare` measured."""
    lines = []
    for kind, values in found.items():
        (psnr, same, edges, *deep), (after, same_after, edges_after, *deep_after) = values.mean(0)
        better = (values[:, 1, 0] > values[:, 0, 0]).mean()
        lines.append(
            f"{kind:20s} PSNR {psnr:5.2f} -> {after:5.2f} dB ({after - psnr:+.2f}; better {better:.0%}), "
            f"SSIM {same:.3f} -> {same_after:.3f}, GMSD {edges:.3f} -> {edges_after:.3f}"
            + "".join(f", deep {a:.3f} -> {b:.3f}" for a, b in zip(deep, deep_after, strict=True))
        )
    harmed = np.mean([values.mean(0) for kind, values in found.items() if kind != "clean"], 0)
    lines.append("mean of all harms: " + ", ".join(f"{a:.3f} -> {b:.3f}" for a, b in harmed.T))
    return "\n".join(lines)


def portraits(folder: Path) -> list[U8]:
    """Cut the squares of a folder's faces at 256 px, reduced from 1.3 times as much or more: the truth is sharp."""
    kept = []
    for _, sample in faces_of(folder, listed(folder), f"crops of {folder.name}"):
        if sample is not None and sample.context[0, 19] >= 0.65:
            crop = np.ascontiguousarray(sample.crop_hd[0].transpose(1, 2, 0))
            kept.append(np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8))
    return kept


def _even(pictures: list[U8]) -> list[U8]:
    """Cut pictures to sides that are multiples of 8."""
    return [np.ascontiguousarray(p[: p.shape[0] // 8 * 8, : p.shape[1] // 8 * 8]) for p in pictures]


def train(a: argparse.Namespace) -> None:
    """Run the step; a checkpoint is written every hundred steps and resumed from."""
    torch.manual_seed(a.seed)
    cv2.setNumThreads(1)  # of a patch each thread would have a few lines
    faces = Faces(a.pictures)
    # torch documents this form of `to`; its types lack it
    net: EnhanceNet = EnhanceNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept = EnhanceNet()
    kept.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), a.rate, (0.9, 0.99), weight_decay=1e-4)
    step, spent = 0, 0.0
    if a.checkpoint.exists():
        state = torch.load(a.checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        kept.load_state_dict(state["kept"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"resumed at step {step}", flush=True)
    chance: Chance = np.random.default_rng((a.seed, step))
    smooth, last = 0.0, time.time()
    pool: list[tuple[U8, U8]] = []
    while (done := max(step / a.steps, spent / (60 * a.minutes))) < 1:
        rate = a.rate * min(1, (step + 1) / 300) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        pool = (pool + [faces.drawn(chance) for _ in range(FRESH if pool else BATCH)])[-POOL:]
        chosen = [pool[int(k)] for k in chance.integers(len(pool), size=BATCH)]
        given, truth = planes([pair[0] for pair in chosen]), planes([pair[1] for pair in chosen])
        with autocast(given.device):
            made = net(given)
        loss = loss_of(made.float(), truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            decay = min(AVERAGE, step / (step + 20))
            for mine, value in zip(kept.parameters(), net.parameters(), strict=True):
                mine.lerp_(value, 1 - decay)
        gain = float(loss_of(given, truth) - loss.detach())
        smooth = 0.98 * smooth + 0.02 * gain if smooth else gain
        # A pause of the process is not training.
        spent, last = spent + min(time.time() - last, 60), time.time()
        if step % 100 == 0:
            print(f"{done:5.1%} step {step}: loss {smooth:.4f} below what is given's", flush=True)
        if step % 200 == 0:
            save(net, kept, optimiser, (step, spent), a)
        if step % 2500 == 0:
            print(report(compare(Enhance(kept), _even(faces.held_out[:24]))), flush=True)
    save(net, kept, optimiser, (step, spent), a)
    print(report(compare(Enhance(kept), _even(faces.held_out))), flush=True)


def save(
    net: EnhanceNet,
    kept: EnhanceNet,
    optimiser: torch.optim.Optimizer,
    progress: tuple[int, float],
    a: argparse.Namespace,
) -> None:
    """Write checkpoint and weights."""
    step, spent = progress
    state = {"net": net.state_dict(), "kept": kept.state_dict(), "optimiser": optimiser.state_dict()}
    save_state({**state, "step": step, "spent": spent}, a.checkpoint)
    save_weights(kept, a.weights, {"samples": str(step * BATCH), "sources": SOURCES, "licence": "Apache-2.0"})


def measure(a: argparse.Namespace) -> None:
    """Print what the network gains on the crops of a folder's portraits, at 256 px."""
    pictures = portraits(a.pictures)
    print(f"{len(pictures)} crops of {SIDE} px")
    enhance = _served(a.weights) if a.weights.suffix == ".onnx" else Enhance.load(a.weights)
    print(report(compare(enhance, pictures, Perceptual())))


def _served(path: Path) -> Corrects:
    """An exported graph, of tiles that are larger than what is measured."""
    session = Session(onnx.load(path))

    def corrected(given: torch.Tensor) -> torch.Tensor:
        rest = [TILE - side for side in given.shape[:1:-1]]
        tile = F.pad(given.float(), (0, rest[0], 0, rest[1]), mode="replicate").to(torch.uint8)
        return torch.from_numpy(session({"tile": tile.numpy()})["enhanced"])[..., : given.shape[2], : given.shape[3]]

    return corrected


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("pictures", type=Path, help="folder with index.csv")
    parser.add_argument("--weights", type=Path, default=Path("weights/enhance.safetensors"))
    parser.add_argument("--checkpoint", type=Path, default=Path("enhance.pt"))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=1e9, help="of training; pauses do not count")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "train":
        train(options)
    else:
        measure(options)
