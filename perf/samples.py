"""Real inputs for every model of the repository: what the pipeline hands from step to step for one portrait."""

from __future__ import annotations

import base64
import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perf import photos
from perf.compare.bare_onnx import Sessions
from perf.compare.repository_steps import RepositorySteps

Tensors = dict[str, Any]


@cache
def tensors() -> dict[str, Tensors]:
    """Model -> input name -> array without the batch axis (file bytes for `image`)."""
    data = photos.mix()["jpeg-0.31MP"]
    work, networks = RepositorySteps(), Sessions(1)
    picture = work.pictures.decode(data, work.limits)
    canvas, ratio = work.pictures.canvas_of(picture)
    geometry = work.pictures.geometry_of(picture, ratio)
    faces = networks.run("detector", canvas=canvas, geometry=geometry)["faces"]
    crop, crop_hd, context = work.align(picture.pixels, picture.source, faces)
    regressed = networks.run("regressor", crop=crop, context=context)
    shapes = regressed["shapes"]
    texture = networks.run("texture", crop_hd=crop_hd, shapes=shapes, context=context)["texture"]
    choice = np.asarray(faces[int(np.argmax(faces[:, 4]))])
    return {
        "face3d": {"image": data},
        "detect": {"image": data},
        "reconstruct": {"image": data, "choice": choice},
        "preprocess": {"image": data},
        "detector": {"canvas": canvas, "geometry": geometry},
        "align": {"picture": picture.pixels, "geometry": geometry, "faces": faces},
        "regressor": {"crop": crop, "context": context},
        "texture": {"crop_hd": crop_hd, "shapes": shapes, "context": context},
        "postprocess": {
            "texture": texture,
            "shapes": shapes,
            "fingerprint": regressed["fingerprint"],
            "context": context,
            "crop_hd": crop_hd,
        },
    }


def write(model: str, folder: Path) -> Path:
    """The inputs of a model as perf_analyzer reads them; a string element carries its length (4 bytes) before it."""
    entry = {}
    for name, value in tensors()[model].items():
        if isinstance(value, bytes):
            entry[name] = {"b64": _base64(struct.pack("<I", len(value)) + value), "shape": [1]}
        else:
            entry[name] = {"b64": _base64(np.ascontiguousarray(value).tobytes()), "shape": list(value.shape)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model}.json"
    path.write_text(json.dumps({"data": [entry]}))
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
