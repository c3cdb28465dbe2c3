"""Step 5, texture: the U-Net learns to complete the skin that neither side of a head shows.

Half of what it sees are photographs' textures, sampled as the service does; what another pose would not have shown, or
a cover would have hidden, is hidden from the network, and it is judged where the photograph does show skin. The other
half are exact heads, of which every texel is known: the albedo model's under some light.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tqdm import tqdm

from networks.camera import CROP, CROP_HD
from networks.chart import Chart
from networks.head_model import HeadModel
from networks.parser import PARTS_SIDE
from networks.regressor import Regressor
from networks.texture import FILL, TABLE, TextureNet
from networks.texture_fill import UNet, plainer
from training.checkpoints import save_state, save_weights
from training.parser import parts_of, reduced
from training.render import euler, vertex_normals

BATCH = 8
PICTURES = 700  # that are sampled, at least, where there are as many
POSES = 96  # visibilities of other poses
COVERED = 0.3  # of the samples have a part of the face covered
JUDGED_MIRRORED = 0.25  # weight of what the mirrored side shows, against what neither side does
# What the shipped weights have seen; written into their metadata.
SOURCES = "SFHQ-dataset (MIT, SelfishGene), official US portraits (public domain), us18f (CC0), ICT-FaceKit (MIT)"

Chance = np.random.Generator


@torch.no_grad()
def sample_textures(crops: Path, labels: Path, regressor: Regressor, net: TextureNet, output: Path) -> None:
    """Write OUTPUT.npy (n, 4, 128, 128) uint8: colours times visibility, and visibility, of `training.parser_labels`.

    The regressor's crop is the large one reduced, so that both show exactly the same square.
    """
    pictures, answers = np.load(crops, mmap_mode="r"), np.load(labels, mmap_mode="r")
    pictures = pictures[:: max(1, len(pictures) // PICTURES)]
    answers = answers[:: max(1, len(answers) // PICTURES)]
    ratio = CROP / CROP_HD
    context = torch.zeros(1, 23)
    context[:, 15:23] = torch.tensor([1, 1, 0, 0, ratio, ratio, ratio / 2 - 0.5, ratio / 2 - 0.5])
    samples = np.zeros((len(pictures), 4, FILL, FILL), np.uint8)
    for index in tqdm(range(len(pictures)), desc="sample textures", mininterval=5):
        picture = np.asarray(pictures[index])
        parts = reduced(parts_of(answers[index].transpose(1, 2, 0) / np.float32(255)), PARTS_SIDE)
        small = reduced(picture, CROP)
        crop, crop_hd, shares = (_planes(part) for part in (small, picture, np.rint(parts * 255).astype(np.uint8)))
        shapes = regressor(crop, context)[0]
        attributes = net.sampler.attributes(shapes[:, 0])
        field = net.sampler.field(attributes)
        facing = net.sampler.visibility(field, attributes)
        seen = facing * net.sampler.skin(net.sampler.shares(field, shares), facing)
        places = net.sampler.places(field, context[:, 15:23]).permute(0, 2, 3, 1)
        cells = F.grid_sample(F.avg_pool2d(crop_hd.float(), 2), places, align_corners=False)
        seen = net.completion(cells, seen)[0]
        both = torch.cat([cells * seen, seen * 255], 1)
        samples[index] = F.avg_pool2d(both, TABLE // FILL)[0].round().byte().numpy()
    np.save(output, samples)


def _planes(picture: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


class Heads:
    """Exact heads: albedo over the whole chart under a light, and what other poses would show of them."""

    def __init__(self, model: HeadModel, net: TextureNet, seed: int) -> None:
        chart = Chart.of(model, FILL)

        def painted(values: npt.NDArray[np.floating[Any]]) -> torch.Tensor:
            """Values of the skin's vertices (S, C) at the texels: (C, 128, 128)."""
            texels = (values[chart.skin][chart.corners] * chart.weights[..., None]).sum(1)
            return torch.from_numpy(texels.T.reshape(-1, FILL, FILL).astype(np.float32))

        self.plain = net.completion.plain
        self.mean = painted(model.albedo_mean)
        self.modes = torch.stack([painted(mode) for mode in model.albedo])
        self.normals = painted(vertex_normals(model.mean.astype(np.float64), model.vertex[model.triangles()]))
        core = net.completion.core[0, 0]
        self.facing = float((self.normals[2] * core).sum() / core.sum())
        self.poses = other_poses(model, net, seed)

    def drawn(self, count: int, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw heads from the albedo model: colours (count, 3, 128, 128) 0..255 in a light, and in the softer one.

        The softer light is what a texture is to carry on: as from the sides and above as the light is, and as from the
        front as it falls on the middle of the face, everywhere. A flash makes no dark back of a head.
        """
        weights = torch.from_numpy(chance.normal(0, 1, (count, len(self.modes))).astype(np.float32))
        albedo = plainer(self.mean + torch.tensordot(weights, self.modes, 1), self.plain)
        direction = chance.normal(0, 1, (count, 3))
        strength = chance.uniform(0, 0.7, (count, 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
        light = torch.from_numpy((direction * strength).astype(np.float32))
        tint = torch.from_numpy(chance.normal(1, 0.06, (count, 3, 1, 1)) * chance.uniform(0.5, 1.4, (count, 1, 1, 1)))
        softer = torch.cat([self.normals[:2], torch.full_like(self.normals[2:], self.facing)])
        shades = [(1 + torch.einsum("bc,chw->bhw", light, n)).clamp(min=0.25)[:, None] for n in (self.normals, softer)]
        full, soft = ((albedo * shade * tint.float()).clamp(1, 255) for shade in shades)
        return full, soft


@torch.no_grad()
def other_poses(model: HeadModel, net: TextureNet, seed: int) -> torch.Tensor:
    """Visibility (POSES, 1, 128, 128) of the mean head turned to the sides by up to 85 degrees."""
    chance = np.random.default_rng(seed)
    masks = []
    for _ in range(POSES):
        turn = euler(np.radians(chance.normal(0, 14)), np.radians(chance.uniform(-85, 85)), 0.0)
        posed = torch.from_numpy((model.mean @ turn.T).astype(np.float32))[None]
        attributes = net.sampler.attributes(posed)
        masks.append(F.avg_pool2d(net.sampler.visibility(net.sampler.field(attributes), attributes), TABLE // FILL))
    return torch.cat(masks)


def covers(count: int, chance: Chance) -> torch.Tensor:
    """What covers leave (count, 1, 128, 128): some samples lose an ellipse of the chart."""
    left = np.ones((count, FILL, FILL), np.float32)
    for mask in left:
        if chance.random() < COVERED:
            column, row = (int(place) for place in chance.integers(20, FILL - 20, 2))
            width, height = (int(axis) for axis in chance.integers(6, 30, 2))
            turn = float(chance.uniform(0, 180))
            cv2.ellipse(mask, (column, row), (width, height), turn, 0, 360, [0.0], -1)
    return torch.from_numpy(left[:, None])


def errors(
    net: TextureNet, unet: UNet | None, colour: torch.Tensor, truth: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """Mean absolute error (B,), 0..1, of what is filled, where the truth is known.

    Args:
        net: whose albedo is filled from.
        unet: None: filling alone.
        colour: (B, 3, 128, 128) 0..255.
        truth: (B, 1, 128, 128) 0..1, where the colour is known.
        left: (B, 1, 128, 128) 0..1, what of it the network is given.
    """
    completion = net.completion
    seen = truth * left
    small = colour * seen
    guess, _ = completion.fill(small, seen, completion.tone(small, seen), unet)
    judged = truth * (1 - left) * (1 - seen.flip(3) * (1 - JUDGED_MIRRORED))
    return ((guess - colour).abs() * judged).sum((1, 2, 3)) / (3 * 255 * judged.sum((1, 2, 3)) + 1)


def batch_of(
    samples: npt.NDArray[np.uint8], heads: Heads, chance: Chance
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colours, where they are known, and what is given, for `errors`: half photographs, half exact heads."""
    half = BATCH // 2
    chosen = torch.from_numpy(samples[chance.integers(len(samples), size=half)]).float()
    seen = chosen[:, 3:] / 255
    photographs = chosen[:, :3] / seen.clamp(min=1e-2)
    left = heads.poses[torch.from_numpy(chance.integers(POSES, size=BATCH))] * covers(BATCH, chance)
    full, soft = heads.drawn(BATCH - half, chance)
    colour = torch.cat([photographs.clamp(max=255), soft + (full - soft) * left[half:]])
    truth = torch.cat([(seen > 0.9).float(), torch.ones(BATCH - half, 1, FILL, FILL)])
    if chance.random() < 0.5:
        colour, truth, left = colour.flip(3), truth.flip(3), left.flip(3)
    return colour, truth, left


@torch.no_grad()
def measure(net: TextureNet, unet: UNet, samples: npt.NDArray[np.uint8], heads: Heads) -> str:
    """The errors with and without the network, of photographs that it does not learn from and of exact heads."""
    chance = np.random.default_rng(1)
    rows = []
    for _ in range(12):
        batch = batch_of(samples, heads, chance)
        rows.append(torch.stack([errors(net, unet, *batch), errors(net, None, *batch)]))
    made, alone = torch.stack(rows).unbind(1)
    half = BATCH // 2
    return ", ".join(
        f"{name} {made[:, part].mean():.4f} (filling alone {alone[:, part].mean():.4f})"
        for name, part in (("photographs", slice(0, half)), ("exact heads", slice(half, None)))
    )


def train(a: argparse.Namespace) -> None:
    """Run the step; a checkpoint is written every hundred steps and resumed from."""
    torch.manual_seed(a.seed)
    model = HeadModel.load(a.face_model)
    net = TextureNet(model, None)
    if not a.cache.exists():
        sample_textures(a.crops, a.labels, Regressor.load(a.regressor, model), net, a.cache)
    samples, heads = np.load(a.cache), Heads(model, net, a.seed)
    samples = samples[samples[:, 3].mean((1, 2)) > 20]  # faces of which next to nothing is seen teach nothing
    held_out, learned = samples[::24], np.delete(samples, np.s_[::24], 0)
    # torch documents this form of `to`; its types lack it
    unet: UNet = UNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if a.start:
        unet.load_state_dict({k: v.float() for k, v in load_file(a.start).items()})
    optimiser = torch.optim.AdamW(unet.parameters(), a.rate, weight_decay=1e-4)
    step, spent = 0, 0.0
    if a.checkpoint.exists():
        state = torch.load(a.checkpoint, weights_only=True)
        unet.load_state_dict(state["unet"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"resumed at step {step}", flush=True)
    chance = np.random.default_rng((a.seed, step))  # not the same samples again
    smooth, last = 0.0, time.time()
    while (done := max(step / a.steps, spent / (60 * a.minutes))) < 1:
        for group in optimiser.param_groups:
            group["lr"] = a.rate * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        loss = errors(net, unet, *batch_of(learned, heads, chance)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        step += 1
        smooth = 0.97 * smooth + 0.03 * loss.item() if smooth else loss.item()
        spent, last = spent + min(time.time() - last, 60), time.time()  # a pause of the process is not training
        if step % 20 == 0:
            print(f"{done:5.1%} step {step}: {smooth:.4f}", flush=True)
        if step % 100 == 0:
            save(unet, optimiser, (step, spent), a)
            print(measure(net, unet, held_out, heads), flush=True)
    save(unet, optimiser, (step, spent), a)
    print(measure(net, unet, held_out, heads), flush=True)


def save(unet: UNet, optimiser: torch.optim.Optimizer, progress: tuple[int, float], a: argparse.Namespace) -> None:
    """Write checkpoint and weights."""
    step, spent = progress
    state = {"unet": unet.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "spent": spent}
    save_state(state, a.checkpoint)
    save_weights(unet, a.weights, {"steps": str(step), "sources": SOURCES, "licence": "Apache-2.0"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face-model", type=Path, required=True, help="the whole head")
    parser.add_argument("--regressor", type=Path, required=True, help="weights of step 4, safetensors")
    parser.add_argument("--crops", type=Path, required=True, help="of training.parser_labels")
    parser.add_argument("--labels", type=Path, required=True, help="as above")
    parser.add_argument("--cache", type=Path, required=True, help="the sampled textures, .npy")
    parser.add_argument("--start", type=Path, help="weights to begin with instead of at random")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="output, safetensors fp16")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=1e9, help="of training; pauses do not count")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
