"""ONNX GraphSurgeon with a log of errors only: each of its other messages recommends an optional package."""

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from export.graph import IR_VERSION

G_LOGGER.severity = G_LOGGER.ERROR

__all__ = ["gs", "to_model"]


def to_model(graph: gs.Graph) -> onnx.ModelProto:
    """Remove unused nodes, sort, and convert to a checked ONNX model without inferred shapes."""
    model: onnx.ModelProto = gs.export_onnx(graph.cleanup().toposort())
    del model.graph.value_info[:]
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model
