"""A GLB of the service with an animation in it (glTF 2.0, 3.11): rotation of the head, weights of its morph targets."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face3d_client._mesh.glb_file import MALFORMED, join_glb, malformed, read_glb

__all__ = ["animated_glb"]

F32 = NDArray[np.float32]
_FLOAT: Final = 5126  # componentType


def animated_glb(glb: bytes, seconds: F32, rotations: F32, weights: F32) -> bytes:
    """Add an animation to a rigged head.

    Args:
        glb: a file with one node and one mesh with W morph targets.
        seconds: (T,), ascending.
        rotations: (T, 4), unit quaternions x, y, z, w of the node.
        weights: (T, W), 0..1.

    Raises:
        BadResponse: not such a GLB.
        ValueError: no keys, or they do not belong together.
    """
    if not len(seconds) == len(rotations) == len(weights) > 0 or (np.diff(seconds) <= 0).any():
        raise ValueError("an animation needs a rotation and weights for each of one or more ascending times")
    try:
        file = read_glb(glb)
        tree, buffer = file.tree, bytearray(file.buffer)
        (mesh,) = tree["meshes"]
        if len(mesh["weights"]) != weights.shape[1]:
            raise ValueError(f"its mesh has {len(mesh['weights'])} morph targets and not {weights.shape[1]}")
        (node,) = [number for number, node in enumerate(tree["nodes"]) if node.get("mesh") == 0]
        times = _add(tree, buffer, "SCALAR", seconds[:, None], bounds=True)
        turns = _add(tree, buffer, "VEC4", _continuous(rotations))
        levels = _add(tree, buffer, "SCALAR", weights.reshape(-1, 1))
    except MALFORMED as error:
        raise malformed(error) from error
    tree["animations"] = [
        {
            "name": "clip",
            "samplers": [{"input": times, "output": output, "interpolation": "LINEAR"} for output in (turns, levels)],
            "channels": [
                {"sampler": 0, "target": {"node": node, "path": "rotation"}},
                {"sampler": 1, "target": {"node": node, "path": "weights"}},
            ],
        }
    ]
    tree["buffers"][0]["byteLength"] = len(buffer)
    return join_glb(tree, buffer)


def _continuous(rotations: F32) -> F32:
    """Choose of each quaternion and its negative, which turn alike, the one nearer to the one before."""
    steps = (rotations[1:] * rotations[:-1]).sum(1)
    signs = np.cumprod(np.concatenate([[1.0], np.where(steps < 0, -1.0, 1.0)]))
    turned = rotations * signs[:, None]
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True), np.float32)


def _add(tree: dict[str, Any], buffer: bytearray, kind: str, values: F32, bounds: bool = False) -> int:
    """Append values (N, width) to the buffer, and return the number of their accessor."""
    data = np.ascontiguousarray(values, "<f4").tobytes()
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)})
    buffer += data
    accessor = {
        "bufferView": len(tree["bufferViews"]) - 1,
        "componentType": _FLOAT,
        "count": len(values),
        "type": kind,
    }
    if bounds:
        accessor |= {"min": [float(values.min())], "max": [float(values.max())]}
    tree["accessors"].append(accessor)
    return len(tree["accessors"]) - 1
