"""Triton's side of `preprocess`: picture files in, pictures and detector canvases out; see pictures.py."""

from __future__ import annotations

import ctypes
import json
import os
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from admission import Admission, Overloaded
from meters import Meters
from numpy.typing import NDArray
from pictures import FORMATS, BadPicture, Limits, Picture, canvas_of, decode, geometry_of, sample
from PIL import Image

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# A picture of 2048 x 2048 pixels has 12 MiB.
_KEPT_PICTURE, _KEPT_HEAP = 16 << 20, 32 << 20


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
        _keep_memory()
        self._meters = Meters()
        page = os.environ.get("FACE3D_METRICS_PAGE", "http://127.0.0.1:8002/metrics")
        self._admission = Admission(page, frozenset(values["holds_for"].split()), int(values["max_waiting"]))
        batch = int(json.loads(args["model_config"])["max_batch_size"])
        for kind in FORMATS:  # the first picture of a kind would otherwise wait for its decoder to be loaded
            canvas_of(decode(sample(kind), self._limits))
        self._pool = ThreadPoolExecutor(min(batch, len(os.sched_getaffinity(0))), thread_name_prefix="decode")

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a bad picture is an error for its own request only."""
        welcome = requests[: self._admission.room()]
        work = [(_files(request), set(request.requested_output_names())) for request in welcome]
        # A picture alone need not wait for another thread.
        results = [self._outputs(work[0])] if len(work) == 1 else list(self._pool.map(self._outputs, work))
        results += [Overloaded()] * (len(requests) - len(welcome))
        self._admission.let_in(sum(isinstance(result, Outputs) for result in results))
        for result in results:
            if isinstance(result, BadPicture | Overloaded):
                self._meters.refused(result.tag)
            elif isinstance(result, Outputs):
                for seconds, pixels in result.decoded:
                    self._meters.decoded(seconds, pixels)
        return [_response(result) for result in results]

    def finalize(self) -> None:
        """End the decoding threads."""
        self._pool.shutdown()

    def _outputs(self, work: tuple[list[bytes], set[str]]) -> Outputs | Exception:
        try:
            return self._decoded(*work)
        except BadPicture as error:
            return error
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("preprocess: " + traceback.format_exc())
            return error

    def _decoded(self, files: list[bytes], wanted: set[str]) -> Outputs:
        pictures, decoded = [], []
        for data in files:
            start = time.perf_counter()
            pictures.append(decode(data, self._limits))
            width, height = pictures[-1].source
            decoded.append((time.perf_counter() - start, width * height))
        canvases, ratios = zip(*map(canvas_of, pictures), strict=True)
        tensors = {"canvas": canvases[0][None] if len(canvases) == 1 else np.stack(canvases)}
        tensors["geometry"] = np.stack([geometry_of(p, r) for p, r in zip(pictures, ratios, strict=True)])
        if "picture" in wanted:
            tensors["picture"] = _padded(pictures)
        return Outputs({name: tensors[name] for name in wanted}, decoded)


def _keep_memory() -> None:
    """Use the memory of one picture for the next.

    As a rule glibc gives megabytes back as soon as they are free, and the kernel then clears as many for the next
    picture: a quarter of the time of this model. Larger pictures are given back as ever.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_PICTURE)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def _files(request: pb_utils.InferenceRequest) -> list[bytes]:
    image = pb_utils.get_input_tensor_by_name(request, "image")
    assert image is not None, "Triton lets no request through that lacks an input"
    return list(image.as_numpy().reshape(-1))


def _response(result: Outputs | Exception) -> pb_utils.InferenceResponse:
    if isinstance(result, BadPicture | Overloaded):
        code = pb_utils.TritonError.INVALID_ARG if isinstance(result, BadPicture) else pb_utils.TritonError.UNAVAILABLE
        error = pb_utils.TritonError(f"[{result.tag}] {result}", code)
        return pb_utils.InferenceResponse([], error)
    if isinstance(result, Exception):
        error = pb_utils.TritonError(f"{type(result).__name__}: {result}", pb_utils.TritonError.INTERNAL)
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
