"""Train the parser on the teachers' labels (`training.parser_labels`), with covers whose masks are known.

The crops are turned, scaled, mirrored, coloured, blurred and compressed; people are put before other backgrounds, so
that these tell nothing; some have their hair coloured anew, because the teachers are weak on white hair and few
training pictures have it. Bearded faces are drawn more often, and others are given beards (`training.parser_beards`).
With ``--renders`` a third of the samples are heads of `training.parser_renders`.

A target is the parts of each pixel times how much the pixel weighs: nothing where nobody knows what it shows, and more
under a drawn cover, whose place is exact and whose area is small.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from networks.camera import CROP
from networks.parser import PARTS, PARTS_SIDE, ParserNet
from training.checkpoints import save_state, save_weights
from training.parser_beards import GROWN, SHARE, Beards, bearded
from training.parser_covers import KINDS, cover
from training.parser_labels import HAIR, PERSON, SKIN, UNKNOWN

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Chance = np.random.Generator

BATCH = 16
MEMORY = 256  # side of the crops in memory
HELD_OUT = 24  # one crop of so many only measures
RENDERED = 0.35  # share of the samples, where there are renders
BEARDED = 4.0  # how many times as often a photograph or render with a beard is drawn
PUT_ON = 0.12  # share of the photographs without a beard that get one
# Thin covers and those of skin's colour are the hard ones.
CHANCES = {"stick": 3.0, "text": 2.5, "hand": 2.0, "microphone": 1.5}
COVER_WEIGHT = 2.0  # of a pixel under a cover
POOL, FRESH = 512, 6  # samples at hand, and how many of them a step draws anew: drawing costs as much as learning
SOURCES = "SFHQ-dataset (MIT, SelfishGene), official US portraits (public domain), us18f (CC0)"
AVERAGE = 0.998  # of the weights that are kept, a step


Kind = TypeVar("Kind", np.uint8, np.float32)


def reduced(picture: npt.NDArray[Kind], side: int) -> npt.NDArray[Kind]:
    """Reduce a picture (h, w, C) to (side, side, C) by means over areas."""
    return np.asarray(cv2.resize(np.asarray(picture), (side, side), interpolation=cv2.INTER_AREA), picture.dtype)


class Pictures:
    """What is learned from: crops (n, 256, 256, 3) and labels (n, 4, 256, 256), uint8; draws training samples.

    Attributes:
        crops, labels: photographs, then renders; the labels are skin, hair, person, unknown.
        sources: (n,) which photograph a row shows, as its row in the file of crops.
        photographs: how many rows are photographs.
    """

    def __init__(self, crops: Path, labels: Path, renders: Path | None = None) -> None:
        whole, answers = np.load(crops, mmap_mode="r"), np.load(labels, mmap_mode="r")
        # Crops in which the teachers see nobody teach nothing.
        self.sources = np.flatnonzero([answer[PERSON].any() for answer in answers])
        self.photographs = len(self.sources)
        self.labels = answers[self.sources]
        self.crops = np.stack([reduced(whole[k], MEMORY) for k in self.sources])
        if renders is not None:
            self.crops = np.concatenate([self.crops, np.load(renders.with_suffix(".npy"))])
            self.labels = np.concatenate([self.labels, np.load(renders.with_suffix(".labels.npy"))])
            self.sources = np.concatenate([self.sources, np.load(renders.with_suffix(".sources.npy"))])
        measures = self.sources % HELD_OUT == 0
        self.held_out, self.trained_on = np.flatnonzero(measures), np.flatnonzero(~measures)
        self.chin = bearded(self.labels)
        donors = np.flatnonzero((self.chin > GROWN) & ~measures & (np.arange(len(self.chin)) < self.photographs))
        self.beards = Beards(self.crops[donors], self.labels[donors]) if len(donors) else None

    def chosen(self, count: int, chance: Chance) -> npt.NDArray[np.intp]:
        """Draw rows to train on."""
        rows = self.trained_on
        rendered = rows >= self.photographs
        often = np.where(self.chin[rows] > SHARE, BEARDED, 1.0)
        sums = np.where(rendered, (often * rendered).sum(), (often * ~rendered).sum())
        shares = often / sums * np.where(rendered, RENDERED, 1 - RENDERED)
        return np.asarray(chance.choice(rows, count, p=shares / shares.sum()))

    def drawn(self, index: int, side: int, chance: Chance) -> tuple[U8, F32]:
        """A changed picture (side, side, 3) and its target (3, side, side)."""
        crop, labels = self.crops[index], self.labels[index].transpose(1, 2, 0)
        other = reduced(self.crops[int(chance.integers(self.photographs))], CROP)
        if (
            self.beards is not None
            and index < self.photographs
            and self.chin[index] < SHARE
            and chance.random() < PUT_ON
        ):
            crop, labels = self.beards.put_on(crop, labels, chance)
        crop, labels = _moved(crop, labels, chance)
        target = parts_of(labels.astype(np.float32) / 255)
        known = 1 - labels[..., UNKNOWN].astype(np.float32) / 255
        person = np.clip(labels[..., PERSON].astype(np.float32) / 255 * 3 - 1, 0, 1)
        if chance.random() < 0.15:
            crop = _with_hair_coloured(crop, target[..., 1], chance)
        # Renders stand before other people's photographs, whose skin would be called background.
        if index >= self.photographs or chance.random() < 0.4:
            crop = _before(crop, person, background(other, chance))
        target = target * known[..., None]
        for _ in range(int(chance.choice([0, 1, 2, 3], p=[0.3, 0.4, 0.2, 0.1]))):
            drawn = cover(crop, other, chance, _kind(chance))
            crop, target = drawn.picture, target * (1 - drawn.mask[..., None])
            target[..., 2] += COVER_WEIGHT * drawn.mask
        small = reduced(target, side)
        crop = reduced(crop, side)
        return photographed(crop, chance), np.ascontiguousarray(small.transpose(2, 0, 1))

    def plain(self, index: int, side: int) -> tuple[U8, F32]:
        """The picture and its target as they are, to measure with."""
        crop = reduced(self.crops[index], side)
        labels = self.labels[index].transpose(1, 2, 0).astype(np.float32) / 255
        small = reduced(parts_of(labels) * (1 - labels[..., UNKNOWN:]), side)
        return crop, np.ascontiguousarray(small.transpose(2, 0, 1))


def _kind(chance: Chance) -> str:
    """Draw a kind of cover."""
    weights = np.array([CHANCES.get(kind, 1.0) for kind in KINDS])
    return str(chance.choice(list(KINDS), p=weights / weights.sum()))


def parts_of(answers: F32) -> F32:
    """Join the teachers: their answers (h, w, 3 or more) 0..1 -> `PARTS` (h, w, 3) of sum 1."""
    # The teachers' borders are some pixels wide; what is sure stays sure.
    sharp = np.clip((answers - 0.5) * 3 + 0.5, 0, 1)
    hair = sharp[..., HAIR] * sharp[..., PERSON]
    skin = sharp[..., SKIN] * sharp[..., PERSON] * (1 - hair)
    return np.asarray(np.stack([skin, hair, 1 - skin - hair], -1), np.float32)


def _moved(crop: U8, labels: U8, chance: Chance) -> tuple[U8, U8]:
    """Turn, scale, shift and mirror alike; beyond the crop all is black and nobody."""
    # Turned heads, of which there are few, are seen larger, beside the middle and narrower.
    scale = CROP / MEMORY * math.exp(chance.normal(0.08, 0.18))
    matrix = cv2.getRotationMatrix2D((MEMORY / 2, MEMORY / 2), chance.normal(0, 7), scale)
    matrix[0] = matrix[0] * (stretch := math.exp(chance.normal(0, 0.1))) + np.array([0, 0, (1 - stretch) * MEMORY / 2])
    matrix = matrix + np.array([[0, 0, 1], [0, 0, 1]]) * ((CROP - MEMORY) / 2 + chance.normal(0, [[16], [9]]))
    if chance.random() < 0.5:
        matrix = np.array([[-1, 0, CROP - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
    size = (CROP, CROP)
    moved, with_it = (np.asarray(cv2.warpAffine(plane, matrix, size), np.uint8) for plane in (crop, labels))
    return moved, with_it


def _with_hair_coloured(crop: U8, hair: F32, chance: Chance) -> U8:
    """White, grey, fair, red or dyed hair in place of what is there, with its own strands."""
    grey = crop.astype(np.float32).mean(-1, keepdims=True)
    mean = (grey * hair[..., None]).sum() / (hair.sum() + 1)
    colour = chance.uniform(120, 240) + chance.normal(0, 12, 3)
    if chance.random() < 0.3:
        colour = chance.uniform(20, 240, 3)
    strands = (grey - mean) * chance.uniform(0.6, 1.4)
    mixed = crop * (1 - hair[..., None]) + (colour + strands) * hair[..., None]
    return np.asarray(np.rint(mixed.clip(0, 255)), np.uint8)


def background(other: U8, chance: Chance) -> F32:
    """A background (224, 224, 3): one colour, a run of colours, or another picture, blurred and turned."""
    kind = chance.random()
    if kind < 0.35:
        return np.broadcast_to(chance.choice([0, 255, *chance.uniform(0, 255, 3)], 3), (CROP, CROP, 3)).astype(
            np.float32
        )
    if kind < 0.6:
        cells = chance.uniform(0, 255, (int(chance.integers(2, 9)), int(chance.integers(2, 9)), 3)).astype(np.float32)
        how = cv2.INTER_LINEAR if kind < 0.5 else cv2.INTER_NEAREST
        return np.asarray(cv2.resize(cells, (CROP, CROP), interpolation=how), np.float32)
    turned = np.rot90(other, int(chance.integers(1, 4))).astype(np.float32)
    size = int(chance.integers(1, 25))
    return np.asarray(cv2.blur(turned, (size, size)), np.float32)


def _before(crop: U8, person: F32, behind: F32) -> U8:
    mixed = crop * person[..., None] + behind * (1 - person[..., None])
    return np.asarray(np.rint(mixed.clip(0, 255)), np.uint8)


def photographed(crop: U8, chance: Chance) -> U8:
    """Other light, colour, sharpness, noise and compression."""
    picture = crop.astype(np.float32)
    if chance.random() < 0.7:
        gamma = chance.uniform(0.6, 1.6)
        tint = chance.uniform(0.75, 1.15) * chance.normal(1, 0.06, 3).clip(0.8, 1.2)
        curve = 255 * (np.arange(256)[:, None] / 255) ** gamma * tint
        picture = np.stack([cv2.LUT(crop[..., k], curve[:, k].astype(np.float32)) for k in range(3)], -1)
    if chance.random() < 0.15:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    if chance.random() < 0.25:
        blur = crop.shape[0] / CROP * chance.uniform(0.4, 2.5)
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    if chance.random() < 0.25:
        small = reduced(picture, int(crop.shape[0] * chance.uniform(0.2, 0.7)))
        picture = np.asarray(cv2.resize(small, (crop.shape[1], crop.shape[0])), np.float32)
    if chance.random() < 0.3:
        picture = picture + chance.standard_normal(picture.shape, np.float32) * np.float32(chance.uniform(1, 12))
    result: U8 = np.rint(picture.clip(0, 255)).astype(np.uint8)
    if chance.random() < 0.3:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(chance.integers(15, 80))])
        result = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return result


def batch_of(samples: list[tuple[U8, F32]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack samples: pictures (B, 3, s, s) 0..1 and targets (B, 3, s, s)."""
    pictures = torch.from_numpy(np.stack([picture for picture, _ in samples]).transpose(0, 3, 1, 2)).to(device)
    targets = torch.from_numpy(np.stack([target for _, target in samples])).to(device)
    return pictures.float().div(255).contiguous(memory_format=torch.channels_last), targets


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy, and how far the parts' areas fail to overlap (soft Dice), of logits and targets (B, 3, h, w)."""
    weight = target.sum(1, keepdim=True)
    entropy = -(target * logits.log_softmax(1)).sum() / weight.sum().clamp(min=1)
    parts = logits.softmax(1) * weight
    overlap = 2 * (parts * target).sum((0, 2, 3)) / (parts + target).sum((0, 2, 3)).clamp(min=1)
    return entropy + 0.3 * (1 - overlap).mean()


