"""Names of the compared variants, and their former letters."""

from __future__ import annotations

import re
from typing import Any

NAMES = {
    "eager_loop": "PyTorch eager with MTCNN, a loop",
    "eager_loop_same": "PyTorch eager, the served networks, a loop",
    "fastapi": "FastAPI, eager with MTCNN",
    "fastapi_same": "FastAPI, eager, the served networks",
    "litserve_eager": "LitServe, eager with MTCNN",
    "litserve_onnx": "LitServe, ONNX",
    "litserve_onnx_parallel": "LitServe, ONNX, a picture a core",
    "bentoml_onnx": "BentoML, ONNX, a picture a core",
    "bare_onnx": "ONNX bare, no server",
    "service": "this service",
}
"""Variant -> its description in tables."""
SERVICE = "service"
LOOPS = {"eager_loop": "eager", "eager_loop_same": "eager_same", "bare_onnx": "onnx_parallel"}
"""Variants without a server -> their kind of pipeline (`perf.compare.pipelines`)."""
FASTAPI = {"fastapi": "eager", "fastapi_same": "eager_same"}
"""Variants behind FastAPI -> their kind of pipeline."""
BENTOML = "bentoml_onnx"
RAW = (*FASTAPI, BENTOML)
"""Variants that take a picture as the body of the request."""
PRODUCTS = ("face3d", "embed")
"""Ensembles that are compared."""
OF_EMBED = tuple(name for name in NAMES if name not in ("eager_loop", "fastapi", "litserve_eager"))
"""Variants that embed: the family's own pipeline has no embedder."""
FORMER_NAMES = {
    "A": "eager_loop",
    "B": "fastapi",
    "C-eager": "litserve_eager",
    "C-onnx": "litserve_onnx",
    "C-lanes": "litserve_onnx_parallel",
    "D": "bare_onnx",
    "E": "service",
}
"""Letter -> name; `--variants` and `compare.json` may carry either."""


def current_name(name: str) -> str:
    """Return a variant's name, given its name or its former letter."""
    return FORMER_NAMES.get(name, name)


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a `compare.json` with names in its tables and ratios, whichever it was written with."""
    result = dict(values)
    if "table" in values:
        result["table"] = {current_name(name): by_clients for name, by_clients in values["table"].items()}
    if "ratios" in values:
        result["ratios"] = {
            clients: {_current_ratio(ratio): value for ratio, value in ratios.items()}
            for clients, ratios in values["ratios"].items()
        }
    return result


def _current_ratio(ratio: str) -> str:
    """Return the name of a ratio such as `service/eager_loop rate`, given that or `E/A rate`."""
    return re.sub(r"[^/ ]+(?=[/ ])", lambda match: current_name(match[0]), ratio)
