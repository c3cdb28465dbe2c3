"""Step 4c, refit: the heads for identity and expression are corrected in closed form on undisturbed renders.

    python -m training.refit WEIGHTS.safetensors --renders shards/r --face-model weights/face_model.npz

While it trains, the network sees crops that are blurred, noisy and covered, and learns answers that are drawn to the
mean face as far as such crops leave it in doubt. The service's crops are better than that. So a ridge regression from
the 144 answers on undisturbed crops to what they miss is folded into the two heads: nothing else changes, and nothing
is added to the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from export.face_model import COEFFICIENTS, FaceModel
from export.regressor import ReconstructionNet, trained_resolution
from training.prune import load
from training.regressor import Probes, Renders, Warp

Float = npt.NDArray[np.float64]
HEADS = ("identity", "expression")  # the first two of the network, in this order
ANSWERS = 144
BATCH = 32
RIDGE = 0.1  # of the answers' mean variance; from 0.03 to 0.3 renders of other photographs were as near


def answers(net: ReconstructionNet, crops: torch.Tensor, resolution: int) -> Float:
    """(B, 144) of undisturbed crops (B, 3, 288, 288) uint8."""
    pictures = Warp.random(len(crops), False).picture(crops, resolution)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = net(pictures.contiguous(memory_format=torch.channels_last))
    found: Float = out[:, :ANSWERS].double().numpy()
    return found


def wanted(probes: Probes, labels: dict[str, torch.Tensor]) -> Float:
    """What the answers should have been, (B, 144): of heads with the size and the place that a picture shows.

    See `Probes.observable`: the identity whose shape is nearest to the scaled and centred one, and the expression
    scaled with it.
    """
    k = probes.shape_probes
    neutral = probes.neutral(labels["identity"])
    scale, centre, mean_centre = probes.observable(neutral)
    away = ((neutral - centre) * scale + mean_centre - probes.mean)[:, k].flatten(1).double().numpy()
    modes = probes.identity.view(80, -1, 3)[:, k].flatten(1).double().numpy()
    gram = modes @ modes.T
    identity = np.linalg.solve(gram + 1e-4 * np.trace(gram) / 80 * np.eye(80), modes @ away.T).T
    expression = labels["expression"].double().numpy() * scale.view(-1, 1).double().numpy()
    return np.concatenate([identity, expression], 1)


def correction(given: Float, missing: Float, ridge: float = RIDGE) -> tuple[Float, Float]:
    """Ridge regression of what is missing on what was given, each (n, 144).

    Returns:
        matrix (144, 144) and constant (144,): ``given @ matrix + constant`` comes near ``missing``.
    """
    mean, spread = given.mean(0), given.std(0) + 1e-6
    standard = (given - mean) / spread
    gram = standard.T @ standard
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    matrix = np.linalg.solve(gram, standard.T @ (missing - missing.mean(0))) / spread[:, None]
    return matrix, missing.mean(0) - mean @ matrix


def fold(state: dict[str, torch.Tensor], matrix: Float, constant: Float) -> None:
    """Let the heads add the correction by themselves: their weights in a state dict are changed in place."""
    keys = [f"final_layers.{index}" for index in range(len(HEADS))]
    sizes = [len(state[f"{key}.bias"]) for key in keys]
    turn = torch.from_numpy(matrix.T.copy())
    for part, more in (("weight", None), ("bias", torch.from_numpy(constant))):
        old = torch.cat([state[f"{key}.{part}"] for key in keys]).double()
        new = old + (turn @ old.flatten(1) if old.ndim > 1 else turn @ old).view_as(old)
        new = new if more is None else new + more
        for key, piece in zip(keys, new.split(sizes), strict=True):
            state[f"{key}.{part}"] = piece.to(state[f"{key}.{part}"].dtype).contiguous()


def main(arguments: Sequence[str] | None = None) -> None:
    """Correct a weights file in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="of the regressor, safetensors; rewritten")
    parser.add_argument("--renders", type=Path, required=True, help="stem of the shards")
    parser.add_argument("--face-model", type=Path, default=Path("weights/face_model.npz"))
    parser.add_argument("--teacher-map", type=Path, default=Path("weights/teacher_map.npz"))
    parser.add_argument("--count", type=int, default=12_000, help="renders that are looked at")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    net = load(options.weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    probes = Probes(FaceModel.load(options.face_model), options.teacher_map)
    renders, rng = Renders(options.renders), np.random.default_rng(options.seed)
    given, missing = [], []
    for _ in tqdm(range(0, options.count, BATCH), desc="undisturbed renders", mininterval=5):
        crops, labels = renders.sample(rng, BATCH)
        given.append(answers(net, crops, trained_resolution(options.weights)))
        missing.append(wanted(probes, labels) - given[-1])
    matrix, constant = correction(np.concatenate(given), np.concatenate(missing))
    before, after = np.concatenate(missing), np.concatenate(missing) - np.concatenate(given) @ matrix - constant
    for name in HEADS:
        part = COEFFICIENTS[name]
        explained = 1 - (after[:, part] ** 2).sum() / (before[:, part] ** 2).sum()
        print(f"{name}: {explained:.1%} of what was missing (squared) is answered now")
    with safe_open(options.weights, "pt") as file:
        metadata = {**file.metadata(), "refitted": str(options.count)}
    state = load_file(options.weights)
    fold(state, matrix, constant)
    save_file(state, options.weights, metadata)


if __name__ == "__main__":
    main()
