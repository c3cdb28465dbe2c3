"""Whether this processor multiplies bytes exactly in ONNX Runtime, and what a graph was judged for.

On x86 processors without VNNI, ONNX Runtime's products of an unsigned and a signed byte are added up in 16 bits and
saturate in silence (`export/precision/saturation.py`). So each graph that the export writes says in its metadata for
which processors its integer products were judged, and is held against this one when it is opened.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:  # see onnx_session.py
    import onnxruntime as ort

# Entry of a graph's metadata, and its values.
INTEGER_PRODUCTS = "face3d.integer_products"
ANY_X86: Final = "any-x86"
VNNI: Final = "vnni"
# A graph y = MatMulInteger(x uint8 [2, 8], w int8 [8, 8]), serialised: the server has no library that writes one.
PROBE = base64.b64decode(
    "CAkSADpgChgKAXgKAXcSAXkiDU1hdE11bEludGVnZXISBXByb2JlWhMKAXgSDgoMCAISCAoCCAIKAggIWhMKAXcSDgoMCAMSCAoCCAgKAggIYhMK"
    "AXkSDgoMCAYSCAoCCAIKAggIQgQKABAS"
)
# ONNX Runtime's option for kernels that never saturate: exact everywhere, and without VNNI slower than float32.
EXACT_KERNELS = "session.x64quantprecision"


class ProcessorError(ValueError):
    """The graph was judged for other processors than this one."""


@cache
def products_are_exact() -> bool:
    """Return whether ONNX Runtime's integer kernels on this processor add up in 32 bits.

    The kernels themselves are asked, with the largest numbers there are: what a processor says of itself may be hidden
    by a sandbox or an emulator, and is told differently by each architecture.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(PROBE, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.full((2, 8), 255, np.uint8), "w": np.full((8, 8), 127, np.int8)})
    return bool((sums == 255 * 127 * 8).all())


def open_graph(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a session whose integer products are right on this processor.

    A graph that says nothing (one from elsewhere, or from before this was checked) gets the exact kernels where the
    fast ones saturate. ``options`` then keep that choice.

    Raises:
        ProcessorError: the graph was judged for processors with VNNI only, and this one's products saturate.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    judged_for = session.get_modelmeta().custom_metadata_map.get(INTEGER_PRODUCTS)
    if judged_for == ANY_X86 or products_are_exact():
        return session
    if judged_for is not None:
        raise ProcessorError(
            f"{path} was exported for processors with '{judged_for}', which this one does not have: its integer "
            "products would saturate and give other faces. Export it for any processor (`python -m export`, without "
            "--integer-products), or serve it where /proc/cpuinfo lists avx512_vnni or avx_vnni."
        )
    options.add_session_config_entry(EXACT_KERNELS, "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
