r"""A lighter regressor: channels inside its bottlenecks are taken out, and the whole network teaches what is left.

No labels: on renders and pictures, changed as in training, the light network learns to answer what the whole one does.
At the end both are compared on faces by the criteria that INT8 is held to (`export/models/regressor.py`), so that a
light network that passes may be published as another version of the same model:

    python -m training.prune weights/regressor.safetensors light.safetensors --keep 0.75 --renders shards/r \
        --pictures permissive --labels labels.npz --judge measure-only --minutes 30
    python -m export regressor --weights light.safetensors --version 2
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from export.context import ExportContext
from export.criteria import Criterion, Verdict
from export.models import get_model
from export.options import ExportOptions
from export.reports.measure import faces_in
from export.samples import Sample
from export.session import stack
from networks.camera import project
from networks.face_model import COEFFICIENTS
from networks.head_model import AnyFaceModel, load_face_model
from networks.regressor import Bottleneck, FaceDecoder, ReconstructionNet, Regressor, inner_of, window_of
from training.precision import autocast
from training.regressor import (
    EYES,
    PICTURES_A_BATCH,
    RENDERS_A_BATCH,
    Renders,
    Warp,
    cut_pictures,
    photometric,
    write_weights,
)

LANES = 16  # kept channels come in multiples of this, as vector instructions do
SETTLING = 24  # batches over which the normalisations find their statistics once channels are gone
AVERAGED = 0.998


def load(weights: Path) -> ReconstructionNet:
    """Load the network of a safetensors file, in float32."""
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
    net = ReconstructionNet(window_of(state), inner_of(state))
    net.load_state_dict(state)
    return net.eval()


class Material:
    """Renders and real pictures, changed at random as in training, without labels."""

    def __init__(self, renders: Path, pictures: Path, labels: Path, resolution: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.renders = Renders(renders)
        self.crops, _, _ = cut_pictures(pictures, labels)
        self.resolution = resolution

    def batch(self) -> torch.Tensor:
        """Draw a batch of pictures (B, 3, resolution, resolution) 0..1."""
        crops, _ = self.renders.sample(self.rng, RENDERS_A_BATCH)
        chosen = torch.from_numpy(self.rng.integers(len(self.crops), size=PICTURES_A_BATCH))
        crops = torch.cat([crops, self.crops[chosen]])
        flip = torch.rand(len(crops)) < 0.5
        crops = torch.where(flip.view(-1, 1, 1, 1), crops.flip(3), crops)
        warped = Warp.random(len(crops), True).picture(crops, self.resolution)
        return photometric(warped, self.rng).contiguous(memory_format=torch.channels_last)


def bottlenecks(net: ReconstructionNet) -> Iterator[tuple[str, Bottleneck]]:
    """Return all bottlenecks with their names, in order."""
    return ((name, module) for name, module in net.named_modules() if isinstance(module, Bottleneck))


@torch.no_grad()
def channel_strengths(net: ReconstructionNet, batches: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute what each inner channel contributes: mean square of its values times that of the weights that read it.

    Returns:
        by the name of the convolution that reads it (conv2, conv3 of each bottleneck): (channels,).
    """
    squares: dict[str, torch.Tensor] = {}
    hooks = []
    for name, block in bottlenecks(net):
        for reader in ("conv2", "conv3"):

            def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], key: str = f"{name}.{reader}") -> None:
                squares[key] = squares.get(key, torch.tensor(0.0)) + inputs[0].float().square().mean((0, 2, 3))

            hooks.append(getattr(block, reader).register_forward_pre_hook(note))
    for batch in batches:
        net(batch)
    for hook in hooks:
        hook.remove()
    readers = dict(net.named_modules())
    return {
        key: value / len(batches) * readers[key].get_parameter("weight").float().square().sum((0, 2, 3))
        for key, value in squares.items()
    }


@torch.no_grad()
def prune_channels(net: ReconstructionNet, keep: float, batches: Sequence[torch.Tensor]) -> ReconstructionNet:
    """Copy the network with a share of the channels inside each bottleneck: those that contribute most.

    Args:
        net: the whole network.
        keep: share, rounded up to `LANES` channels.
        batches: pictures that show what is handed on.
    """
    strength = channel_strengths(net, batches)
    state = net.state_dict()
    inner = []
    for name, block in bottlenecks(net):
        width = block.conv1.out_channels
        count = min(width, LANES * math.ceil(keep * width / LANES))
        first, second = (strength[f"{name}.{key}"].topk(count).indices.sort().values for key in ("conv2", "conv3"))
        for key, rows in (("conv1", first), ("bn1", first), ("conv2", second), ("bn2", second)):
            for entry in ("weight", "bias", "running_mean", "running_var"):
                if f"{name}.{key}.{entry}" in state:
                    state[f"{name}.{key}.{entry}"] = state[f"{name}.{key}.{entry}"][rows]
        state[f"{name}.conv2.weight"] = state[f"{name}.conv2.weight"][:, first]
        state[f"{name}.conv3.weight"] = state[f"{name}.conv3.weight"][:, second]
        inner.append(count)
    light = ReconstructionNet(net.window, inner)
    light.load_state_dict(state)
    return light


@torch.no_grad()
def settle(net: ReconstructionNet, batches: Sequence[torch.Tensor]) -> None:
    """Let the normalisations find their running statistics anew, as means over the batches."""
    normalisations = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # the mean of all batches
    net.train()
    for batch in batches:
        net(batch)
    net.eval()


