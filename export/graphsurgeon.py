"""ONNX GraphSurgeon with a log of errors only: each of its other messages recommends an optional package."""

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

G_LOGGER.severity = G_LOGGER.ERROR

__all__ = ["gs"]
