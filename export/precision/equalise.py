"""Equalisation across layers: scale the channels inside bottlenecks so that 8 bits suit all of them.

All channels of an activation have one scale, so a channel that is a hundred times larger than the others leaves them
few levels. Since a ReLU commutes with a positive factor, channel c may be written 2^k times smaller and read 2^k times
larger; factors that are powers of two leave the function equal to the last bit. This is cross-layer equalisation (Nagel
et al. 2019, "Data-free quantization") by the activations' ranges ("SmoothQuant", Xiao et al. 2022): the writers'
weights are quantised per channel and are not affected.

Residual streams are not equalised: half of their error lies in additions, and all blocks would need the same factors.
`export/precision/streams.py` treats them.
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
"""Name of a group -> exponent k of each channel, which is written 2^k times smaller."""
MIGRATION_STRENGTH = 0.5
"""SmoothQuant's alpha. 1: all channels' activations get equal peaks; 0: all columns of the readers' weights do."""
MAX_SHIFT = 8
MIN_RELATIVE_PEAK = 1e-3
"""Lower bound of a channel's peak, relative to the largest channel's."""


def inner_groups(graph: gs.Graph) -> list[Group]:
    """List the groups with one writer and without an addition: those inside bottlenecks."""
    return [group for group in channel_groups(graph) if len(group.writers) == 1 and not group.additions]


def shifts(model: onnx.ModelProto, feeds: Iterable[Feed], balance: float = MIGRATION_STRENGTH) -> Shifts:
    """Compute the exponents of every group inside a bottleneck of a float32 graph, from the activations of samples.

    Args:
        model: float32, after surgery.
        feeds: inputs of the graph.
        balance: share of the difference between channels that moves into the readers' weights, 0 to 1.
    """
    groups = inner_groups(gs.import_onnx(model))
    read_tensors = [group.readers[0].inputs[0].name for group in groups]
    session = Session(with_outputs(model, read_tensors))
    peaks = [np.zeros(group.channels) for group in groups]
    for feed in feeds:
        results = session(feed)
        for peak, name in zip(peaks, read_tensors, strict=True):
            values = results[name].reshape(len(results[name]), len(peak), -1)
            np.maximum(peak, np.abs(values).max((0, 2)), out=peak)
    result: Shifts = {}
    for group, peak in zip(groups, peaks, strict=True):
        columns = np.max([_columns(reader, group.channels) for reader in group.readers], axis=0)
        factor = _clamped(peak) ** balance / _clamped(columns) ** (1 - balance)
        exponent = np.rint(np.log2(factor / np.exp(np.log(factor).mean())))
        result[group.name] = [int(k) for k in exponent.clip(-MAX_SHIFT, MAX_SHIFT)]
    return result


def equalised(model: onnx.ModelProto, shifts: Mapping[str, list[int]]) -> onnx.ModelProto:
    """Scale the channels of a graph; the function stays the same.

    Raises:
        ExportError: the shifts belong to another network.
    """
    if not shifts:
        return model
    graph = gs.import_onnx(model)
    groups = {group.name: group for group in inner_groups(graph)}
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
    """Return the largest weight of each input channel relative to its row's largest, which sets the row's scale."""
    weight = np.abs(reader.inputs[1].values.astype(np.float64))
    weight = weight.reshape(len(weight), channels, -1).max(2)
    share: NDArray[np.float64] = (weight / np.maximum(weight.max(1, keepdims=True), 1e-12)).max(0)
    return share


def _clamped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(values, max(float(values.max()) * MIN_RELATIVE_PEAK, 1e-12))
