"""The repository around `stand_in_model`: the names, shapes and types of the service's three ensembles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import numpy as np

from tests.client import synthetic

QUEUE: Final = 8  # requests that wait at `face3d` before the next one is refused

_OUTPUTS: Final = {
    "mesh": ("STRING", "1"),
    "texture": ("STRING", "1"),
    "preview": ("STRING", "1"),
    "vertices": ("FP32", "-1, 3"),
    "vertices_neutral": ("FP32", "-1, 3"),
    "landmarks": ("FP32", "68, 2"),
    "landmarks_3d": ("FP32", "68, 3"),
    "coefficients": ("FP32", "257"),
    "certainty": ("FP32", "4"),
    "visibility": ("UINT8", "1, 512, 512"),
    "face": ("FP32", "15"),
    "camera": ("FP32", "8"),
    "warnings": ("STRING", "-1"),
    "texture_warnings": ("STRING", "-1"),
    "face_model": ("INT64", "1"),
}
_DETECT: Final = {"faces": ("FP32", "64, 15")}


def build(repository: Path) -> Path:
    """Fill a folder with the stand-in of the service and return it."""
    for model, outputs in (("face3d", _OUTPUTS), ("reconstruct", _OUTPUTS), ("detect", _DETECT)):
        folder = repository / model / "1"
        folder.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("stand_in_model.py"), folder / "model.py")
        reply = synthetic.reply()
        for name in ("mesh", "texture", "preview"):
            (folder / name).write_bytes(reply.pop(name)[0, 0])
        del reply["warnings"], reply["texture_warnings"]
        reply["faces"] = faces()
        np.savez(folder / "answers.npz", **reply)
        inputs = {"image": ("STRING", "1")} | ({"choice": ("FP32", "15")} if model == "reconstruct" else {})
        (folder.parent / "config.pbtxt").write_text(_config(model, inputs, outputs))
    return repository


def faces() -> np.ndarray:  # type: ignore[type-arg]
    """What `detect` answers: three faces that count, one below the usual threshold, empty slots."""
    rows = np.zeros((1, 64, 15), np.float32)
    for slot, (score, width) in enumerate([(0.99, 200), (0.95, 120), (0.8, 40), (0.5, 300)]):
        rows[0, slot] = synthetic.FACE
        rows[0, slot, 2] = synthetic.FACE[0] + width
        rows[0, slot, 3] = synthetic.FACE[1] + width
        rows[0, slot, 4] = score
    return rows


def _config(name: str, inputs: dict[str, tuple[str, str]], outputs: dict[str, tuple[str, str]]) -> str:
    lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 1", "instance_group { kind: KIND_CPU count: 1 }"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        lines += [
            f'{kind} {{ name: "{tensor}" data_type: TYPE_{dtype} dims: [ {dims} ] }}'
            for tensor, (dtype, dims) in tensors.items()
        ]
    if name == "face3d":
        policy = f"max_queue_size: {QUEUE} timeout_action: REJECT allow_timeout_override: true"
        lines.append(f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}")
    return "\n".join(lines) + "\n"
