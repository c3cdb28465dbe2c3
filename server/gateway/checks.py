"""What is held against every inference request, whatever protocol it came by."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from server.gateway import limits
from server.gateway.description import ELEMENT_SIZE, InferRequest, InputTensor, PublicModel, RequestedOutput, Tensor
from server.gateway.parameters import check_parameters, is_large, nearest, no_regions, unknown_parameter
from server.gateway.refusal import NOT_FOUND, Refused, bad_option, bad_request, shown, switched_off
from server.repository import SWITCHED

TEXT_OUTPUTS: Final = frozenset({"warnings", "texture_warnings"})
"""Outputs of type BYTES that hold text; all others hold files, which JSON cannot carry."""

_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}")


def find_model(name: str, version: str, models: Mapping[str, PublicModel], names: Sequence[str]) -> PublicModel:
    """Find the public model that is meant.

    Raises:
        Refused: no such model or version is served.
    """
    if name not in names:
        if name in SWITCHED:
            raise switched_off(name)
        raise Refused(NOT_FOUND, "BadRequest", f"no model `{shown(name)}` is served here: {nearest(name, names)}")
    if name not in models:
        raise Refused(NOT_FOUND, "ServerUnavailable", f"`{name}` is not loaded: try again in a few seconds.")
    model = models[name]
    if version and not _VERSION.fullmatch(version):
        raise bad_request(f"`{shown(version)}` is no version: leave it out, or give a number as in the metadata.")
    if version and version not in model.versions:
        served = ", ".join(model.versions) or "none"
        raise Refused(NOT_FOUND, "BadRequest", f"version {version} of `{name}` is not served: leave it out ({served}).")
    return model


def check(request: InferRequest, model: PublicModel) -> None:
    """See that a request is one that the model can answer.

    Raises:
        Refused: with a sentence that names what is wrong.
    """
    _check_id(request.id)
    check_parameters(model.name, request.parameters)
    _check_outputs(request, model)
    _check_inputs(request, model)


def _check_id(text: str) -> None:
    if len(text) > limits.MAX_ID:
        raise bad_request(f"the request's id has {len(text)} characters: {limits.MAX_ID} are allowed.")
    if not (text.isascii() and text.isprintable()):
        raise bad_request("the request's id has characters that are not printable ASCII: use a plain one, or none.")


def _check_outputs(request: InferRequest, model: PublicModel) -> None:
    if len(request.outputs) > limits.MAX_OUTPUTS:
        raise bad_option(f"the request names {len(request.outputs)} outputs: `{model.name}` has {len(model.outputs)}.")
    seen: set[str] = set()
    for output in request.outputs:
        if output.name not in model.outputs:
            hint = nearest(output.name, model.outputs)
            raise bad_option(f"`{model.name}` has no output `{shown(output.name)}`: {hint}")
        if output.name in seen:
            raise bad_option(f"the output `{output.name}` is named twice: name it once.")
        seen.add(output.name)
        for name in output.parameters:
            raise unknown_parameter(f"output {output.name}", name, ())
    wanted = request.outputs or tuple(RequestedOutput(name, request.text_by_default) for name in model.outputs)
    for output in wanted:
        if output.as_text and model.outputs[output.name].datatype == "BYTES" and output.name not in TEXT_OUTPUTS:
            raise bad_option(
                f"the output `{output.name}` is a file, which JSON cannot hold: ask for its bytes, "
                f'{{"name": "{output.name}", "parameters": {{"binary_data": true}}}}, or for all by '
                '"parameters": {"binary_data_output": true} of the request.'
            )


def _check_inputs(request: InferRequest, model: PublicModel) -> None:
    if len(request.inputs) > limits.MAX_TENSORS:
        raise bad_request(f"the request has {len(request.inputs)} inputs: `{model.name}` has {len(model.inputs)}.")
    seen: set[str] = set()
    batches: set[int] = set()
    for given in request.inputs:
        if given.name not in model.inputs:
            hint = nearest(given.name, model.inputs, "it takes")
            raise bad_request(f"`{model.name}` has no input `{shown(given.name)}`: {hint}")
        if given.name in seen:
            raise bad_request(f"the input `{given.name}` is given twice: give it once.")
        seen.add(given.name)
        _check_tensor(given, model.inputs[given.name], model)
        if model.max_batch:
            batches.add(given.shape[0])
    for tensor in model.inputs.values():
        if tensor.name not in seen and not tensor.optional:
            raise bad_request(f"`{model.name}` needs the input `{tensor.name}` ({_described(tensor, model)}).")
    if max(batches, default=1) > 1 and is_large(request.parameters):
        raise bad_option(
            f"`texture_size` above {limits.LARGE_TEXTURE} and `min_face` are for one picture at a time: "
            "send a batch of 1."
        )
    if len(batches) > 1:
        raise bad_request("the inputs differ in their first dimension, the batch: give each the same.")


def _check_tensor(given: InputTensor, tensor: Tensor, model: PublicModel) -> None:
    name = tensor.name
    for parameter in given.parameters:
        if parameter.startswith("shared_memory_"):
            raise no_regions()
        raise unknown_parameter(f"input {name}", parameter, ())
    if given.datatype != tensor.datatype:
        raise bad_request(f"the input `{name}` is {shown(given.datatype) or 'of no type'}: send {tensor.datatype}.")
    shape = given.shape
    if len(shape) > limits.MAX_RANK:
        raise bad_request(f"the input `{name}` has {len(shape)} dimensions: send {_described(tensor, model)}.")
    dims = shape
    if not model.max_batch and tensor.dims[0] < 0 and shape and not 1 <= shape[0] <= limits.MAX_PHOTOGRAPHS:
        raise bad_request(f"`{name}` holds {shape[0]} photographs: send 1 to {limits.MAX_PHOTOGRAPHS} of one person.")
    if model.max_batch:
        if not shape or not 1 <= shape[0] <= model.max_batch:
            first = shape[0] if shape else "missing"
            raise bad_request(f"the batch of `{name}` is {first}: send 1 to {model.max_batch} rows.")
        dims = shape[1:]
    fits = len(dims) == len(tensor.dims) and all(
        got == want or (want < 0 and 0 <= got < 2**31) for got, want in zip(dims, tensor.dims, strict=True)
    )
    if not fits:
        raise bad_request(f"the shape of `{name}` is {list(shape)}: send {_described(tensor, model)}.")
    _check_content(given, math.prod(shape))


def _check_content(given: InputTensor, count: int) -> None:
    """See that as many elements came as the shape has."""
    name = given.name
    if given.raw is None:
        if given.count != count:
            raise bad_request(f"the input `{name}` has {given.count or 0} values: its shape has {count}.")
        return
    size = len(given.raw)
    if given.datatype == "BYTES":
        _check_elements(name, given.raw, count)
    elif size != count * ELEMENT_SIZE[given.datatype]:
        raise bad_request(f"the input `{name}` has {size} bytes: its shape has {count * ELEMENT_SIZE[given.datatype]}.")


def _check_elements(name: str, raw: memoryview | bytes, count: int) -> None:
    """See that ``raw`` is ``count`` elements, each behind its length in four bytes."""
    at = 0
    for index in range(count):
        if at + 4 > len(raw):
            raise bad_request(f"the input `{name}` ends before element {index}: send {count}, each behind its length.")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise bad_request(
                f"element {index} of the input `{name}` is said to have {length} bytes, and fewer came: put each "
                "element's length in front of it, four bytes, little-endian."
            )
    if at != len(raw):
        raise bad_request(
            f"the input `{name}` has {len(raw) - at} bytes after its last element: send {count} elements."
        )


def _described(tensor: Tensor, model: PublicModel) -> str:
    dims = ", ".join("any" if dim < 0 else str(dim) for dim in tensor.dims)
    rows = f"1 to {model.max_batch}, " if model.max_batch > 1 else "1, " if model.max_batch else ""
    return f"{tensor.datatype} [{rows}{dims}]"