class Pupil:
    """The light network, what it is taught by, and what it learned so far on average."""

    def __init__(self, teacher: ReconstructionNet, light: ReconstructionNet, model: AnyFaceModel, rate: float) -> None:
        self.teacher, self.light = teacher, light
        self.decoder = FaceDecoder(model)
        self.probes = torch.from_numpy(np.random.default_rng(0).choice(len(model.mean), 600, replace=False))
        self.average = {k: v.clone() for k, v in light.state_dict().items()}
        self.rate = rate
        self.optimiser = torch.optim.AdamW(
            [
                {"params": light.backbone.parameters(), "scale": 1.0},
                {"params": light.final_layers.parameters(), "scale": 1 / 16},
            ],
            rate,
            weight_decay=1e-4,
        )

    def losses(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute how far the light network's answers lie from the whole one's: in the crop, both shapes, the rest."""
        with autocast(pictures.device):
            with torch.no_grad():
                wanted = self.teacher(pictures).float()
            given = self.light(pictures).float()
        a, b = self.decoder(wanted), self.decoder(given)
        k = self.probes
        rest = [COEFFICIENTS[name] for name in ("identity", "expression", "albedo", "light")]
        return {
            "seen": (project(b.posed[:, k]) - project(a.posed[:, k])).norm(dim=2).mean() / EYES,
            "head": 15 * (b.head - a.head)[:, k].abs().mean(),
            "neutral": 8 * (b.neutral - a.neutral)[:, k].abs().mean(),
            "angle": 0.3 * (given - wanted)[:, COEFFICIENTS["angle"]].abs().mean(),
            "rest": sum((0.05 * (given - wanted)[:, part].abs().mean() for part in rest), torch.tensor(0.0)),
        }

    def step(self, pictures: torch.Tensor, done: float, number: int) -> dict[str, float]:
        """Take one step of the optimiser; ``done``: 0..1, how much of the schedule is over."""
        for group in self.optimiser.param_groups:
            warm = min(1.0, (number + 1) / 100)
            group["lr"] = group["scale"] * self.rate * warm * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        terms = self.losses(pictures)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.light.parameters(), 1.0)
        self.optimiser.step()
        decay = min(AVERAGED, (number + 1) / (number + 21))
        for key, value in self.light.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
        return {key: term.item() for key, term in terms.items()}


def teach(pupil: Pupil, material: Material, minutes: float, steps: int) -> int:
    """Train until minutes or steps are over; return the number of pictures seen. Normalisations stay as served."""
    started, number = time.time(), 0
    smooth: dict[str, float] = {}
    pupil.light.eval()
    while (done := max(number / steps, (time.time() - started) / (60 * minutes))) < 1:
        for key, value in pupil.step(material.batch(), done, number).items():
            smooth[key] = 0.97 * smooth.get(key, value) + 0.03 * value
        number += 1
        if number % 50 == 0:
            parts = " ".join(f"{key} {value:.4f}" for key, value in smooth.items())
            print(f"{done:5.1%} {number} steps: {parts}", flush=True)
    return number * (RENDERS_A_BATCH + PICTURES_A_BATCH)


@torch.no_grad()
def compare_networks(whole: Regressor, light: Regressor, samples: Sequence[Sample]) -> Verdict:
    """Compare the light network with the whole one, both in float32, by what INT8 is held to."""
    outputs = []
    for network in (whole, light):
        answers = []
        for sample in samples:
            values = network(torch.from_numpy(sample.crop), torch.from_numpy(sample.context))
            answers.append({k: v.numpy() for k, v in zip(Regressor.OUTPUTS, values, strict=True)})
        outputs.append(stack(answers))
    feed = stack([{"context": sample.context} for sample in samples])
    work = sum(p.numel() for p in light.net.parameters()) / sum(p.numel() for p in whole.net.parameters())
    return Verdict(
        (*get_model("regressor").compare(outputs[0], outputs[1], feed), Criterion("share of the parameters", work))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prune, teach, write, judge; 1 when the light network does not pass."""
    parser = argparse.ArgumentParser(
        prog="python -m training.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("whole", type=Path, help="weights to learn from, safetensors")
    parser.add_argument("light", type=Path, help="output, safetensors fp16")
    parser.add_argument("--keep", type=float, default=0.75, help="share of the channels inside bottlenecks (0.75)")
    parser.add_argument("--face-model", type=Path, default=Path("weights/face_model.npz"))
    parser.add_argument("--renders", type=Path, required=True, help="stem of the shards")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True, help="folder of photographs that did not train")
    parser.add_argument("--faces", type=int, default=100, help="of them that judge (100)")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    model = load_face_model(options.face_model)
    whole = Regressor.load(options.whole, model)
    resolution = 224 // whole.downscale
    # torch documents this form of `to`; its types lack it
    teacher = load(options.whole).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    material = Material(options.renders, options.pictures, options.labels, resolution, options.seed)
    batches = [material.batch() for _ in range(SETTLING)]
    light = prune_channels(teacher, options.keep, batches[:8]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settle(light, batches)
    pupil = Pupil(teacher, light, model, options.rate)
    seen = teach(pupil, material, options.minutes, options.steps)
    more = {"kept_channels": str(options.keep), "taught_by": options.whole.name}
    write_weights(pupil.average, seen, options.light, resolution, **more)
    samples = faces_in([options.judge], options.faces, ExportContext(ExportOptions(), print).detect_faces)
    verdict = compare_networks(whole, Regressor.load(options.light, model), samples)
    print(f"{len(samples)} faces: {verdict}")
    print("passed" if verdict.passed else "refused: it is not what the whole network answers")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
