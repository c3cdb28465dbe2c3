"""Compare a plan with ONNX Runtime by Polygraphy, on the model's warm-up sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

TOLERANCE = 2e-2
"""Largest difference relative to the output's largest value: TensorRT and ONNX Runtime round float16 differently."""
TYPES = {"canvas": np.uint8, "crop": np.uint8, "crop_hd": np.uint8}
"""Types of the inputs that are not float32."""


def warmup_feed(folder: Path, inputs: Mapping[str, Sequence[int | str]]) -> dict[str, NDArray[Any]]:
    """Read the raw warm-up files as a batch of one.

    Raises:
        ExportError: a file is missing or of another size.
    """
    feed = {}
    for name, shape in inputs.items():
        rest = [size if isinstance(size, int) else -1 for size in shape[1:]]
        try:
            feed[name] = np.fromfile(folder / name, TYPES.get(name, np.float32)).reshape(1, *rest)
        except (OSError, ValueError) as error:
            raise ExportError(
                f"{folder / name} is no sample for '{name}' ({error}): run `make export` again."
            ) from None
    return feed


def compare(onnx_file: Path, plan: bytes, warmup: Path, inputs: Mapping[str, Sequence[int | str]]) -> dict[str, float]:
    """Run both on one sample; return output -> largest difference relative to the output's largest value.

    Raises:
        ExportError: an output differs by more than `TOLERANCE`.
    """
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    feed = warmup_feed(warmup, inputs)
    with TrtRunner(EngineFromBytes(plan)) as runner:
        actual = {name: np.array(value) for name, value in runner.infer(feed).items()}
    with OnnxrtRunner(SessionFromOnnx(str(onnx_file))) as runner:
        expected = {name: np.array(value) for name, value in runner.infer(feed).items()}
    return differences(expected, actual, onnx_file)


def differences(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]], onnx_file: Path
) -> dict[str, float]:
    """Return the relative differences by output.

    Raises:
        ExportError: one is above `TOLERANCE`.
    """
    result = {}
    for name, value in expected.items():
        a, b = value.astype(np.float64), actual[name].astype(np.float64)
        result[name] = float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))
        # Pictures are rounded to whole grey levels, where single texels may fall to either side.
        measured = float(np.abs(a - b).mean() / 255) if value.dtype == np.uint8 else result[name]
        if not measured <= TOLERANCE:
            raise ExportError(
                f"The plan of {onnx_file} gives another '{name}' than ONNX Runtime: {measured:.3g} of its largest "
                f"value, at most {TOLERANCE:g}. Nothing was written."
            )
    return result
