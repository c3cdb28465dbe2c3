"""Stage 1: trace a PyTorch module to an ONNX graph with the tensor names and types of the repository's contract."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from export.graph import BATCH, IR_VERSION, OPSET, set_shape


def onnx_from_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    inner: Sequence[str] = (),
) -> onnx.ModelProto:
    """Trace a module whose arguments and results are tensors with a batch axis in front.

    Args:
        module: in evaluation mode.
        example: tensors to trace with, of batch 2 or more (a batch of 1 would become a constant).
        inputs, outputs: names in the order of the arguments and results.
        dynamic_axes: input -> axis -> name, for inputs with a free axis besides the batch.
        inner: names of further results, if there are any; they stay tensors of the graph and are no outputs.

    Returns:
        A checked model whose other axes are fixed.
    """
    with torch.no_grad():
        results = _listed(module.eval()(*example))
    names = [*outputs, *inner][: len(results)]
    axes = {name: {0: BATCH, **(dynamic_axes or {}).get(name, {})} for name in inputs}
    axes |= {name: {0: BATCH} for name in names}
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        # The tracing exporter warns on every call that it is deprecated. The new one needs two more packages and
        # is slower.
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
        # The tracer loses sizes that are computed.
        set_shape(value, [axes[value.name].get(axis, size) for axis, size in enumerate(shape)])
    onnx.checker.check_model(model)
    return model


def _listed(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else results