@torch.no_grad()
def measure(
    net: ParserNet, pictures: Pictures, rows: npt.NDArray[np.intp], side: int, device: torch.device
) -> list[float]:
    """Intersection over union of each part with what is known of the rows' pixels."""
    net.eval()
    both, either = np.zeros(3), np.zeros(3)
    for start in range(0, len(rows), BATCH):
        samples = [pictures.plain(int(k), side) for k in rows[start : start + BATCH]]
        images, targets = batch_of(samples, device)
        found, wanted, known = net(images).argmax(1), targets.argmax(1), targets.sum(1) > 0.5
        for part in range(len(PARTS)):
            a, b = (found == part) & known, (wanted == part) & known
            both[part] += (a & b).sum().item()
            either[part] += (a | b).sum().item()
    net.train()
    return list(both / either.clip(1))


@torch.no_grad()
def measure_covers(
    net: ParserNet, pictures: Pictures, rows: npt.NDArray[np.intp], side: int, device: torch.device
) -> dict[str, float]:
    """Share of the pixels under drawn covers, by kind, that are not called skin; the same covers each time."""
    net.eval()
    chance, shares = np.random.default_rng(7), {}
    for kind in KINDS:
        samples = []
        for row in rows:
            crop = reduced(pictures.crops[row], CROP)
            drawn = cover(crop, crop[::-1], chance, kind)
            mask = np.repeat(reduced(drawn.mask, side)[None], 3, 0)
            samples.append((reduced(drawn.picture, side), mask))
        images, masks = batch_of(samples, device)
        under = masks[:, 0] > 0.9
        shares[kind] = float((net(images).argmax(1) != 0)[under].float().mean())
    net.train()
    return shares


