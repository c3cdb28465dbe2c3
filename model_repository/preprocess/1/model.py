"""Triton's side of `preprocess`: picture files in, pictures and detector canvases out; see pictures.py."""

from __future__ import annotations

import json
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from meters import Meters
from numpy.typing import NDArray
from pictures import FORMATS, BadPicture, Limits, Picture, canvas_of, decode, geometry_of, sample
from PIL import Image


class Outputs(NamedTuple):
    """The tensors of a request, and for each of its pictures how long it took (s) and how large it is (pixels)."""

    tensors: dict[str, NDArray[Any]]
    decoded: list[tuple[float, int]]


class TritonPythonModel:
    """Decodes the pictures of a batch side by side: the decoders let go of Python's lock."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits from the ``parameters`` of the configuration."""
        values = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        self._limits = Limits(int(values["max_bytes"]), int(values["max_pixels"]))
        # Pillow raises at twice this number, in some formats before its own decoder allocates the canvas.
        Image.MAX_IMAGE_PIXELS = self._limits.max_pixels // 2
        warnings.filterwarnings("ignore", module="PIL")
        cv2.setNumThreads(1)
        self._meters = Meters()
        batch = int(json.loads(args["model_config"])["max_batch_size"])
        for kind in FORMATS:  # the first picture of a kind would otherwise wait for its decoder to be loaded
            canvas_of(decode(sample(kind), self._limits))
        self._pool = ThreadPoolExecutor(min(batch, len(os.sched_getaffinity(0))), thread_name_prefix="decode")

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a bad picture is an error for its own request only."""
        work = [(_files(request), set(request.requested_output_names())) for request in requests]
        results = list(self._pool.map(self._outputs, work))
        for result in results:
            if isinstance(result, BadPicture):
                self._meters.refused(result.tag)
            else:
                for seconds, pixels in result.decoded:
                    self._meters.decoded(seconds, pixels)
        return [_response(result) for result in results]

    def finalize(self) -> None:
        """End the decoding threads."""
        self._pool.shutdown()

    def _outputs(self, work: tuple[list[bytes], set[str]]) -> Outputs | BadPicture:
        files, wanted = work
        pictures, decoded = [], []
        try:
            for data in files:
                start = time.perf_counter()
                pictures.append(decode(data, self._limits))
                width, height = pictures[-1].source
                decoded.append((time.perf_counter() - start, width * height))
        except BadPicture as error:
            return error
        canvases, ratios = zip(*map(canvas_of, pictures), strict=True)
        tensors = {"canvas": np.stack(canvases)}
        tensors["geometry"] = np.stack([geometry_of(p, r) for p, r in zip(pictures, ratios, strict=True)])
        if "picture" in wanted:
            tensors["picture"] = _padded(pictures)
        return Outputs({name: tensors[name] for name in wanted}, decoded)


def _files(request: pb_utils.InferenceRequest) -> list[bytes]:
    image = pb_utils.get_input_tensor_by_name(request, "image")
    assert image is not None, "Triton lets no request through that lacks an input"
    return list(image.as_numpy().reshape(-1))


def _response(result: Outputs | BadPicture) -> pb_utils.InferenceResponse:
    if isinstance(result, BadPicture):
        error = pb_utils.TritonError(f"[{result.tag}] {result}", pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([], error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in result.tensors.items()])


def _padded(pictures: list[Picture]) -> NDArray[np.uint8]:
    """The rows of one request as one tensor; align knows the true size of each from the geometry."""
    if len(pictures) == 1:
        return pictures[0].pixels[None]
    height, width = np.max([picture.pixels.shape[:2] for picture in pictures], axis=0)
    rows = np.zeros((len(pictures), height, width, 3), np.uint8)
    for row, picture in zip(rows, pictures, strict=True):
        row[: picture.pixels.shape[0], : picture.pixels.shape[1]] = picture.pixels
    return rows
