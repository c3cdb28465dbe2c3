"""Asks the model `enhance`, from inside another one (Triton's business logic scripting).

The source is deploy/configurations/shared/enhance_call.py; `make configs` copies it into the version folders that use
it, as a version folder is complete by itself.
"""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def ask(tiles: U8) -> U8:
    """Have tiles, uint8 [n, 3, 320, 320], enhanced.

    Raises:
        RuntimeError: in the words of `enhance`.
    """
    request = pb_utils.InferenceRequest(
        model_name="enhance",
        requested_output_names=["enhanced"],
        inputs=[pb_utils.Tensor("tile", np.ascontiguousarray(tiles))],
        # A plan's answer would stay on the GPU.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    )
    response = request.exec()
    if (error := response.error()) is not None:
        raise RuntimeError(f"enhance: {error.message()}")
    result: U8 = response.output_tensors()[0].as_numpy()
    return result