def monitor(net: ParserNet, pictures: Pictures, side: int, device: torch.device) -> str:
    """Say how the network does on what is held out: photographs, renders, covers."""
    rows = pictures.held_out
    real, rendered = rows[rows < pictures.photographs], rows[rows >= pictures.photographs]
    text = []
    for name, chosen in (("photographs", real), ("renders", rendered)):
        if len(chosen):
            scores = zip(PARTS, measure(net, pictures, chosen, side, device), strict=True)
            text.append(f"{name} " + " ".join(f"{part} {value:.4f}" for part, value in scores))
    covers = measure_covers(net, pictures, real, side, device)
    text.append("covers " + " ".join(f"{kind} {value:.3f}" for kind, value in covers.items()))
    return "held out: " + "; ".join(text)


def train(a: argparse.Namespace) -> None:
    """Run the step; a checkpoint is written every hundred steps and resumed from."""
    torch.manual_seed(a.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = Pictures(a.crops, a.labels, a.renders)
    # torch documents this form of `to`; its types lack it
    net: ParserNet = ParserNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if a.start is not None:
        begin_with(net, a.start)
    kept: ParserNet = ParserNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), a.rate, weight_decay=1e-3)
    step, spent = 0, 0.0
    if a.checkpoint.exists():
        state = torch.load(a.checkpoint, weights_only=True, map_location=device)
        net.load_state_dict(state["net"])
        kept.load_state_dict(state["kept"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"resumed at step {step}", flush=True)
    chance = np.random.default_rng((a.seed, step))  # not the same samples again
    smooth, last = 0.0, time.time()
    pool: list[tuple[U8, F32]] = []
    while (done := max(step / a.steps, spent / (60 * a.minutes))) < 1:
        rate = a.rate * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        pool += [pictures.drawn(int(k), a.side, chance) for k in pictures.chosen(FRESH if pool else BATCH, chance)]
        pool = pool[-POOL:]
        images, targets = batch_of([pool[int(k)] for k in chance.integers(len(pool), size=BATCH)], device)
        if chance.random() < 0.5:
            images, targets = images.flip(3), targets.flip(3)
        loss = loss_of(net(images), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        _average(kept, net, min(AVERAGE, step / (step + 20)))
        smooth = 0.97 * smooth + 0.03 * loss.item() if smooth else loss.item()
        # A pause of the process is not training.
        spent, last = spent + min(time.time() - last, 60), time.time()
        if step % 20 == 0:
            print(f"{done:5.1%} step {step}: loss {smooth:.4f}", flush=True)
        if step % 100 == 0:
            save(net, kept, optimiser, (step, spent), a)
        if step % 300 == 0:
            print(monitor(kept, pictures, a.side, device), flush=True)
    save(net, kept, optimiser, (step, spent), a)


def begin_with(net: ParserNet, weights: Path) -> None:
    """Load weights to go on from; those of a network without the last correction leave it as it is, at nothing.

    Raises:
        RuntimeError: they are of another network.
    """
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
    own = {k: v for k, v in net.state_dict().items() if k.startswith("fine.")}
    net.load_state_dict({**own, **state})


def seen_by(weights: Path) -> int:
    """Return how many samples a file of weights has seen, by its metadata."""
    with safe_open(weights, "pt") as file:
        return int((file.metadata() or {}).get("samples", 0))


@torch.no_grad()
def _average(kept: ParserNet, net: ParserNet, decay: float) -> None:
    for name, value in net.state_dict().items():
        mine = kept.state_dict()[name]
        if value.is_floating_point():
            mine.mul_(decay).add_(value, alpha=1 - decay)
        else:
            mine.copy_(value)


def save(
    net: ParserNet,
    kept: ParserNet,
    optimiser: torch.optim.Optimizer,
    progress: tuple[int, float],
    a: argparse.Namespace,
) -> None:
    """Write checkpoint and weights."""
    step, spent = progress
    state = {"net": net.state_dict(), "kept": kept.state_dict(), "optimiser": optimiser.state_dict()}
    save_state({**state, "step": step, "spent": spent}, a.checkpoint)
    samples = step * BATCH + (seen_by(a.start) if a.start is not None else 0)
    save_weights(kept, a.weights, {"samples": str(samples), "sources": SOURCES, "licence": "Apache-2.0"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="of training.parser_labels")
    parser.add_argument("--labels", type=Path, required=True, help="as above")
    parser.add_argument("--renders", type=Path, help="stem, of training.parser_renders")
    parser.add_argument("--start", type=Path, help="weights to go on from, where there is no checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="output, safetensors fp16")
    parser.add_argument("--side", type=int, default=PARTS_SIDE, help="of the pictures it sees; a multiple of 32")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=1e9, help="of training; pauses do not count")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
