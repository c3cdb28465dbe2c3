"""Step 4b, average: several runs of the regressor that began from the same weights become one.

    python -m training.average OUTPUT.safetensors RUN.pt RUN.pt ... --origin BEFORE.pt --resolution 112

Runs that begin from the same weights, with frozen normalisations and other random pictures, end in the same valley; the
mean of their weights is nearer to its floor than any of them (Wortsman et al. 2022, "Model soups"). It is also how two
machines, or two cores, train one network without speaking to each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.regressor import write_weights


def averaged(checkpoints: Sequence[Path], origin: Path | None = None) -> tuple[dict[str, torch.Tensor], int]:
    """The mean of the averaged weights of several checkpoints, and how many samples went into it.

    Args:
        checkpoints: of `training.regressor`.
        origin: the checkpoint that all of them began from: what it had seen counts once.

    Raises:
        ValueError: the networks differ, or one has seen less than the origin.
    """
    began = int(_read(origin)["samples"]) if origin else 0
    states = [_read(path) for path in checkpoints]
    for path, state in zip(checkpoints, states, strict=True):
        if state["samples"] < began:
            raise ValueError(f"{path} has seen {state['samples']} samples, so it did not begin at {began}.")
        shapes = [{k: v.shape for k, v in other["average"].items()} for other in (states[0], state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{path} and {checkpoints[0]} are different networks.")
    mean = {
        key: torch.stack([state["average"][key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0]["average"].items()
    }
    return mean, began + sum(state["samples"] - began for state in states)


def _read(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
    return state


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the mean as weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="safetensors fp16")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--origin", type=Path, help="the checkpoint that all began from: its samples count once")
    parser.add_argument("--resolution", type=int, default=112)
    options = parser.parse_args(arguments)
    try:
        weights, samples = averaged(options.checkpoints, options.origin)
    except ValueError as error:
        parser.error(str(error))
    write_weights(weights, samples, options.output, options.resolution)
    print(f"{options.output}: the mean of {len(options.checkpoints)} runs, {samples} samples in all")


if __name__ == "__main__":
    main()
