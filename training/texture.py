"""Step 5, texture: the U-Net learns to complete UV textures.

Textures are sampled from real pictures with the trained regressor, as the service does; what another pose would not
have shown is hidden from the network, and it is judged where the picture does show the face. L1 plus a perceptual term
on the first stages of the project's own regressor.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from networks.face_model import FaceModel
from networks.regressor import Backbone, ReconstructionNet, Regressor
from networks.texture import SIZE, TextureNet, UNet, UVSampler, complete
from training.crops import faces_of, listed
from training.render import euler

MASKS = 96  # visibilities of other poses
# What the shipped weights have seen; written into their metadata.
SOURCES = "SFHQ-dataset (MIT, SelfishGene), official US portraits (public domain), us18f (CC0)"


@torch.no_grad()
def sample_textures(
    folder: Path, regressor: Regressor, sampler: UVSampler, count: int, output: Path, seed: int
) -> None:
    """Write OUTPUT.colour.npy (n, 3, 512, 512) and OUTPUT.seen.npy (n, 1, 512, 512), both uint8."""
    files = listed(folder)
    count = min(count, len(files))
    order = np.random.default_rng(seed).permutation(len(files))[:count]
    colours = np.lib.format.open_memmap(output.with_suffix(".colour.npy"), "w+", np.uint8, (count, 3, SIZE, SIZE))
    seens = np.lib.format.open_memmap(output.with_suffix(".seen.npy"), "w+", np.uint8, (count, 1, SIZE, SIZE))
    n = 0
    for _, sample in faces_of(folder, [files[k] for k in order], "sample textures"):
        if sample is None:
            continue
        context = torch.from_numpy(sample.context)
        shapes = regressor(torch.from_numpy(sample.crop), context)[0]
        colour, seen = sampler(torch.from_numpy(sample.crop_hd).float(), shapes[:, 0], context[:, 15:23])
        colours[n], seens[n] = colour[0].round().byte().numpy(), (seen[0] * 255).byte().numpy()
        n += 1
    np.save(output.with_suffix(".count.npy"), n)


@torch.no_grad()
def other_poses(model: FaceModel, sampler: UVSampler, seed: int) -> torch.Tensor:
    """Visibility (MASKS, 1, 512, 512) of the mean face turned by 10 to 75 degrees."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(MASKS):
        yaw = rng.choice([-1, 1]) * rng.uniform(10, 75)
        turn = euler(np.radians(rng.normal(0, 14)), np.radians(yaw), 0.0)
        posed = torch.from_numpy((model.mean @ turn.T).astype(np.float32))[None]
        masks.append(
            F.interpolate(sampler.visibility(sampler.field(sampler.attributes(posed))), scale_factor=2, mode="bilinear")
        )
    return torch.cat(masks)


BATCH = 4
"""Textures a step: what fits into the memory of a small machine."""
UNLEARNED = "l1_unlearned"
"""What filling without the network reaches."""


