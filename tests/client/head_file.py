"""A whole head as the service writes it, without a server: by postprocess' own code, of coefficients made up here."""

from __future__ import annotations

import functools
import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from face3d_client import Reconstruction
from face3d_client._protocol.codec import parse_reconstruct
from numpy.typing import NDArray

from export.stages.topology import _save, arrays_of
from networks.camera import rotation
from networks.head_model import HeadModel
from tests.client import synthetic
from tests.model_repository.version_folder import load

MODEL: Final = Path(__file__).resolve().parents[2] / "weights" / "face_model.npz"
# Expressions of the face model, and the shapes of Apple that they are.
SMILE: Final = {"mouthSmile_L": 0.6, "mouthSmile_R": 0.6, "jawOpen": 0.3}
ANGLES: Final = (0.1, -0.4, 0.05)  # radians: pitch, yaw, roll
TRANSLATION: Final = (0.2, -0.1, 0.3)  # decimetres
SIDE: Final = 1024  # of the texture that postprocess takes


@functools.cache
def model() -> HeadModel:
    """The repository's face model."""
    return HeadModel.load(MODEL)


@functools.cache
def surface(folder: str) -> Any:
    """What postprocess knows of the face model, through the file that export writes."""
    path = Path(folder) / "topology.npz"
    if not path.exists():
        _save(path, arrays_of(model()))
    return load("postprocess", "surface").Surface.from_file(path)


def coefficients(expression: dict[str, float]) -> NDArray[np.float32]:
    """(257,): the mean head, turned and shifted, with weights of expressions by the face model's names."""
    values = np.zeros(257, np.float32)
    for name, weight in expression.items():
        values[80 + model().expression_names.index(name)] = weight
    values[224:227], values[254:257] = ANGLES, TRANSLATION
    return values


def reply(folder: Path, moved: dict[str, float] | None = None, **options: str) -> dict[str, NDArray[Any]]:
    """Every output that has to do with the mesh, batch dimension 1 in front.

    Args:
        folder: for the topology's file; the same one makes the next head faster.
        moved: weights by the face model's names. None: `SMILE`.
        **options: parameters of the request: mesh, rig, expression, pose, texture_size.
    """
    values = coefficients(SMILE if moved is None else moved)
    neutral = model().mean
    shown = neutral + np.tensordot(values[80:144], model().expression, 1)
    turn = rotation(torch.tensor([ANGLES]))[0].numpy()
    posed = shown @ turn + np.array(TRANSLATION, np.float32)
    tensors = {
        "shapes": np.stack([posed, shown, neutral]).astype(np.float32),
        "fingerprint": np.array([model().fingerprint]),
        "expression": values[80:144],
        "texture": texture(),
        "crop_hd": np.full((3, 512, 512), 127, np.uint8),
        "context": np.concatenate([synthetic.FACE, synthetic.CAMERA]).astype(np.float32),
    }
    files = load("postprocess", "files").Files(
        surface(str(folder)), tensors, load("postprocess", "options").options_from(json.dumps(options))
    )
    return {
        "mesh": np.array([[files.mesh]], np.object_),
        "vertices": tensors["shapes"][:1] * np.float32(100),
        "vertices_neutral": tensors["shapes"][2:] * np.float32(100),
        "coefficients": values[np.newaxis],
        "camera": synthetic.CAMERA[np.newaxis],
        "landmarks": synthetic.reply()["landmarks"],
        "face": synthetic.FACE[np.newaxis],
        "face_model": tensors["fingerprint"][np.newaxis],
        "warnings": np.empty((1, 0), np.object_),
        "texture_warnings": np.empty((1, 0), np.object_),
    }


def result(folder: Path, moved: dict[str, float] | None = None, **options: str) -> Reconstruction:
    """What the client makes of `reply`."""
    return parse_reconstruct(reply(folder, moved, **options))


@functools.cache
def texture() -> NDArray[np.uint8]:
    """(3, 1024, 1024): the model's mean skin, each texel from its nearest places; row 0 at v = 1."""
    from scipy.spatial import cKDTree

    head, small = model(), SIDE // 4
    places = np.unique(head.triangles(*head.skin))
    row, column = np.mgrid[0:small, 0:small]
    points = np.stack([(column + 0.5) / small, 1 - (row + 0.5) / small], -1).reshape(-1, 2)
    distance, near = cKDTree(head.uv[places]).query(points, 3)
    share = 1 / (distance + 1e-4)
    share /= share.sum(1, keepdims=True)
    colours = (head.albedo_mean[head.vertex[places]][near] * share[..., None]).sum(1).clip(0, 255)
    picture: NDArray[np.uint8] = colours.reshape(small, small, 3).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    return picture.transpose(2, 0, 1).copy()


def unpacked(glb: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a GLB."""
    (length,) = struct.unpack_from("<I", glb, 12)
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def packed(tree: dict[str, Any], binary: bytes) -> bytes:
    """A GLB of these."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    return b"".join(
        [head, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(binary), b"BIN\0"), binary]
    )
