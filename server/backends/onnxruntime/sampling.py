"""A graph whose one GridSample OpenCV does: ONNX Runtime's own takes three times as long on a CPU.

`export/sampling.py` writes the graph's two halves beside it. The first gives where to sample and what the second needs
besides; the picture is sampled here, in bytes; the second goes on with what was sampled. The whole graph stays what
other runtimes load and what stands where there are no halves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

BEFORE, AFTER = "before_sampling.onnx", "after_sampling.onnx"
# Entries of the halves' metadata: the digest of the whole graph's file, and which of its inputs is the picture.
WHOLE, PICTURE = "face3d.whole", "face3d.picture"

Array = NDArray[Any]


class SampledSession:
    """Two sessions with the sampling between them, behind the part of a session's interface that is used here.

    Args:
        before: inputs of the whole graph -> ``grid`` (B, h, w, 2), -1..1 across the picture, and what is handed on.
        after: ``sampled`` uint8 (B, 3, h, w), ``mirrored`` where it wants the same from right to left, and what is
            handed on -> outputs of the whole graph.
    """

    def __init__(self, before: ort.InferenceSession, after: ort.InferenceSession) -> None:
        cv2.setNumThreads(1)  # pictures run side by side
        self._before, self._after = before, after
        self._picture = before.get_modelmeta().custom_metadata_map[PICTURE]
        self._handed = [node.name for node in before.get_outputs()][1:]
        self._mirrors = "mirrored" in {node.name for node in after.get_inputs()}

    def get_inputs(self) -> list[Any]:
        """The whole graph's."""
        return list(self._before.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The whole graph's."""
        return list(self._after.get_outputs())

    def run(
        self, names: Sequence[str] | None, feed: Mapping[str, Array], options: ort.RunOptions | None = None
    ) -> list[Array]:
        """As the session of the whole graph: outputs by name, all of them for None."""
        grid, *handed = self._before.run(None, feed, options)
        pictures = feed[self._picture]
        sampled = np.empty((len(grid), pictures.shape[1], *grid.shape[1:3]), np.uint8)
        for picture, places, result in zip(pictures, grid, sampled, strict=True):
            sample(picture, places, result)
        inputs = {"sampled": sampled, **dict(zip(self._handed, handed, strict=True))}
        if self._mirrors:
            inputs["mirrored"] = mirrored(sampled)
        results: list[Array] = self._after.run(names, inputs, options)
        return results


def sample(picture: NDArray[np.uint8], grid: NDArray[np.float32], result: NDArray[np.uint8]) -> None:
    """GridSample of ONNX, bilinear, ``align_corners=0``, black beyond the picture, to 1/32 of a pixel.

    Args:
        picture: (3, H, W).
        grid: (h, w, 2), column and row, -1..1 from edge to edge of the picture; is written over.
        result: (3, h, w), contiguous, takes the samples.
    """
    half = np.array(picture.shape[:0:-1], np.float32) / 2
    np.multiply(grid, half, out=grid)
    np.add(grid, half - 0.5, out=grid)
    # Interleaved, three numbers of a pixel cost one look-up.
    pixels = cv2.merge(list(picture))
    rest = np.empty(0, np.float32)  # columns and rows are in one array
    cv2.split(cv2.remap(pixels, grid, rest, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), list(result))


def mirrored(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (B, 3, h, w) from right to left."""
    result = np.empty_like(pictures)
    planes = (array.reshape(-1, *pictures.shape[2:]) for array in (pictures, result))
    for plane, turned in zip(*planes, strict=True):
        cv2.flip(plane, 1, turned)
    return result


def open_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession | SampledSession:
    """A session of the graph, by its halves where they stand beside it and belong to it."""
    providers = ["CPUExecutionProvider"]
    halves = [path.with_name(name) for name in (BEFORE, AFTER)]
    if all(half.is_file() for half in halves):
        before, after = (ort.InferenceSession(half, options, providers=providers) for half in halves)
        whole = hashlib.sha256(path.read_bytes()).hexdigest()
        if all(half.get_modelmeta().custom_metadata_map.get(WHOLE) == whole for half in (before, after)):
            return SampledSession(before, after)
    return ort.InferenceSession(path, options, providers=providers)
