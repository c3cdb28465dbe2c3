"""Inputs of a call as tritonclient packs them, for either protocol."""

from __future__ import annotations

from typing import Any

from tritonclient.utils import np_to_triton_dtype

from face3d_client._protocol.calls import Call

__all__ = ["microseconds", "pack_inputs"]


def pack_inputs(call: Call, kind: Any) -> list[Any]:
    """Pack the inputs of a call; those in shared memory by their place.

    Args:
        call: the inference.
        kind: `InferInput` of tritonclient.http or of tritonclient.grpc.
    """
    inputs = []
    for name, array in call.inputs.items():
        tensor = kind(name, list(array.shape), np_to_triton_dtype(array.dtype))
        if name in call.placed:
            tensor.set_shared_memory(call.placed[name].region, call.placed[name].byte_size)
        else:
            tensor.set_data_from_numpy(array)  # as binary data, by default
        inputs.append(tensor)
    return inputs


def microseconds(timeout: float) -> int:
    """Convert a timeout for the server, whose queue may drop what nobody waits for any more."""
    return max(1, int(timeout * 1e6))
