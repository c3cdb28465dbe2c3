"""Real inputs for every model of the repository: the tensors between the steps for one portrait."""

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
    """Compute model -> input name -> array without the batch axis (file bytes for `image`)."""
    data = photos.mix()["jpeg-0.31MP"]
    steps, networks = RepositorySteps(), Sessions(1)
    picture = steps.pictures.decode(data, steps.limits)
    canvas, ratio = steps.pictures.canvas_of(picture)
    geometry = steps.pictures.geometry_of(picture, ratio)
    faces = networks.run("detector", canvas=canvas, geometry=geometry)["faces"]
    crop, crop_hd, context = steps.align(picture.pixels, picture.source, faces)
    regressed = networks.run("regressor", crop=crop, context=context)
    shapes = regressed["shapes"]
    parts = networks.run("parser", crop=crop, fingerprint=regressed["fingerprint"])["parts"]
    painted = networks.run("texture", crop_hd=crop_hd, shapes=shapes, context=context, parts=parts)
    choice = np.asarray(faces[int(np.argmax(faces[:, 4]))])
    return {
        "face3d": {"image": data},
        "detect": {"image": data},
        "reconstruct": {"image": data, "choice": choice},
        "preprocess": {"image": data},
        "detector": {"canvas": canvas, "geometry": geometry},
        "align": {"picture": picture.pixels, "geometry": geometry, "faces": faces},
        "regressor": {"crop": crop, "context": context},
        "parser": {"crop": crop, "fingerprint": regressed["fingerprint"]},
        "texture": {"crop_hd": crop_hd, "shapes": shapes, "context": context, "parts": parts},
        "postprocess": {
            "texture": painted["texture"],
            "places": painted["places"],
            "parts": parts,
            "shapes": shapes,
            "fingerprint": regressed["fingerprint"],
            "expression": regressed["expression"],
            "context": context,
            "crop_hd": crop_hd,
        },
    }


def write(model: str, folder: Path) -> Path:
    """Write a model's inputs as perf_analyzer's JSON and return its path; strings have their 4-byte length in front."""
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
