"""Talks to the running ensembles with NVIDIA's own client, so that these tests hold the service and not our client."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

LEAVES = ("preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess")
OUTPUTS = (
    *("face", "camera", "warnings", "coefficients", "vertices", "vertices_neutral", "landmarks", "landmarks_3d"),
    *("face_model", "certainty", "visibility", "mesh", "texture", "preview", "texture_warnings"),
)
Outputs = dict[str, NDArray[Any]]


class Refusal(Exception):
    """A typed error of the service: ``code`` is gRPC's, ``tag`` stands in square brackets in the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        found = re.search(r"\[([A-Z][A-Za-z]+)\] ", message)
        self.tag = found.group(1) if found else ""
        self.sentence = message[found.end() :] if found else message


class Service:
    """The ensembles of one server; may be used by many threads.

    Args:
        address: gRPC endpoint that is asked.
        bare: Triton's own, which the statistics are read from; None where the address is Triton's.
    """

    def __init__(self, address: str, bare: str | None = None) -> None:
        self._client = triton.InferenceServerClient(address)
        self._bare = triton.InferenceServerClient(bare or address)

    def ask(
        self,
        *images: bytes,
        outputs: tuple[str, ...] = OUTPUTS,
        model: str = "face3d",
        choice: NDArray[np.float32] | None = None,
        timeout: float = 120.0,
        **parameters: Any,
    ) -> Outputs:
        """Send one request and return its outputs; without the batch dimension when it holds one picture.

        Raises:
            Refusal: whatever the service answers but a result.
        """
        image = triton.InferInput("image", [len(images), 1], "BYTES")
        image.set_data_from_numpy(np.array([[data] for data in images], np.object_))
        inputs = [image]
        if choice is not None:
            inputs.append(triton.InferInput("choice", [1, 15], "FP32"))
            inputs[1].set_data_from_numpy(choice.astype(np.float32)[None])
        asked = [triton.InferRequestedOutput(name) for name in outputs]
        try:
            result = self._client.infer(
                model, inputs, outputs=asked, parameters=parameters or None, client_timeout=timeout
            )
        except InferenceServerException as error:
            raise Refusal(str(error.status()).removeprefix("StatusCode."), error.message()) from None
        answer = {name: result.as_numpy(name) for name in outputs}
        return answer if len(images) > 1 else {name: array[0] for name, array in answer.items()}

    def detect(self, image: bytes) -> NDArray[np.float32]:
        """The rows of the slots that are not empty, float32 [n, 15]."""
        faces = self.ask(image, outputs=("faces",), model="detect")["faces"]
        return np.asarray(faces[faces[:, 4] > 0])

    def counts(self) -> dict[str, tuple[int, int]]:
        """Per leaf: inferences and executions so far (nv_inference_count, nv_inference_exec_count).

        Triton counts a request a moment after it was answered: this waits until nothing changes for a while.
        """
        seen: dict[str, tuple[int, int]] = {}
        for _ in range(50):
            before, seen = seen, {name: self._count(name) for name in LEAVES}
            if seen == before:
                break
            time.sleep(0.3)
        return seen

    def _count(self, model: str) -> tuple[int, int]:
        stats = self._bare.get_inference_statistics(model).model_stats
        return sum(s.inference_count for s in stats), sum(s.execution_count for s in stats)


def picture(data: bytes) -> Image.Image:
    """The decoded RGB picture of a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def beside(*images: Image.Image) -> Image.Image:
    """Pictures in a row on grey, all as high as the highest."""
    wide = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), (127, 127, 127))
    left = 0
    for image in images:
        wide.paste(image, (left, 0))
        left += image.width
    return wide


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Intersection over union of the boxes of two face rows."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])
    shared = float(np.clip(high - low, 0, None).prod())
    return shared / float((a[2:4] - a[:2]).prod() + (b[2:4] - b[:2]).prod() - shared)