def losses(
    unet: UNet, backbone: Backbone, colour: torch.Tensor, truth: torch.Tensor, hidden: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Complete textures from what another pose would have seen, and compare.

    Args:
        unet: what is trained.
        backbone: the regressor's, whose features compare what is between texels.
        colour: (B, 3, H, W) textures as sampled, 0..1.
        truth: (B, 1, H, W) what the picture shows, 0..1.
        hidden: (B, 1, H, W) what the other pose shows of it.

    Returns:
        The terms of the loss, and under `UNLEARNED` the error of filling alone, which is not learned from.
    """
    # Hidden texels must not leak: what another pose does not see is another colour there, not the right one.
    given = torch.where(hidden > 0.02, colour, torch.roll(colour, 1, 0))
    completed = complete(given * 255, truth * hidden, unet) / 255
    judged = truth * (1 - hidden)  # seen by the picture, hidden from the network
    weight = truth * 0.05 + judged
    terms = {"l1": ((completed - colour).abs() * weight).sum() / (3 * weight.sum() + 1)}
    # Features of a picture whose unjudged texels are the truth: only judged places differ.
    pasted = completed * truth + colour * (1 - truth)
    half = F.avg_pool2d(torch.cat([pasted, colour]), 4)
    for index, features in enumerate(backbone.stages(half)[:3]):
        made, expected = features.chunk(2)
        terms[f"features{index}"] = 0.05 * (made - expected).abs().mean() / (expected.abs().mean() + 1e-6)
    with torch.no_grad():
        filled = complete(given * 255, truth * hidden) / 255
        terms[UNLEARNED] = ((filled - colour).abs() * weight).sum() / (3 * weight.sum() + 1)
    return terms


def train(a: argparse.Namespace) -> None:
    """Run the step; a checkpoint is written every hundred steps and resumed from."""
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = FaceModel.load(a.face_model)
    regressor = Regressor.load(a.regressor, model)
    net = TextureNet(model, UNet())
    assert net.unet is not None
    assert isinstance(regressor.net, ReconstructionNet)
    if not a.cache.with_suffix(".count.npy").exists():
        sample_textures(a.pictures, regressor, net.sampler, a.pictures_count, a.cache, a.seed)
    count = int(np.load(a.cache.with_suffix(".count.npy")))
    colours = np.load(a.cache.with_suffix(".colour.npy"), mmap_mode="r")
    seens = np.load(a.cache.with_suffix(".seen.npy"), mmap_mode="r")
    masks = other_poses(model, net.sampler, a.seed)
    backbone = regressor.net.backbone.to(device).requires_grad_(False)
    # torch documents this form of `to`; its types lack it
    unet: UNet = net.unet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(unet.parameters(), a.rate, weight_decay=1e-4)
    started, step = time.time(), 0
    if a.checkpoint.exists():
        state = torch.load(a.checkpoint, weights_only=True, map_location=device)
        unet.load_state_dict(state["unet"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        rng = np.random.default_rng((a.seed, step))  # not the same pictures again
        print(f"resumed at step {step}", flush=True)
    smooth: dict[str, float] = {}
    while (done := max(step / a.steps, (time.time() - started) / (60 * a.minutes))) < 1:
        for group in optimiser.param_groups:
            group["lr"] = a.rate * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        chosen = rng.integers(count, size=BATCH)
        colour = torch.from_numpy(colours[chosen]).to(device).float() / 255
        truth = torch.from_numpy(seens[chosen]).to(device).float() / 255
        hidden = masks[torch.from_numpy(rng.integers(MASKS, size=BATCH))].to(device)
        if rng.random() < 0.5:
            colour, truth, hidden = colour.flip(3), truth.flip(3), hidden.flip(3)
        terms = losses(unet, backbone, colour, truth, hidden)
        optimiser.zero_grad(set_to_none=True)
        torch.stack([term for name, term in terms.items() if name != UNLEARNED]).sum().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        step += 1
        for key, term in terms.items():
            smooth[key] = 0.97 * smooth.get(key, term.item()) + 0.03 * term.item()
        if step % 20 == 0:
            parts = " ".join(f"{k} {v:.4f}" for k, v in smooth.items())
            print(f"{done:5.1%} step {step}: {parts}", flush=True)
        if step % 100 == 0:
            save(unet, optimiser, step, a.checkpoint)
    save(unet, optimiser, step, a.checkpoint)
    metadata = {"steps": str(step), "sources": SOURCES, "licence": "Apache-2.0"}
    save_file({k: v.half().contiguous().cpu() for k, v in unet.state_dict().items()}, a.weights, metadata)


def save(unet: UNet, optimiser: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Write the checkpoint; a run that is killed meanwhile leaves the old one whole."""
    state = {"unet": unet.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--regressor", type=Path, required=True, help="weights of step 4, safetensors")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--pictures-count", type=int, default=1400)
    parser.add_argument("--cache", type=Path, required=True, help="stem for the sampled textures")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="output, safetensors fp16")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
