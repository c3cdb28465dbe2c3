"""A real, small inference: the only way to know that a server does more than say it is ready.

On Triton 2.51 a model whose process was killed stays "ready" while every request to it fails. The probe sends what
clients send: for the project's own ensembles a small portrait (Eileen Collins, NASA, public domain), for any other
model one row of zeros, and looks at the answer.
"""

from __future__ import annotations

import json
import secrets
import struct
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.control import Control, ControlError, Unreachable, cause, error_message

PORTRAIT = Path(__file__).with_name("probe.jpg")

Array = NDArray[Any]

_PHOTOGRAPHS = frozenset({"image", "images", "source", "target"})
# The picture is in the public domain, and nobody sees the result.
_CONSENT = {"consent": "A trial of the server: Eileen Collins's portrait on itself, thrown away."}
# What keeps something from one request to the next takes only requests of a sequence.
_SEQUENTIAL = frozenset({"steady", "track"})

_NUMPY: dict[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


class ProbeError(ControlError):
    """The server answered, and the answer cannot be right."""


@dataclass(frozen=True)
class Tensor:
    """An input: element type in Triton's words and the values (an object array of bytes for BYTES)."""

    datatype: str
    values: Array

    def binary(self) -> bytes:
        """Encode the values as the protocol's binary extension wants them."""
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(item)) + item for item in self.values.ravel())
        return self.values.tobytes()


def infer(
    control: Control,
    model: str,
    inputs: Mapping[str, Tensor],
    timeout: float = 30,
    parameters: Mapping[str, str | int | bool] = MappingProxyType({}),
) -> dict[str, Array]:
    """Send one request over HTTP with binary tensors; return the model's outputs by name (BYTES as object arrays).

    Raises:
        Unreachable: nobody answers.
        ControlError: the server refused, with its reason.
    """
    payloads = {name: tensor.binary() for name, tensor in inputs.items()}
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.values.shape),
                    "parameters": {"binary_data_size": len(payloads[name])},
                }
                for name, tensor in inputs.items()
            ],
            "parameters": {"binary_data_output": True, **parameters},
        }
    ).encode()
    request = urllib.request.Request(
        f"http://{control.endpoint}/v2/models/{model}/infer",
        header + b"".join(payloads.values()),
        {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            length = int(answer.headers.get("Inference-Header-Content-Length", 0))
            body = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise ControlError(f"the model '{model}' failed: {error_message(error.read())}") from None
    except (OSError, HTTPException) as error:
        raise Unreachable(f"the server at {control.endpoint} does not answer '{model}' ({cause(error)}).") from None
    return _decode(json.loads(body[:length] if length else body), body[length:] if length else b"")


def _decode(header: dict[str, Any], payload: bytes) -> dict[str, Array]:
    outputs: dict[str, Array] = {}
    offset = 0
    for entry in header["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size", 0)
        part, offset = payload[offset : offset + size], offset + size
        if entry["datatype"] == "BYTES":
            items, at = [], 0
            while at < len(part):
                (count,) = struct.unpack_from("<I", part, at)
                items.append(part[at + 4 : at + 4 + count])
                at += 4 + count
            values: Array = np.empty(len(items), dtype=object)
            values[:] = items
        else:
            values = np.frombuffer(part, _NUMPY[entry["datatype"]])
        outputs[entry["name"]] = values.reshape(entry["shape"])
    return outputs


def example(control: Control, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Make inputs that the model should be able to answer, from its configuration.

    A photograph (BYTES) is the portrait, ``choice`` the best row that the server's own ``detect`` finds in it,
    everything else zeros with 1 for each open dimension. Optional inputs are left out.
    """
    batch = (1,) if int(config.get("max_batch_size", 0)) > 0 else ()
    inputs = {}
    for entry in config["input"]:
        if entry.get("optional"):
            continue
        name, datatype = entry["name"], str(entry["data_type"]).removeprefix("TYPE_").replace("STRING", "BYTES")
        shape = (*batch, *(max(1, int(dim)) for dim in entry["dims"]))
        if datatype == "BYTES":
            values: Array = np.full(shape, PORTRAIT.read_bytes() if name in _PHOTOGRAPHS else b"", dtype=object)
        elif (name, shape) == ("choice", (1, 15)):
            values = infer(control, "detect", example(control, control.config("detect")))["faces"][:, 0, :]
        else:
            values = np.zeros(shape, _NUMPY[datatype])
        inputs[name] = Tensor(datatype, values)
    return inputs


def _parameters(model: str, inputs: Mapping[str, Tensor]) -> Mapping[str, str | int | bool]:
    """Return what the model does not answer without."""
    if model in _SEQUENTIAL:
        return {"sequence_id": secrets.randbelow(2**62) + 1, "sequence_start": True, "sequence_end": True}
    return _CONSENT if "target" in inputs else {}


def check(control: Control, model: str, timeout: float = 30) -> dict[str, Array]:
    """Ask the model for everything it gives and see that the answer is whole and finite.

    Raises:
        ControlError: it failed, with its reason.
        ProbeError: an output is missing, or holds a NaN or an infinity.
    """
    config = control.config(model)
    inputs = example(control, config)
    outputs = infer(control, model, inputs, timeout, _parameters(model, inputs))
    for entry in config["output"]:
        name = entry["name"]
        if name not in outputs:
            raise ProbeError(f"the model '{model}' left out its output '{name}'.")
        values = outputs[name]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ProbeError(f"the model '{model}' gave numbers that are not finite in its output '{name}'.")
    return outputs
