"""What may come of an odd request to the real models, and what may not."""

from __future__ import annotations

import re
from typing import Any

import grpc
import numpy as np

# An input whose batch dimension is a multiple of 2^32 has none for Triton, which counts the rows of the next one, and
# its Python backend refuses that before a model sees it. Only models behind the ensembles take such inputs.
TRITON_S_OWN = re.compile(r"INTERNAL: batch size \d+ for '\w+', max allowed is \d+")
# Words of a Python exception, of a library or of a stack: nothing for a stranger.
_INSIDE = re.compile(r"\b\w+(Error|Exception)\b|Traceback|onnxruntime|OpenCV|numpy|/home/|\.py\b|\.cc\b")


def verdict(service: Any, message: Any, timeout: float = 60) -> str:
    """Send a gRPC message; "OK", the status with the sentence, or what is wrong with the answer after "WRONG: "."""
    try:
        answer = service.ModelInfer(message, timeout=timeout)
    except grpc.RpcError as error:
        sentence, code = error.details() or "", error.code().name
        if not sentence or _INSIDE.search(sentence):
            return f"WRONG: {code} says {sentence!r}"
        return f"{code}: {sentence}"
    except ValueError:
        return "NOT SENT"  # protobuf takes no such text
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if output.datatype == "FP32" and not np.isfinite(np.frombuffer(raw, np.float32)).all():
            return f"WRONG: {output.name} is not finite"
    return "OK"


def is_typed(answer: str) -> bool:
    """Whether a `verdict` is a result, or a refusal that says that the request was wrong."""
    return answer.partition(":")[0] in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "NOT SENT") or bool(
        TRITON_S_OWN.fullmatch(answer)
    )
