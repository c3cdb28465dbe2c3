"""PyTorch modules become ONNX graphs here, with the names and types of the model repository's contract."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

OPSET = 18
"""Newest opset that the TensorRT of the serving image, ONNX Runtime 1.2x and the tracing exporter all handle."""
IR_VERSION = 9
"""What opset 18 came with; older runtimes refuse a newer number."""
BATCH = "batch"


def onnx_from_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]] | None = None,
    inner: Sequence[str] = (),
) -> onnx.ModelProto:
    """Trace a module whose arguments and results are tensors with a batch axis in front.

    Args:
        module: in evaluation mode.
        example: tensors to trace with, of batch 2 or more (a traced 1 would be taken for a constant).
        inputs, outputs: names in the order of the arguments and results.
        free: input -> axis -> name, for inputs with a free axis besides the batch.
        inner: names of further results as far as there are any, which stay tensors of the graph but are no outputs.

    Returns:
        A checked model whose other axes are fixed.
    """
    with torch.no_grad():
        results = _listed(module.eval()(*example))
    names = [*outputs, *inner][: len(results)]
    axes = {name: {0: BATCH, **(free or {}).get(name, {})} for name in (*inputs, *names)}
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        # The tracing exporter says on every call that it is the old one; the new one needs two more packages and
        # unrolls the same graph more slowly.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            file,
            input_names=list(inputs),
            output_names=names,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(file))
    model.ir_version = IR_VERSION
    del model.graph.output[len(outputs) :]
    shapes = [value.shape for value in (*example, *results[: len(outputs)])]
    for value, shape in zip((*model.graph.input, *model.graph.output), shapes, strict=True):
        # The tracer loses sizes that it meets as computed numbers.
        set_shape(value, [axes[value.name].get(axis, size) for axis, size in enumerate(shape)])
    onnx.checker.check_model(model)
    return model


def _listed(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else results


def set_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> None:
    """Give a tensor of the graph's interface its shape; a string is a free axis of that name."""
    dims = value.type.tensor_type.shape
    del dims.dim[:]
    for size in shape:
        if isinstance(size, str):
            dims.dim.add().dim_param = size
        else:
            dims.dim.add().dim_value = int(size)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """The shape of a tensor of the graph's interface; free axes by their name."""
    return [dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
