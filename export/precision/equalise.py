"""Equalisation across layers: channels inside a bottleneck are scaled so that 8 bits suit all of them.

One scale serves all channels of an activation, so a channel that is a hundred times larger than the others leaves
them a handful of levels. Since a ReLU commutes with a positive factor, channel c may be written 2^k times smaller and
read 2^k times larger: the function stays the same to the last bit, for the factors are powers of two. This is the
scaling of "Data-free quantization" (Nagel et al., 2019) with activations in the place of the writers' weights
("SmoothQuant", Xiao et al., 2022), which are quantised per channel and do not mind.

Residual streams are left alone: half of their error lies in additions, and every block would have to agree on the
factors. They are what `export/precision/streams.py` is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph import IR_VERSION
from export.graphsurgeon import gs
from export.precision.channels import Group, channel_groups
from export.session import Feed, Session, with_outputs

Shifts = dict[str, list[int]]
"""Name of a group -> for each channel k: it is written 2^k times smaller."""
BALANCE = 0.5
"""1: all channels' activations become alike; 0: all columns of the readers' weights."""
LARGEST_SHIFT = 8
FLOOR = 1e-3
"""Of the largest channel: smaller ones are taken for this large."""


def interiors(graph: gs.Graph) -> list[Group]:
    """Groups with one writer and without an addition: what lies inside a bottleneck."""
    return [group for group in channel_groups(graph) if len(group.writers) == 1 and not group.additions]


def shifts(model: onnx.ModelProto, feeds: Iterable[Feed], balance: float = BALANCE) -> Shifts:
    """Factors for every interior of a float32 graph, from the activations of samples.

    Args:
        model: float32, after surgery.
        feeds: inputs of the graph.
        balance: how much of the difference between channels goes into the readers' weights, 0 to 1.
    """
    groups = interiors(gs.import_onnx(model))
    read = [group.readers[0].inputs[0].name for group in groups]
    session = Session(with_outputs(model, read))
    peaks = [np.zeros(group.channels) for group in groups]
    for feed in feeds:
        results = session(feed)
        for peak, name in zip(peaks, read, strict=True):
            values = results[name].reshape(len(results[name]), len(peak), -1)
            np.maximum(peak, np.abs(values).max((0, 2)), out=peak)
    found: Shifts = {}
    for group, peak in zip(groups, peaks, strict=True):
        columns = np.max([_columns(reader, group.channels) for reader in group.readers], axis=0)
        wanted = _floored(peak) ** balance / _floored(columns) ** (1 - balance)
        exponent = np.rint(np.log2(wanted / np.exp(np.log(wanted).mean())))
        found[group.name] = [int(k) for k in exponent.clip(-LARGEST_SHIFT, LARGEST_SHIFT)]
    return found


def equalised(model: onnx.ModelProto, shifts: Mapping[str, list[int]]) -> onnx.ModelProto:
    """The same function with its channels scaled.

    Raises:
        ExportError: the shifts were made for another network.
    """
    if not shifts:
        return model
    graph = gs.import_onnx(model)
    groups = {group.name: group for group in interiors(graph)}
    for name, exponents in shifts.items():
        if name not in groups or groups[name].channels != len(exponents):
            raise ExportError(f"The network has no channels '{name}' to equalise: calibrate it anew.")
        factor = np.exp2(np.array(exponents, np.float32))
        group = groups[name]
        for index in (1, 2):
            values = group.writers[0].inputs[index].values
            scaled = values / factor.reshape([-1] + [1] * (values.ndim - 1))
            group.writers[0].inputs[index] = gs.Constant(f"{name}_{index}_equalised", scaled)
        for reader in group.readers:
            weight = reader.inputs[1].values
            scaled = weight.reshape(len(weight), group.channels, -1) * factor[:, None]
            reader.inputs[1] = gs.Constant(f"{reader.outputs[0].name}_read_equalised", scaled.reshape(weight.shape))
    changed: onnx.ModelProto = gs.export_onnx(graph)
    changed.ir_version = IR_VERSION
    return changed


def _columns(reader: gs.Node, channels: int) -> NDArray[np.float64]:
    """How large the weights of each input channel are against the largest of their row, which sets the row's scale."""
    weight = np.abs(reader.inputs[1].values.astype(np.float64))
    weight = weight.reshape(len(weight), channels, -1).max(2)
    share: NDArray[np.float64] = (weight / np.maximum(weight.max(1, keepdims=True), 1e-12)).max(0)
    return share


def _floored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(values, max(float(values.max()) * FLOOR, 1e-12))
